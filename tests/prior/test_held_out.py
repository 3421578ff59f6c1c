"""What is held out of a scan, and what is trained on, are the scan between them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from interslice.prior.held_out import SplitSlicesd, held_out_slices


def scan(shape, spacing):
    return MetaTensor(torch.rand(1, *shape), affine=torch.diag(torch.tensor([*spacing, 1.0])))


def parts(volume, **options):
    return [SplitSlicesd("image", held_out=h, **options)({"image": volume})["image"] for h in (False, True)]


@given(count=st.integers(2, 400), every=st.integers(2, 12))
def test_about_every_sixth_slice_is_held_out_and_never_all_nor_none(count, every):
    held = held_out_slices(count, every)
    assert 1 <= len(held) < count and held == sorted(set(held)) and held[-1] < count
    assert abs(len(held) - count / every) <= 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_of_a_thick_scan_slices_here_and_there(axis):
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 5.0
    volume = scan((20, 20, 20), spacing)
    kept, held = parts(volume)
    where = [3, 9, 15]
    assert torch.equal(held.as_tensor(), volume.as_tensor().index_select(axis + 1, torch.tensor(where)))
    rest = torch.tensor([n for n in range(20) if n not in where])
    assert torch.equal(kept.as_tensor(), volume.as_tensor().index_select(axis + 1, rest))
    for part in (kept, held):
        assert part.pixdim.tolist() == spacing  # so that their patches lie in the sharp plane


def test_of_a_scan_that_is_sharp_all_round_the_end_in_one_piece():
    volume = scan((9, 10, 24), (1, 1, 1.2))
    kept, held = parts(volume)
    assert torch.equal(kept.as_tensor(), volume.as_tensor()[..., :20])
    assert torch.equal(held.as_tensor(), volume.as_tensor()[..., 20:])


@pytest.mark.parametrize("every", [1, 0, "x"])
def test_a_share_that_leaves_nothing_is_refused(every):
    with pytest.raises(ValueError, match="every must be a whole number from 2"):
        SplitSlicesd("image", True, every)
