"""dcm2niix's JSON beside a volume is read like a header, if it is of that volume; what is wrong in it is said."""

import json
import math
import shutil
import subprocess
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interslice.files.read import LoadVolumed
from interslice.files.save_results import SaveResults
from interslice.files.sidecar import Sidecar, read_sidecar
from interslice.files.source import source_of
from interslice.physics.thick import ThroughPlaneSampling
from tests.support.dicom_files import write_series
from tests.support.scans import thick_voxels, write_volume

SPACING = np.array([1.0, 1.0, 4.0])


def beside(folder, content, name="scan"):
    """The path of a volume that is not there, with this text or these fields beside it."""
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder / f"{name}.nii.gz"


def load(path):
    return LoadVolumed("image")({"image": str(path)})["image"]


def test_the_thickness_makes_the_gap_known(tmp_path):
    path = write_volume(tmp_path / "scan.nii.gz", thick_voxels(), spacing=SPACING)
    assert load(path).meta["slice_thickness"] == 0
    assert ThroughPlaneSampling().for_measurement(load(path)).thickness == 4
    beside(tmp_path, {"Modality": "MR", "SliceThickness": 3, "SpacingBetweenSlices": 4})
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        volume = load(path)
    assert volume.meta["slice_thickness"] == 3 and source_of(volume).modality == "MR"
    assert ThroughPlaneSampling().for_measurement(volume).thickness == 3
    assert ThroughPlaneSampling(gap=0.5).for_measurement(volume).thickness == 3.5  # what is asked goes first


def test_the_modality_goes_before_the_option_s_default(tmp_path, monkeypatch):
    path = write_volume(tmp_path / "scan.nii.gz", thick_voxels(), spacing=SPACING)
    beside(tmp_path, {"Modality": "CT"})
    asked = []
    monkeypatch.setattr("interslice.files.save_results.save_series", lambda *_, modality, **__: asked.append(modality))
    for image in (load(path), load(write_volume(tmp_path / "other.nii.gz", thick_voxels(), spacing=SPACING))):
        SaveResults("dicom", "MR").write({"image": image, "pred": image}, tmp_path / "out")
    assert asked == ["CT", "MR"]


def test_who_states_a_thickness_that_cannot_be_is_said(tmp_path):
    path = write_volume(tmp_path / "scan.nii.gz", thick_voxels(), spacing=SPACING)
    beside(tmp_path, {"Modality": "MR", "SliceThickness": 0.003, "SpacingBetweenSlices": 4})
    with pytest.raises(ValueError, match="^scan.json beside it states slices 0.003 mm thick.*--operator#thickness"):
        ThroughPlaneSampling().for_measurement(load(path))


DOUBTFUL = {
    "broken": ('{"Modality": "MR", ', "scan.json beside it cannot be read .*, and is left aside"),
    "empty": ("", "cannot be read"),
    "NaN": ('{"Modality": "MR", "SliceThickness": NaN}', "SliceThickness nan is no length, and is left aside"),
    "infinite": ('{"Modality": "MR", "SliceThickness": 1e999}', "SliceThickness inf is no length"),
    "negative": ({"Modality": "MR", "SliceThickness": -3}, "SliceThickness -3 is no length"),
    "words": ({"Modality": "MR", "SliceThickness": "3 mm"}, "SliceThickness '3 mm' is no length"),
    "a list": ({"Modality": "MR", "SliceThickness": [3]}, r"SliceThickness \[3\] is no length"),
    "true": ({"Modality": "MR", "SliceThickness": True}, "SliceThickness True is no length"),
    "too thick": ({"Modality": "MR", "SliceThickness": 9}, r"9 mm is more than 2 times the distance .*\(1, 1, 4 mm\)"),
    "of another volume": (
        {"Modality": "MR", "SliceThickness": 5, "SpacingBetweenSlices": 6},
        r"SpacingBetweenSlices 6 mm is not the largest distance of voxels \(1, 1, 4 mm\)",
    ),
    "of slices along another axis": (
        {"Modality": "MR", "SliceThickness": 1, "SpacingBetweenSlices": 1},
        "SpacingBetweenSlices 1 mm is not the largest",
    ),
}


@pytest.mark.parametrize(("content", "message"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_what_is_wrong_is_said_and_left_aside(tmp_path, content, message):
    write_volume(tmp_path / "scan.nii.gz", thick_voxels(), spacing=SPACING)
    with pytest.warns(UserWarning, match=message):
        volume = load(beside(tmp_path, content))
    assert volume.meta["slice_thickness"] == 0


@pytest.mark.parametrize("modality", ["PT", "", 3, ["MR"]])
def test_a_modality_that_is_neither_is_said(tmp_path, modality):
    sidecar = read_sidecar(beside(tmp_path, {"Modality": modality, "SliceThickness": 3}), SPACING)
    assert sidecar.modality is None and sidecar.thickness == 3
    assert sidecar.doubts == (f"scan.json beside it: Modality {modality!r} is none of MR, CT, and is left aside",)


@pytest.mark.parametrize("content", [{}, [], [1], "3", {"beam": "parallel", "angles": []}])
def test_other_json_is_no_sidecar(tmp_path, content):
    assert read_sidecar(beside(tmp_path, content), SPACING) == Sidecar()


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(thickness=json_values, between=json_values, modality=json_values)
@settings(deadline=None, max_examples=150)
def test_no_content_ends_the_run(tmp_path_factory, thickness, between, modality):
    fields = {"SliceThickness": thickness, "SpacingBetweenSlices": between, "Modality": modality}
    sidecar = read_sidecar(beside(tmp_path_factory.mktemp("json"), fields), SPACING)
    assert 0 <= sidecar.thickness <= 8 and math.isfinite(sidecar.thickness)
    assert sidecar.modality in (None, "MR", "CT")


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
def test_a_pair_of_dcm2niix_says_what_the_series_says(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 900, (20, 18, 6))
    write_series(tmp_path / "series", voxels, np.diag([1.0, 1.0, 4.0, 1.0]), thickness=3)
    command = ["dcm2niix", "-z", "y", "-f", "scan", "-o", tmp_path, tmp_path / "series"]
    subprocess.run(command, check=True, capture_output=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        converted = load(tmp_path / "scan.nii.gz")
    assert converted.meta["slice_thickness"] == load(tmp_path / "series").meta["slice_thickness"] == 3
    assert source_of(converted).modality == "MR"
