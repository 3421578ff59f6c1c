"""Patches: windows of real slices, from the sharp planes only, rarely of air, and the same for the same seed."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from interslice.prior.patches import RandSlicePatchesd, sharp_slice_axes

SHAPE = (23, 29, 31)


def numbered(spacing=(1.0, 1.0, 1.0), shape=SHAPE):
    """Every voxel has its own value, its flat index: a patch tells where it comes from."""
    volume = torch.arange(1.0, np.prod(shape) + 1).view(1, *shape)
    return MetaTensor(volume, affine=torch.diag(torch.tensor([*spacing, 1.0])))


def draw(volume, seed=0, **settings):
    cut = RandSlicePatchesd("image", **({"patch_size": 8, "num_patches": 60} | settings))
    cut.set_random_state(seed)
    return [item["image"] for item in cut({"image": volume})]


def origin(patch, shape=SHAPE):
    """(axis the slice lies across, index of the patch's first voxel), and a check that it is a window of that slice."""
    index = np.stack(np.unravel_index(patch[0].numpy().astype(int) - 1, shape))  # (3, h, w)
    first = index[:, 0, 0]
    axis = next(a for a in range(3) if (index[a] == first[a]).all())
    window = np.indices(patch.shape[1:])
    np.testing.assert_array_equal(np.delete(index, axis, 0), window + np.delete(first, axis)[:, None, None])
    return axis, first


@pytest.mark.parametrize(
    ("spacing", "axes"),
    [
        ((1, 1, 1), [0, 1, 2]), ((1, 1.4, 1), [0, 1, 2]), ((0.9, 0.9, 5), [2]), ((4, 1, 1), [0]), ((0.8, 3, 1), [1]),
    ],
)  # fmt: skip
def test_sharp_planes_have_two_fine_spacings(spacing, axes):
    assert sharp_slice_axes(torch.tensor(spacing)) == axes


def test_a_scan_without_a_sharp_plane_is_refused():
    with pytest.raises(ValueError, match=r"no plane .* spacing \[1\.0, 5\.0, 5\.0\] mm is sharp.* name its slice axes"):
        draw(numbered((1, 5, 5)))


@pytest.mark.parametrize("spacing", [(1, 1, 1), (1, 1, 5), (5, 1, 1), (1, 5, 1)])
def test_patches_are_windows_of_the_sharp_slices(spacing):
    assert {origin(patch)[0] for patch in draw(numbered(spacing))} == set(sharp_slice_axes(torch.tensor(spacing)))


def test_a_patch_of_a_thick_scan_never_crosses_slices():
    depth = torch.arange(1.0, 32).expand(1, 23, 29, 31)
    scan = MetaTensor(depth, affine=torch.diag(torch.tensor([1.0, 1, 5, 1])))
    patches = draw(scan)
    assert all(patch.min() == patch.max() for patch in patches)
    assert len({float(patch.max()) for patch in patches}) > 20


def test_named_axes_overrule_the_spacing_and_are_equally_likely():
    axes = [origin(patch)[0] for patch in draw(numbered((1, 1, 5)), slice_axes=[0, 1], num_patches=400)]
    assert set(axes) == {0, 1}
    assert abs(axes.count(0) - 200) < 5 * 10  # five standard deviations of a fair coin


def test_a_plain_tensor_is_taken_as_isotropic():
    assert {origin(patch)[0] for patch in draw(numbered().as_tensor())} == {0, 1, 2}


def test_every_part_of_a_slice_is_reached():
    starts = np.array([origin(p)[1] for p in draw(numbered(), slice_axes=[2], num_patches=600)])
    assert starts.min(0).tolist() == [0, 0, 0]
    assert starts.max(0).tolist() == [23 - 8, 29 - 8, 31 - 1]


def test_the_seed_decides():
    first, again, other = draw(numbered(), seed=5), draw(numbered(), seed=5), draw(numbered(), seed=6)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_patches_are_copies():
    volume = numbered()
    for patch in draw(volume):
        patch.zero_()
    assert volume.min() == 1


def test_small_slices_are_padded_with_their_border():
    shape = (5, 12, 3)
    for patch in draw(numbered(shape=shape), slice_axes=[2]):
        assert patch.shape == (1, 8, 8)
        axis, _ = origin(patch[:, :5], shape)
        assert axis == 2
        assert torch.equal(patch[:, 5:], patch[:, 4:5].expand(-1, 3, -1))


def test_patches_prefer_the_subject_to_air():
    volume = torch.zeros(1, 40, 40, 40)
    volume[:, 25:, 25:, 25:] = 1  # one voxel in twenty
    choosy, careless = (draw(volume, num_patches=300, foreground=level) for level in (0.1, -1.0))
    assert np.mean([bool(p.any()) for p in choosy]) > 0.5  # 1 - 0.95^20 = 0.64 of the centres, the rest gives up
    assert np.mean([bool(p.any()) for p in careless]) < 0.3


def test_nothing_but_air_still_gives_patches():
    assert len(draw(torch.zeros(1, 12, 12, 12), num_patches=3)) == 3


@pytest.mark.parametrize("shape", [(23, 29, 31), (2, 23, 29, 31), (1, 1, 8, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected a volume \(1, X, Y, Z\), got"):
        draw(torch.rand(shape))
