"""The BIDS app: a data set in, a valid derivatives data set out, by the bundle's own run."""

import json
import os
import re
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from interslice.bids.app import main
from interslice.bids.options import RUN, parser, read
from interslice.bids.validator import COMMANDS, errors_in, find_validator
from interslice.usage import UsageError
from tests.support.bids_sets import validate, write_dataset, write_scan
from tests.support.scans import INFERENCE, ROOT, cut_short, head_voxels, thick_voxels, write_volume

RECON = "sub-02/ses-a/anat/sub-02_ses-a_res-high_desc-interslice_FLAIR"


@pytest.fixture
def app(tiny_weights, monkeypatch, tmp_path):
    """Runs the app on a data set with a tiny network: `app(bids_dir, *words)`; returns the derivatives' folder."""
    monkeypatch.chdir(tmp_path)

    def run(bids_dir, *words, out=tmp_path / "out"):
        given = [
            "--checkpoint",
            str(tiny_weights),
            "--num_steps",
            "2",
            "--device",
            "cpu",
            "--sampler#progress",
            "False",
        ]
        report = [] if "--report" in words else ["--report", "no"]
        main([str(bids_dir), str(out), "participant", *given, "--skip-bids-validation", *report, *words])
        return out

    return run


@pytest.fixture
def dataset(tmp_path):
    root = write_dataset(tmp_path / "set", **{"sub-01_T1w": None, "sub-01_T2w": 0, "sub-02_ses-a_FLAIR": 1})
    fields = {"MagneticFieldStrength": 3, "SliceThickness": 3, "PatientName": "Nobody"}
    (root / "sub-02/ses-a/anat/sub-02_ses-a_FLAIR.json").write_text(json.dumps(fields))
    return root


def sidecar(out, name=RECON):
    return json.loads((out / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_run_gives_a_data_set_that_validates(app, dataset, tmp_path, capsys):
    """With a scan that is damaged, one of thin slices, a page, the spread, and the parts of the evidence."""
    cut_short(write_scan(dataset, "sub-01_run-2_T2w"))
    with pytest.raises(SystemExit, match=r"1 of 3 volumes have no result:\n.*sub-01_run-2_T2w.nii.gz: .*damaged"):
        app(dataset, "--evidence", "yes", "--report", "yes", "--num_draws", "2")
    out = tmp_path / "out"
    assert "sub-01_T1w.nii.gz: no thick axis found" in capsys.readouterr().err
    stem = RECON.removesuffix("interslice_FLAIR")
    kinds = [
        f"{stem}interslice{kind}_FLAIR{end}"
        for kind in ("", "Std", "Filled", "Measured")
        for end in (".nii.gz", ".json")
    ]
    found = {str(p.relative_to(out)) for p in (out / "sub-02").rglob("*") if p.is_file()}
    page = "sub-02/ses-a/figures/sub-02_ses-a_res-high_desc-interslice_FLAIR_report.html"
    assert found == {*kinds, page}
    assert sorted(p.name for p in out.iterdir()) == [
        ".bidsignore", "README.md", "dataset_description.json", "sub-01", "sub-02",
    ]  # fmt: skip
    told = sidecar(out)
    assert told["Sources"] == ["bids:raw:sub-02/ses-a/anat/sub-02_ses-a_FLAIR.nii.gz"]
    assert told["SkullStripped"] is False and told["MagneticFieldStrength"] == 3
    assert told["Resolution"] == "Voxels of 1 x 1 x 1 mm; those of what was measured are 1 x 1 x 4 mm"
    assert told["RunRecord"]["settings"]["num_draws"] == 2
    assert set(told["RunRecord"]["files"]) == found - {f"{RECON}.json"} | {f"{RECON}.json"}
    text = (out / f"{RECON}.json").read_text()
    assert "Nobody" not in text and str(dataset) not in text and "SliceThickness" not in text
    described = json.loads((out / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative" and described["DatasetLinks"] == {"raw": "../set"}
    assert (out / described["DatasetLinks"]["raw"] / "dataset_description.json").is_file()
    assert [maker["Name"] for maker in described["GeneratedBy"]] == ["interslice"]
    assert validate(out) == []
    del told["SkullStripped"]
    (out / f"{RECON}.json").write_text(json.dumps(told))
    assert any("SkullStripped" in error for error in validate(out))  # what the standard wants is looked at


@pytest.mark.slow
def test_results_are_those_of_the_bundle_and_what_is_finished_is_left_alone(
    app, dataset, run_here, tiny_overrides, tmp_path, capsys
):
    out = app(dataset, "--suffix", "FLAIR", "--seed", "3", "--num_draws", "1")
    scan = dataset / "sub-02/ses-a/anat/sub-02_ses-a_FLAIR.nii.gz"
    run_here("inference", INFERENCE, tiny_overrides(scan, seed=3))
    there = nib.load(tmp_path / "results/sub-02_ses-a_FLAIR/sub-02_ses-a_FLAIR_recon.nii.gz")
    ours = nib.load(out / f"{RECON}.nii.gz")
    assert np.array_equal(ours.get_fdata(), there.get_fdata()) and np.array_equal(ours.affine, there.affine)
    assert not (out / f"{RECON.replace('interslice', 'intersliceStd')}.nii.gz").exists()

    before = (out / f"{RECON}.nii.gz").stat().st_mtime_ns
    go_on = ("--suffix", "FLAIR", "--skip_finished")
    app(dataset, *go_on)
    assert "1 results are finished in" in capsys.readouterr().err
    assert (out / f"{RECON}.nii.gz").stat().st_mtime_ns == before
    write_scan(dataset, "sub-02_ses-a_FLAIR", 5)  # other data
    app(dataset, *go_on, "--num_draws", "2")
    assert (out / f"{RECON}.nii.gz").stat().st_mtime_ns > before
    spread = out / f"{RECON.replace('interslice', 'intersliceStd')}.nii.gz"
    assert spread.is_file()
    app(dataset, "--suffix", "FLAIR", "--num_draws", "1")  # done again, without: nothing stale stays
    assert not spread.exists() and not spread.with_name(spread.name.replace(".nii.gz", ".json")).exists()


@pytest.mark.slow
def test_results_may_lie_in_the_data_set_under_derivatives_with_masks(app, dataset, tmp_path, monkeypatch):
    write_volume(tmp_path / "masks/sub-01_T2w.nii.gz", (thick_voxels() > 300).astype(np.uint8), spacing=(1, 1, 4))
    words = ("--suffix", "T2w", "--mask_dir", str(tmp_path / "masks"), "--desc", "hr", "--num_draws", "1")
    out = app(dataset, *words, out=dataset / "derivatives/interslice")
    described = json.loads((out / "dataset_description.json").read_text())
    assert described["DatasetLinks"] == {"raw": "../.."}
    names = sorted(p.name for p in (out / "sub-01/anat").glob("*.nii.gz"))
    assert names == ["sub-01_res-high_desc-hrT2w_mask.nii.gz", "sub-01_res-high_desc-hr_T2w.nii.gz"]
    assert validate(out) == [] and validate(dataset) == []
    settings = sidecar(out, "sub-01/anat/sub-01_res-high_desc-hr_T2w")["RunRecord"]["settings"]
    assert re.fullmatch("[0-9a-f]{16}", settings["checkpoint"])  # no path of a machine


@pytest.mark.slow
def test_scans_of_a_contrast_become_one_volume(app, tmp_path):
    voxels = head_voxels((24, 24, 24))
    root = write_dataset(tmp_path / "set")
    write_scan(root, "sub-01_acq-ax_T2w", voxels=voxels.reshape(24, 24, 6, 4).mean(3))
    write_scan(root, "sub-01_acq-cor_T2w", voxels=voxels.reshape(24, 6, 4, 24).mean(2), spacing=(1, 4, 1))
    write_scan(root, "sub-01_acq-corx_T2w", voxels=voxels.reshape(24, 6, 4, 24).mean(2), spacing=(1, 4, 1))  # a copy
    write_scan(root, "sub-01_FLAIR")
    out = app(root, "--combine", "--num_draws", "1", "--rounds", "0", "--operator#cover", "reference")
    told = sidecar(out, "sub-01/anat/sub-01_res-high_desc-interslice_T2w")
    used = ["sub-01_acq-ax_T2w", "sub-01_acq-cor_T2w"]
    assert told["Sources"] == [f"bids:raw:sub-01/anat/{name}.nii.gz" for name in used]
    assert list(told["RunRecord"]["stacks_left_out"]) == ["sub-01_acq-corx_T2w.nii.gz"]
    assert str(root) not in json.dumps(told)
    assert (out / "sub-01/anat/sub-01_res-high_desc-interslice_FLAIR.nii.gz").is_file()
    assert validate(out) == []
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.nii.gz")}
    app(root, "--combine", "--skip_finished")
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.nii.gz")} == before and len(before) == 2


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(app, dataset, tmp_path, capsys):
    app(dataset, "--dry_run")
    assert f"sub-02/ses-a/anat/sub-02_ses-a_FLAIR.nii.gz -> {RECON}.nii.gz\n" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num_stepz", "3"], "unknown option --num_stepz: did you mean --num_steps"),
        (["--output_format", "dicom"], "--output_format is not taken here"),
        (["--write_cases#desc", "x"], "--write_cases#desc is not taken here"),
        (["--checkpoint", "$open('x','w')"], r"begins with \$ is run as Python"),
        (["--desc", "a_b"], "desc must be a word of letters and digits, got 'a_b'"),
        (["--participant_label", "9"], "participant_label 9 is not there"),
        (["--n_cpus", "0"], "n_cpus must be a whole number from 1, got 0"),
        (["--mem_mb", "-5"], "mem_mb must be a number of MB above 0, got -5"),
        (["more"], "these words belong to no option: more"),
        (["--combine=perhaps"], "combine is on or off"),
    ],
)
def test_what_makes_no_sense_ends_before_any_work(app, dataset, tmp_path, words, message):
    with pytest.raises(UsageError, match=message):
        app(dataset, *words)
    assert not (tmp_path / "out").exists() and not (tmp_path / "x").exists()


def test_values_of_ids_are_checked_by_the_run_and_leave_nothing_behind(app, dataset, tmp_path):
    with pytest.raises(Exception) as raised:
        app(dataset, "--preset", "fastest")
    from interslice.files.failure import failure_of

    assert failure_of(raised.value).status == 2 and "preset must be one of" in failure_of(raised.value).said
    assert not (tmp_path / "out").exists()


def test_switches_may_stand_before_the_words_and_have_a_word_of_their_own():
    for words in (["--combine", "a", "b", "participant"], ["a", "b", "participant", "--combine", "True", "--x", "3"]):
        args, others = read(words)
        assert args.combine is True and (str(args.bids_dir), str(args.output_dir)) == ("a", "b")
    assert others == ["--x", "3"]
    assert read(["a", "b", "participant", "--skip-bids-validation=no"])[0].skip_bids_validation is False


def test_the_page_names_the_options_that_there_are():
    page = (ROOT / "docs/how_to/bids.md").read_text(encoding="utf-8")
    options, table = parser()._option_string_actions, page[page.index("| option") : page.index("`group` as")]
    named = set(re.findall(r"`(--[\w-]+)[ `]", table))
    assert named - options.keys() == set() and len(named) > 15
    assert {f"--{name}" for name in RUN} <= named


def test_only_thin_scans_are_nothing_to_do(app, tmp_path):
    with pytest.raises(ValueError, match="every scan was left out"):
        app(write_dataset(tmp_path / "set", **{"sub-01_T1w": None}))


@pytest.mark.parametrize(
    ("out", "content", "message"),
    [
        ("set/results", None, "lies in the data set that is read.*set/derivatives/interslice"),
        (".", None, "holds the data set that is read"),
        ("other", {"Name": "theirs", "DatasetType": "raw"}, "data set of other origin.*theirs"),
        ("other", {"DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]}, "of other origin"),
        ("other", {"DatasetLinks": {"raw": "../third"}}, "holds results of other/../third, another data set"),
    ],
)
def test_results_go_into_a_data_set_of_their_own(dataset, tmp_path, monkeypatch, out, content, message):
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "third")
    if content is not None:
        (tmp_path / out).mkdir()
        (tmp_path / out / "dataset_description.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=message):
        main([str(dataset), out, "participant", "--skip-bids-validation", "--dry_run"])


def test_the_validator_s_word_on_the_data_set_that_is_read(dataset, tmp_path, monkeypatch):
    if find_validator() is None:
        pytest.skip(f"none of {', '.join(COMMANDS)} is installed: pip install bids-validator-deno==3.0.2")
    monkeypatch.chdir(tmp_path)
    main([str(dataset), "out", "participant", "--dry_run"])
    (dataset / "sub-01/anat/notes.txt").write_text("a file that BIDS does not know")
    with pytest.raises(ValueError, match=r"is no valid BIDS data set.*\n  /sub-01/anat/notes.txt NOT_INCLUDED"):
        main([str(dataset), "out", "participant", "--dry_run"])


def test_a_validator_that_fails_is_no_verdict(tmp_path):
    command = tmp_path / "validator"
    command.write_text("#!/bin/sh\necho no such option >&2\nexit 1\n")
    command.chmod(0o755)
    with pytest.raises(ValueError, match="did not work.*no such option.*--skip-bids-validation"):
        errors_in(tmp_path, str(command))


def test_the_command_line_ends_plainly():
    """And without what takes seconds to import, where there is nothing to do."""
    words = [sys.executable, "-m", "interslice.bids", "somewhere", "out", "group"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert re.fullmatch("error: there is no analysis at the level of a group.*\n", done.stderr)


@pytest.mark.slow
def test_a_result_that_is_half_replaced_is_not_taken_for_whole(app, dataset, monkeypatch):
    words = ("--suffix", "FLAIR", "--num_draws", "2")
    out = app(dataset, *words)
    replace = os.replace

    def fails(source, target):
        if str(target).endswith("intersliceStd_FLAIR.nii.gz"):
            raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", fails)
        with pytest.raises(SystemExit, match=r"1 of 1 volumes have no result:\n.*FLAIR.nii.gz: .*No space left"):
            app(dataset, *words)
    assert not (out / f"{RECON}.json").exists()
    assert not [p.name for p in out.iterdir() if p.name.startswith(".") and p.name != ".bidsignore"]
    app(dataset, *words, "--skip_finished")
    assert (out / f"{RECON}.json").is_file()


@pytest.mark.parametrize(
    "words",
    [
        ["--num_steps", "$__import__('os').mkdir('made')"], ["--operator", '{"_target_": "os.mkdir", "path": "made"}'],
        ["--operator#_target_", "os.mkdir"], ["--start", "%configs/inference.json::start"],
    ],
    ids=str,
)  # fmt: skip
def test_nothing_that_is_given_is_evaluated(app, words, tmp_path):
    write_dataset(tmp_path / "data")
    with pytest.raises(UsageError, match="is not taken here; write it into a config|unknown option"):
        app(tmp_path / "data", *words)
    assert not (tmp_path / "made").exists()
