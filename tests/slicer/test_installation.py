"""Which Python can run it is found without importing anything, and what to do is said in words."""

import subprocess
import sys

import pytest

from tests.support.scans import ROOT


@pytest.fixture
def installation(slicer):
    from InterSliceReconstructionLib import installation

    return installation


def test_this_python_has_all(installation):
    found = installation.look(sys.executable, str(ROOT))
    assert found.ready and found.root == str(ROOT) and found.version == sys.version_info[:2]
    assert installation.advice(found, str(ROOT), True) == ""


def test_an_installed_package_carries_its_bundle(installation, tmp_path):
    package = tmp_path / "site" / "interslice"
    (package / "share" / "configs").mkdir(parents=True)
    for file in (package / "__init__.py", package / "share" / "configs" / "inference.json"):
        file.touch()
    assert installation.look(sys.executable, str(tmp_path / "site")).root == str(package / "share")


def test_a_python_without_the_package(installation, tmp_path):
    found = installation.look(sys.executable, "", None, run_isolated)
    assert not found.ready and "interslice" in found.missing and found.root == ""
    said = installation.advice(found, "", True)
    assert "interslice" in said and said.endswith(
        "choose the folder of the bundle, the one that holds configs/ and models/."
    )
    assert "Install puts them there" in installation.advice(found, str(ROOT), True)
    elsewhere = installation.advice(found, str(ROOT), False)
    assert f"run  {sys.executable} -m pip install " in elsewhere and str(ROOT) in elsewhere


def run_isolated(command, **others):
    """Without site-packages and the current folder."""
    return subprocess.run([command[0], "-I", "-S", *command[1:]], **others)


def test_programs_that_are_no_python(installation, tmp_path):
    for program in (str(tmp_path / "none"), "/bin/true" if sys.platform != "win32" else "where"):
        found = installation.look(program)
        assert not found.ready and "does not start" in installation.advice(found, str(ROOT), False)


def test_an_old_python_is_told_before_anything_else(installation):
    found = installation.Found("/opt/python", (3, 9))
    assert "This Python is 3.9, and the package needs 3.11 or newer" in installation.advice(found, str(ROOT), True)


def test_ranges_are_installed_where_the_bundle_has_them(installation, tmp_path):
    assert installation.requirements(str(tmp_path)) == ["-r", str(tmp_path / "requirements.txt")]
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert installation.requirements(str(tmp_path))[0] == "-r"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "interslice"\n')
    assert installation.requirements(str(tmp_path)) == [str(tmp_path)]
