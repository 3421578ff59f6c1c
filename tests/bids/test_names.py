"""What results are called in a derivatives data set: entities of the scans, in the order of BIDS."""

import pytest

from interslice.bids.names import check_desc, derivative_of
from interslice.usage import UsageError


@pytest.mark.parametrize(
    ("scans", "name"),
    [
        (["sub-01_T2w"], "sub-01/anat/sub-01_res-high_desc-me_T2w"),
        (["sub-01_ses-2_acq-cor_run-1_FLAIR"], "sub-01/ses-2/anat/sub-01_ses-2_acq-cor_run-1_res-high_desc-me_FLAIR"),
        (["sub-01_acq-ax_T2w", "sub-01_acq-cor_T2w"], "sub-01/anat/sub-01_res-high_desc-me_T2w"),
        (["sub-01_acq-a_run-1_T2w", "sub-01_acq-a_run-2_T2w"], "sub-01/anat/sub-01_acq-a_res-high_desc-me_T2w"),
        (["sub-01_desc-preproc_res-2_space-MNI_T1w"], "sub-01/anat/sub-01_space-MNI_res-high_desc-me_T1w"),
    ],
)
def test_names_of_volumes(scans, name):
    assert str(derivative_of([f"x/{scan}.nii.gz" for scan in scans], "me").path()) == f"{name}.nii.gz"


def test_each_kind_has_a_name_of_its_own_also_masks_of_two_contrasts():
    names = [derivative_of([f"sub-1_{suffix}.nii.gz"], "me") for suffix in ("T1w", "T2w")]
    kinds = ("recon", "std", "filled", "measured", "mask")
    all_names = [name.named(kind) for name in names for kind in kinds]
    assert len(set(all_names)) == len(all_names)
    assert names[0].named("std") == "sub-1_res-high_desc-meStd_T1w"
    assert names[0].named("mask") == "sub-1_res-high_desc-meT1w_mask"


@pytest.mark.parametrize("scans", [["scan"], ["sub-1_T1w", "sub-2_T1w"], ["sub-1_T1w", "sub-1_T2w"], []])
def test_scans_that_make_no_one_name(scans):
    with pytest.raises(ValueError, match="not of one subject"):
        derivative_of([f"{scan}.nii.gz" for scan in scans], "me")


@pytest.mark.parametrize("desc", ["", "a-b", "a_b", "ä"])
def test_a_label_is_a_word(desc):
    with pytest.raises(UsageError, match="desc must be a word of letters and digits"):
        check_desc(desc)
    assert check_desc("hr2") == "hr2"
