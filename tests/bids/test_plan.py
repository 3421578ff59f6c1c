"""What is to be done of the scans of a data set, before anything is reconstructed."""

import json

import numpy as np
import pytest

from interslice.bids.dataset import find_scans, open_dataset
from interslice.bids.derivatives import Derivatives
from interslice.bids.names import derivative_of
from interslice.bids.plan import plan_for
from interslice.files.fingerprint import fingerprint
from interslice.files.listed import as_list, read_list
from tests.support.bids_sets import write_dataset, write_scan
from tests.support.scans import thick_voxels


@pytest.fixture
def stacks(tmp_path):
    names = ("sub-01_acq-ax_T2w", "sub-01_acq-cor_T2w", "sub-01_FLAIR", "sub-02_acq-ax_T2w")
    source = open_dataset(write_dataset(tmp_path / "set", **dict.fromkeys(names, 0)))
    return Derivatives(tmp_path / "out", source, "me", "1.0")


def planned(derivatives, **options):
    scans = find_scans(derivatives.source)
    return plan_for(scans, derivatives, **options), scans


def made(jobs):
    return {job.name.named(): len(job.paths) for job in jobs}


def test_each_scan_alone_or_those_of_a_contrast_together(stacks):
    plan, _ = planned(stacks)
    assert len(plan.single) == 4 and not plan.several
    plan, _ = planned(stacks, combine=True)
    assert made(plan.several) == {"sub-01_res-high_desc-me_T2w": 2}
    assert made(plan.single) == {"sub-01_res-high_desc-me_FLAIR": 1, "sub-02_acq-ax_res-high_desc-me_T2w": 1}


def test_contrasts_of_one_name_are_told_apart_by_their_sidecars_and_do_not_collide(stacks):
    for acq, echo in (("ax", 0.02), ("cor", 0.1)):
        path = stacks.source.root / f"sub-01/anat/sub-01_acq-{acq}_T2w.json"
        path.write_text(json.dumps({"EchoTime": echo}))
    plan, scans = planned(stacks, combine=True)
    names = {"sub-01_acq-ax_res-high_desc-me_T2w": 1, "sub-01_acq-cor_res-high_desc-me_T2w": 1}
    assert made(plan.several) == names and not scans.refused


def test_thin_slices_are_left_out_unless_the_operator_is_told_otherwise(stacks):
    path = write_scan(stacks.source.root, "sub-03_T1w", None)
    plan, scans = planned(stacks)
    assert len(plan.jobs) == 4 and "no thick axis found" in scans.left_out[str(path)]
    plan, scans = planned(stacks, only_thick=False)
    assert len(plan.jobs) == 5 and not scans.left_out


def test_several_volumes_in_a_file_are_none_of_an_anatomical_scan(stacks):
    path = write_scan(stacks.source.root, "sub-01_acq-sag_T2w", voxels=np.stack([thick_voxels(), thick_voxels(1)], 3))
    for combine in (False, True):
        plan, scans = planned(stacks, combine=combine)
        assert scans.refused[str(path)].startswith("it holds 2 volumes")
        assert sum(len(job.paths) for job in plan.jobs) == 4  # the others of its contrast are taken


def test_a_scan_whose_result_would_have_the_name_of_another_is_refused(stacks):
    write_scan(stacks.source.root, "sub-01_desc-a_FLAIR")
    plan, scans = planned(stacks)
    assert len(plan.jobs) == 4
    (why,) = scans.refused.values()
    assert "would be called sub-01/anat/sub-01_res-high_desc-me_FLAIR.nii.gz, as that of sub-01_FLAIR" in why


def test_what_is_finished_is_whole_and_of_the_same_data(stacks):
    scan = stacks.source.root / "sub-01/anat/sub-01_FLAIR.nii.gz"
    name = derivative_of([scan], "me")
    volume, sidecar = (stacks.root / name.path(end=end) for end in (".nii.gz", ".json"))
    volume.parent.mkdir(parents=True)
    volume.write_bytes(b"")
    record = {"fingerprint": fingerprint(scan), "files": {str(name.path()): 1}}

    def finished(**other):
        sidecar.write_text(json.dumps({"RunRecord": record | other}))
        return [str(job.name.path()) for job in planned(stacks, skip_finished=True)[0].finished]

    assert finished() == [str(name.path())]
    assert finished(fingerprint="0123") == []
    assert finished(files={"sub-01/anat/another": 1}) == []
    assert finished(files=None) == []
    assert planned(stacks)[0].finished == []  # without the switch all is done again


def test_the_list_of_a_run_holds_any_path(tmp_path):
    source = open_dataset(write_dataset(tmp_path / "a\nset #1", **{"sub-01_T2w": 0}))
    plan, _ = planned(Derivatives(tmp_path / "out", source, "me", "1.0"))
    (tmp_path / "scans.txt").write_bytes(as_list(path for job in plan.jobs for path in job.paths))
    assert read_list(tmp_path / "scans.txt") == [source.root / "sub-01/anat/sub-01_T2w.nii.gz"]
