"""JSON files higher up in a BIDS data set hold of the scans below, the nearer before the farther."""

import json

import numpy as np
import pytest

from interslice.files.contrast import contrast_of_file
from interslice.files.read import LoadVolumed
from interslice.files.sidecar import fields_of, read_sidecar
from tests.support.scans import thick_voxels, write_volume

SCAN = "sub-01/ses-2/anat/sub-01_ses-2_acq-cor_T2w"


def say(root, files):
    for name, fields in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.json").write_text(fields if isinstance(fields, str) else json.dumps(fields))
    return root / f"{SCAN}.nii.gz"


@pytest.mark.parametrize(
    ("files", "thickness"),
    [
        ({"T2w": 3}, 3),
        ({"T2w": 3, "acq-cor_T2w": 2}, 2),
        ({"acq-cor_T2w": 2, "sub-01/sub-01_T2w": 3}, 3),
        ({"sub-01/ses-2/sub-01_ses-2_T2w": 2, SCAN: 3}, 3),
        ({"T1w": 2, "acq-ax_T2w": 2, "sub-01/sub-02_T2w": 2, "T2w": "{", "sub-01/T2w": "[]"}, 0),
        ({"../T2w": 2}, 0),  # outside of the data set
    ],
)
def test_what_holds_of_a_scan(tmp_path, files, thickness):
    files = {k: v if isinstance(v, str) else {"SliceThickness": v} for k, v in files.items()}
    scan = say(tmp_path / "set", {"sub-01/ses-2/anat/x": {}} | files)
    assert fields_of(scan).get("SliceThickness", 0) == thickness
    assert read_sidecar(scan, np.array([1.0, 1.0, 4.0])).thickness == thickness


def test_the_reader_says_where_a_thickness_stands_and_a_contrast_is_told_by_it(tmp_path):
    scan = say(tmp_path, {"T2w": {"SliceThickness": 3, "EchoTime": 0.09}, SCAN: {"SpacingBetweenSlices": 4}})
    write_volume(scan, thick_voxels(), spacing=(1, 1, 4))
    meta = LoadVolumed("image")({"image": str(scan)})["image"].meta
    assert meta["slice_thickness"] == 3 and meta["slice_thickness_by"] == "T2w.json above it"
    assert contrast_of_file(scan).echo == 90


def test_other_names_inherit_nothing(tmp_path):
    say(tmp_path, {"T2w": {"SliceThickness": 3}, "scan": {"EchoTime": 0.1}})
    assert fields_of(tmp_path / "scan.nii.gz") == {"EchoTime": 0.1}
    assert fields_of(tmp_path / "T2w.nii.gz") == {"SliceThickness": 3}  # that is the one beside it
