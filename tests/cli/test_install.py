"""The package as it is installed: the wheel holds its bundle, and asks for versions that the tests' pins are among."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement

import interslice
from interslice import home
from scripts import try_versions
from tests.support.scans import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
NEEDED = ("configs/inference.json", "configs/metadata.json", "configs/logging.conf", "models/model.pt",
          "models/large/model.pt", "models/ct/model.pt", "sample_data/mri/measured/colin27_t1_5mm.nii.gz")  # fmt: skip


def pins(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {r.name.lower(): r for line in lines if re.match(r"[\w.-]+==", line) and (r := Requirement(line))}


def version_of(pin):
    return next(iter(pin.specifier)).version


def test_ranges_hold_the_pins_and_nothing_else_is_asked_for():
    asked = {(r := Requirement(line)).name.lower(): r for line in PROJECT["dependencies"]}
    pinned = pins("requirements.txt")
    assert set(asked) == set(pinned)
    for name, requirement in asked.items():
        assert requirement.specifier.contains(version_of(pinned[name])), requirement
        assert {s.operator for s in requirement.specifier} == {">=", "<"}, requirement


def test_extras_hold_the_pins_of_the_tests():
    pinned = pins("requirements-dev.txt")
    own = [name for name in EXTRAS if name != "all"]
    assert EXTRAS["all"] == [f"interslice[{','.join(own)}]"]
    for requirement in map(Requirement, sum((EXTRAS[name] for name in own), [])):
        assert requirement.specifier.contains(version_of(pinned[requirement.name])), requirement


def test_the_pythons_that_are_tried_are_those_that_are_taken():
    taken = Requirement(f"x{PROJECT['requires-python']}").specifier
    assert [v for v in ("3.10", "3.11", "3.12", "3.13", "3.14") if taken.contains(v)] == list(try_versions.PYTHONS)


def test_the_record_of_what_was_tried_knows_its_versions():
    record = json.loads((ROOT / "docs/versions.json").read_text(encoding="utf-8"))
    rows = record["combinations"]
    assert not [row for row in rows if "failed" in row]
    assert {row["python"] for row in rows} == set(try_versions.PYTHONS)
    assert all("resolved" in row or row["tried"] == "install, doctor, run" for row in rows)
    pinned = pins("requirements.txt")
    whole = [(row["torch"], row["monai"]) for row in rows if row["tried"] == "install, doctor, run"]
    assert (version_of(pinned["torch"]), version_of(pinned["monai"])) in whole
    assert record["not tried"] == ["Windows", "macOS", "Apple's GPUs (MPS)"]


def test_a_checkout_is_its_own_home():
    assert home.home() == ROOT and not home.is_installed()


def tracked(*folders):
    """What git knows of in these folders: a file that lies there by chance is none of the bundle."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository itself, with its .git")
    listed = subprocess.run(["git", "ls-files", "-z", *folders], cwd=ROOT, check=True, capture_output=True)
    return set(listed.stdout.decode("utf-8").split("\0")) - {""}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    return next(folder.iterdir())


@pytest.mark.slow
def test_the_wheel_holds_what_is_needed_and_no_more(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        texts = archive.read(f"interslice-{interslice.__version__}.dist-info/entry_points.txt").decode()
    assert {f"interslice/share/{name}" for name in NEEDED} <= names
    shipped = tracked("configs", "models", "sample_data")
    assert {n.removeprefix("interslice/share/") for n in names if n.startswith("interslice/share/")} == shipped
    code = {n for n in names if n.startswith("interslice/") and not n.startswith("interslice/share/")}
    assert code == tracked("interslice")
    licences = {n.split("/licenses/")[1] for n in names if "/licenses/" in n}
    assert licences == {"LICENSE", "docs/data_license.txt", "interslice/report/page/NIIVUE-LICENSE"}
    assert not [n for n in names if n.startswith(("tests", "scripts", "docs"))]
    assert "interslice = interslice.cli.main:main" in texts and wheel.stat().st_size < 50e6


@pytest.mark.slow
def test_an_installed_package_runs_without_the_checkout(wheel, tmp_path, thick_file, tiny_weights):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:  # as pip does, less the scripts
        archive.extractall(site)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(site)}
    words = ["run", str(thick_file), "-o", "out", "--checkpoint", str(tiny_weights), "--device", "cpu", "--no-report",
             "--num-steps", "2", "--num-draws", "1"]  # fmt: skip
    done = subprocess.run([sys.executable, "-m", "interslice", *words], cwd=tmp_path, env=environment,
                          capture_output=True, encoding="utf-8", timeout=300)  # fmt: skip
    assert done.returncode == 0 and (tmp_path / "out/thick/thick_recon.nii.gz").is_file(), done.stderr
    assert "parsing config_file" not in done.stderr
    code = "from interslice.home import home; print(home())"
    there = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert there.stdout.strip() == str(site / "interslice/share")
