"""Switches: one way to read them, in the configs and on the command line."""

import json

import pytest

from interslice.files.switch import is_on
from tests.support.scans import EVALUATE, INFERENCE, TRAIN, head_voxels, whole_message, write_volume


@pytest.mark.parametrize(
    ("values", "meaning"),
    [((True, 1, "true", "True", "TRUE", "yes", "Yes", "1", " true "), True),
     ((False, 0, "false", "False", "FALSE", "no", "NO", "0"), False)],
)  # fmt: skip
def test_yes_and_no_in_any_case(values, meaning):
    assert [is_on(v) for v in values] == [meaning] * len(values)


@pytest.mark.parametrize("value", ["", "on", "off", "maybe", None, 2, 0.5, [], "truely", "nope"])
def test_anything_else_is_refused_in_words(value):
    with pytest.raises(ValueError, match="evidence is on or off: true, yes, 1, or false, no, 0; got "):
        is_on(value, "evidence")


@pytest.mark.slow
@pytest.mark.parametrize(("on", "off"), [("yes", "no"), ("1", "0"), ("TRUE", "false"), (True, False)])
def test_a_run_reads_all_of_them_in_this_way(on, off, run_here, tiny_overrides, tmp_path):
    truth = write_volume(tmp_path / "truth" / "head.nii.gz", head_voxels((16, 14, 21)))

    def files(value, **others):
        folder = tmp_path / f"{value}{len(others)}"
        switches = dict.fromkeys(("evidence", "report", "compare", "deidentify"), value)
        settings = switches | {"output_dir": str(folder), "output_format": "both", "num_steps": 1}
        run_here("inference", [INFERENCE, EVALUATE], tiny_overrides(truth, **(settings | others)))
        (case,) = folder.iterdir()
        return {p.name.removeprefix(case.name) for p in case.iterdir()}, case

    plain, _ = files(off)
    everything, case = files(on)
    assert "report.html" not in plain and "_filled.nii.gz" not in plain
    assert {"report.html", "_filled.nii.gz", "_measured"} <= everything and case.name != "head"
    assert "independent_tv" in json.loads((case / "metrics.json").read_text())
    before = (case / "run.json").stat().st_mtime_ns
    run_here(
        "inference", INFERENCE, tiny_overrides(truth, skip_finished=on, deidentify=on, output_dir=str(case.parent))
    )
    assert (case / "run.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["evidence", "report", "compare", "deidentify", "skip_finished"])
def test_a_switch_that_is_neither_ends_the_run_before_it_begins(name, run_here, tiny_overrides, tmp_path):
    truth = write_volume(tmp_path / "truth" / "head.nii.gz", head_voxels((16, 14, 21)))
    with pytest.raises(Exception) as caught:
        run_here("inference", [INFERENCE, EVALUATE], tiny_overrides(truth, **{name: "perhaps"}))
    assert f"{name} is on or off: true, yes, 1, or false, no, 0; got 'perhaps'" in whole_message(caught.value)
    assert not list((tmp_path / "results").rglob("*.nii.gz"))


@pytest.mark.slow
def test_resume_is_one_of_them(run_here, tmp_path):
    for seed in (0, 1):
        write_volume(tmp_path / "heads" / f"{seed}.nii.gz", head_voxels((24, 20, 24), seed))
    overrides = {"dataset_dir": str(tmp_path / "heads"), "output_dir": str(tmp_path / "out"), "device": "cpu"}
    with pytest.raises(Exception) as caught:
        run_here("training", TRAIN, overrides | {"resume": "perhaps"})
    assert "resume is on or off" in whole_message(caught.value)
