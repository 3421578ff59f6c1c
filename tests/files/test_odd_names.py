"""Files of any name in a folder: nothing of a name is evaluated, and each is usable or refused by its name."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from monai.transforms import Compose

from interslice.files.cases import Cases
from interslice.files.check import CheckVolumed
from interslice.files.command_line import parse
from interslice.files.find import case_name
from interslice.files.read import LoadVolumed
from tests.support.scans import INFERENCE, thick_voxels, write_volume

READ = Compose([LoadVolumed("image"), CheckVolumed("image")])
SUFFIX = ".nii.gz"
CODE = "$open('made','w').name"
ODD = ["$x", CODE, "@seed", "%x.json#y", "#", " lead", "trail ", "a'b\"c", "new\nline", "äöü-β-日本", "-x", "--seed=3",
       "a::b", "a#b", "['$x']", "{'_target_': 'x'}", "None", "1e5", "~", "*", "a\\b", "tab\t", "\x1b[31m", "\u00e9",
       "e\u0301", "x" * 200]  # fmt: skip
SAFE = 200
"""Bytes of a name that no result of it makes too long."""
LONG = ["y" * 230, "z" * 248]
"""Names whose results have longer names; a file system takes 255 bytes."""


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    return write_volume(tmp_path_factory.mktemp("volume") / "thick.nii.gz", thick_voxels(), spacing=(1, 1, 4))


NAMES = st.text(st.characters(blacklist_characters="\0/", codec="utf-8"), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(NAMES, min_size=1, max_size=3, unique=True))
@example(ODD)
@example(LONG)
def test_every_file_of_a_folder_is_usable_or_refused_under_its_name(volume, tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        shutil.copy(volume, folder / f"{name}{SUFFIX}")
    here = set(os.listdir("."))
    shown = {name for name in names if not name.startswith(".")}
    if not shown:
        return
    try:
        cases = Cases(folder, READ, output_dir=folder / "out")
    except ValueError as nothing:
        assert all(f"{name}{SUFFIX}: " in str(nothing) and len(name.encode()) > SAFE for name in shown)
        return
    refused = {case_name(path) for path in cases.refused}
    assert {c["case"] for c in cases.usable} | refused == shown and len(cases.usable) + len(refused) == len(shown)
    assert all(len(name.encode()) > SAFE for name in refused)
    assert set(os.listdir(".")) == here


@pytest.mark.slow
def test_results_are_written_under_every_name(volume, tmp_path, run_here, tiny_overrides):
    folder = tmp_path / "names"
    folder.mkdir()
    for name in ODD:
        shutil.copy(volume, folder / f"{name}{SUFFIX}")
    run_here("inference", INFERENCE, tiny_overrides(folder, num_steps=1))
    results = tmp_path / "results"
    assert sorted(os.listdir(results)) == sorted(ODD)
    for name in ODD:
        assert (results / name / f"{name}_recon.nii.gz").is_file() and (results / name / "run.json").is_file()


@pytest.mark.slow
def test_the_same_names_in_a_list(volume, tmp_path, run_here, tiny_overrides):
    """One list of `find -print0`, for inference with masks as evaluation has them; two names are of nothing."""
    for name in ODD[:4] + ["new\nline"]:
        shutil.copy(volume, tmp_path / f"{name}{SUFFIX}")
    names = [f"{n}{SUFFIX}" for n in [*ODD[:4], "new\nline", "missing", "@missing"]]
    (tmp_path / "list.txt").write_bytes("\0".join(names).encode() + b"\0")
    with pytest.raises(SystemExit, match="2 of 7 volumes have no result"):
        run_here("inference", INFERENCE, tiny_overrides(tmp_path / "list.txt", num_steps=1))
    assert sorted(os.listdir(tmp_path / "results")) == sorted([*ODD[:4], "new\nline"])


def test_a_name_with_a_hyphen_is_an_option_and_not_a_value():
    assert parse(["--dataset_dir", "-x.nii"])[1] == {"dataset_dir": "True", "x.nii": "True"}
