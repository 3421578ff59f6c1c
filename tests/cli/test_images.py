"""The recipes of images: what they copy is there, versions are the pins', and nothing runs as root."""

import re
import subprocess

import pytest

from tests.support.scans import ROOT

DOCKER = (ROOT / "Dockerfile").read_text(encoding="utf-8")
APPTAINER = (ROOT / "packaging/interslice.def").read_text(encoding="utf-8")


def instructions():
    """(word, rest) of each instruction of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", "\n".join(line for line in DOCKER.splitlines() if not line.startswith("#")))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def last_stage():
    found = instructions()
    return found[max(i for i, (word, _) in enumerate(found) if word == "FROM") :]


def sections():
    """The sections of Apptainer's recipe."""
    return dict(re.findall(r"^%(\w+)\n(.*?)(?=^%|\Z)", APPTAINER, re.MULTILINE | re.DOTALL))


def test_stages_follow_one_another_and_both_devices_have_one():
    known = {"torch-${DEVICE}"}
    for word, rest in instructions():
        if word == "FROM":
            source, _, name = rest.split()
            assert source in known or source.startswith("docker.io/library/python:${PYTHON}-")
            known.add(name)
        for stage in re.findall(r"--from=(\w+)", rest):
            assert stage in known
    assert {"torch-cpu", "torch-cuda"} <= known and "ARG DEVICE=cpu" in DOCKER.splitlines()


def test_the_last_stage_runs_the_console_command_as_a_user():
    words = dict(last_stage())
    assert words["ENTRYPOINT"] == '["interslice"]' and words["WORKDIR"] == "/data"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", words["USER"])
    order = [word for word, _ in last_stage()]
    assert order.index("USER") > max(i for i, word in enumerate(order) if word in ("RUN", "COPY"))


def test_versions_are_those_of_the_pins():
    """No version is written twice: pip is given the pins as constraints, and torch itself is read from them."""
    for text in (DOCKER, APPTAINER):
        assert re.findall(r"==\d", text) == []
        installs = re.findall(r"pip install .*", text)
        assert installs and all("-c /build/constraints.txt" in line or "grep '^torch==' " in line for line in installs)
    python = re.search(r"ARG PYTHON=([\d.]+)", DOCKER)[1]
    assert f"python:{python}-slim" in APPTAINER
    lines = [(ROOT / name).read_text(encoding="utf-8") for name in ("requirements.txt", "requirements-dev.txt")]
    pinned = re.findall(r"^[A-Za-z0-9_.-]+==\S+$", "\n".join(lines), re.MULTILINE)
    assert {"torch", "hatchling", "numba", "ismrmrd"} <= {pin.split("==")[0] for pin in pinned}


def test_what_is_copied_is_there_and_is_not_ignored():
    ignored = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert ignored[0] == "*" and all((ROOT / name).exists() for name in kept)
    copied = {line.split()[0] for line in sections()["files"].strip().splitlines()}
    assert copied == kept
    wheel = {"interslice", "configs", "models", "sample_data", "pyproject.toml", "README.md", "LICENSE"}
    assert wheel | {"docs/data_license.txt", "requirements.txt", "requirements-dev.txt"} == kept


@pytest.mark.parametrize("name", ["post", "environment", "runscript", "test", "files", "labels"])
def test_apptainers_recipe_has_its_sections(name):
    assert sections()[name].strip()


def test_apptainers_recipe_runs_the_console_command():
    assert 'exec interslice "$@"' in sections()["runscript"] and APPTAINER.count("Bootstrap: docker") == 1


def test_apptainers_image_runs_where_it_was_started_unless_something_writable_is_bound(tmp_path):
    """Its own /data is read-only, and results would have nowhere to go."""
    assert "[ -w /data ]" in sections()["runscript"]
    (tmp_path / "bound").mkdir()
    for place, ends in ((tmp_path / "bound", tmp_path / "bound"), ("/none", tmp_path)):
        script = sections()["runscript"].replace("/data", str(place)).replace('exec interslice "$@"', "pwd")
        done = subprocess.run(["sh", "-eu", "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True)
        assert done.stdout.strip() == str(ends)
