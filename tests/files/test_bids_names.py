"""Names of files by BIDS: what is read from them, for any that the standard allows, and nothing from others."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interslice.files.bids_names import VARYING, BidsName, bids_name, bids_root, own_ids
from tests.support.helpers import repeatable

labels = st.text("abcXYZ0189", min_size=1, max_size=6)
keys = st.sampled_from(["ses", "acq", "ce", "rec", "dir", "run", "echo", "inv", "part", "chunk"])
names = st.builds(
    lambda sub, rest, suffix: BidsName({"sub": sub} | rest, suffix),
    labels, st.dictionaries(keys, labels, max_size=6), labels,
)  # fmt: skip
suffixes = st.sampled_from([".nii", ".nii.gz", ".mha", ".nrrd", ".NII.GZ"])


@repeatable
@given(names, suffixes)
def test_what_is_written_is_read(name, suffix):
    found = bids_name(f"{name}{suffix}")
    assert found == name
    assert list(found.entities) == list(name.entities)


@repeatable
@given(names, st.dictionaries(st.sampled_from(VARYING), labels), labels)
def test_what_varies_within_a_group_does_not_change_its_name(name, varied, other):
    entities = {k: v for k, v in name.entities.items() if k not in VARYING}
    assert BidsName(entities | varied, name.suffix).shared == BidsName(entities, name.suffix).shared
    assert BidsName(entities | {"sub": entities["sub"] + other}, name.suffix).shared != name.shared
    assert BidsName(entities | {"ses": entities.get("ses", "") + other}, name.suffix).shared != name.shared


@repeatable
@given(names)
def test_the_name_of_a_group_is_a_name_by_bids(name):
    assert bids_name(f"{name.shared}.nii.gz").shared == name.shared


@pytest.mark.parametrize("name", [
    "scan.nii.gz", "sub-01.nii.gz", "T2w.nii.gz", "sub-_T2w.nii.gz", "sub-01_T2w_acq-ax.nii.gz", "xsub-01_T2w.nii.gz",
    "sub-01_acq-ax_acq-cor_T2w.nii.gz", "sub-01_acq_T2w.nii.gz", "sub-01__T2w.nii.gz", "sub-0 1_T2w.nii.gz", "",
])  # fmt: skip
def test_other_names_say_nothing(name):
    assert bids_name(name) is None


@repeatable
@given(st.text(max_size=40))
def test_no_name_is_an_error(name):
    bids_name(f"x{name}"), own_ids(f"x{name}")


def test_the_data_set_is_above_the_folders_of_the_subject():
    for inside in ("sub-01/ses-2/anat", "sub-01/anat", "sub-01", ""):
        assert bids_root(Path("data") / inside / "sub-01_T2w.nii.gz") == Path("data")
    assert bids_root(Path("data/derivatives/smooth/sub-01/anat/x.nii")) == Path("data/derivatives/smooth")


@pytest.mark.parametrize(("name", "ids"), [
    ("open_ms_p01_study1_T1W.nii.gz", ("p01", "study1")), ("patient7-visit-2-ax.nii", ("patient7", "visit-2")),
    ("axial.nii.gz", ()), ("t2_tse_p2_cor.nii.gz", ()), ("step1.nii.gz", ()), ("sub03.mha", ("sub03",)),
])  # fmt: skip
def test_words_of_other_names_say_whose_they_are(name, ids):
    assert own_ids(name) == ids
