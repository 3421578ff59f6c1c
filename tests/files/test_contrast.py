"""What is known of a scan's contrast, and which scans are of one."""

import json
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interslice.files.contrast import Contrast, contrast_of_file, contrast_of_series, named_contrast
from interslice.files.dicom_read import find_stack
from tests.support.dicom_files import AFFINE, VOXELS, write_changed
from tests.support.helpers import repeatable


@pytest.mark.parametrize(("text", "name"), [
    ("t2_tse_tra", "T2w"), ("T2 FLAIR ax", "FLAIR"), ("Ax T1 FLAIR", "T1w"), ("open_ms_p01_study1_T1W", "T1w"),
    ("t1_mprage_sag", "T1w"), ("MPRAGE", "T1w"), ("t2_star", "T2starw"), ("T2*", "T2starw"), ("ep2d_diff", "DWI"),
    ("t1_tirm_cor", "STIR"), ("pd_tse", "PDw"), ("axial", None), ("", None), ("act1", None), ("stack2", None),
    ("p01_ct2", None), ("t21", None), ("T1_post", "T1w"), ("SAG T2", "T2w"), ("direct", None), ("tse_t2w_sag", "T2w"),
])  # fmt: skip
def test_words_name_a_contrast(text, name):
    assert named_contrast(text) == name


values = st.builds(
    Contrast,
    st.sampled_from([None, "T1w", "T2w", "FLAIR"]), st.sampled_from([None, True, False]),
    st.sampled_from([None, 5.0, 12.0, 80.0, 110.0]), st.sampled_from([None, 0.0, 900.0]),
)  # fmt: skip


@repeatable
@given(values, values)
def test_to_differ_is_mutual_and_needs_that_both_are_known(one, other):
    assert (one.differs(other) is None) == (other.differs(one) is None)
    assert one.differs(one) is None
    assert one.differs(Contrast()) is None


@pytest.mark.parametrize(("one", "other", "why"), [
    (Contrast("T1w"), Contrast("T2w"), "T1w, not T2w"),
    (Contrast("T1w", agent=True), Contrast("T1w", agent=False), "agent"),
    (Contrast(echo=15.0), Contrast(echo=98.0), "echo time 15 ms, not 98 ms"),
    (Contrast(echo=98.0), Contrast(echo=110.0), None),
    (Contrast(echo=2.0), Contrast(echo=4.0), None),
    (Contrast(inversion=2500.0), Contrast(inversion=0.0), "inversion"),
    (Contrast("T1w", inversion=900.0), Contrast("T1w", inversion=0.0), None),
    (Contrast("T2w"), Contrast("t2w"), None),
])  # fmt: skip
def test_what_tells_two_apart(one, other, why):
    said = one.differs(other)
    assert said is None if why is None else why in said


def test_the_suffix_goes_before_the_sidecar_and_that_before_the_name(tmp_path):
    def of(name, **beside):
        (tmp_path / f"{name}.json").write_text(json.dumps(beside))
        return contrast_of_file(tmp_path / f"{name}.nii.gz")

    assert of("sub-01_acq-ax_T2w", SeriesDescription="t1_tse", EchoTime=0.1) == Contrast("T2w", False, 100.0, 0.0)
    assert of("t1_ax", SeriesDescription="t2_tse").name == "T2w"
    assert of("t1_ax", ProtocolName="x", InversionTime=0.9) == Contrast("T1w", False, None, 900.0)
    assert of("sub-01_ce-gd_T1w").agent and of("t1_post").agent and of("ax", ContrastBolusAgent="Gadovist").agent
    assert of("ax", EchoTime="long", InversionTime=float("nan")) == Contrast()


@pytest.mark.parametrize("text", ["[1]", "{", "", "null", '{"EchoTime": [1]}'])
def test_a_sidecar_of_nonsense_says_nothing(tmp_path, text):
    (tmp_path / "ax.json").write_text(text)
    assert contrast_of_file(tmp_path / "ax.nii.gz") == Contrast()


def test_a_dicom_header_says_it(tmp_path):
    def edit(ds, k):
        ds.SeriesDescription, ds.ProtocolName, ds.InversionTime = "tra", "dark fluid", "2500"
        ds.ContrastBolusAgent = "Gadovist"

    write_changed(tmp_path, edit, VOXELS, AFFINE)
    assert contrast_of_series(find_stack(tmp_path)) == Contrast("FLAIR", True, 98.0, 2500.0)


def test_differing_is_said_of_either_order():
    for one, other in permutations((Contrast("T1w"), Contrast("FLAIR")), 2):
        assert one.differs(other) == f"{one.name}, not {other.name}"
