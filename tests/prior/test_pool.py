"""The pool holds what was read, to half a level, at several voxel sizes, as often drawn as its slices are large."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from interslice.files.limits import Limits
from interslice.prior.coarser import at_voxel_size, voxel_sizes
from interslice.prior.pool import CUT, LEVELS, VolumePool, quantised, weight_of


def volume(shape=(12, 14, 10), spacing=(1.0, 1.0, 1.0), seed=0):
    voxels = torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed))
    return MetaTensor(voxels, affine=torch.diag(torch.tensor([*spacing, 1.0])))


def pool_of(volumes, **options):
    """A pool of volumes by name, which are read as they are."""
    options = {"coarser": False, "num_workers": 1} | options
    return VolumePool([{"image": f"{name}.nii.gz"} for name in volumes],
                      lambda item: {"image": volumes[item["image"].removesuffix(".nii.gz")]}, **options)  # fmt: skip


def values_of(pool, n):
    """The volume numbered `n`, voxel by voxel."""
    index = torch.cartesian_prod(*(torch.arange(int(s)) for s in pool.shape[n]))
    return pool.at(torch.full((len(index),), n), index).view(*pool.shape[n].tolist())


# -- what it holds ----------------------------------------------------------------------------------
def test_every_voxel_is_that_of_its_volume_to_half_a_level():
    volumes = {"a": volume(), "b": volume((9, 9, 20), seed=1) * 3.5 - 0.5, "c": volume((5, 30, 7), seed=2) * 0.01}
    pool = pool_of(volumes)
    assert pool.names == ["a", "b", "c"] and pool.levels.dtype == torch.int16
    assert pool.levels.numel() == sum(v.numel() for v in volumes.values())
    for n, v in enumerate(volumes.values()):
        true = v.as_tensor()[0].clamp(*CUT)
        step = float(true.max() - true.min()) / (LEVELS - 1)
        assert (values_of(pool, n) - true).abs().max() <= 0.501 * step + 1e-7
        assert 0.5 * step <= 3.06e-5  # what the module says


def test_what_no_tissue_is_does_not_spoil_the_levels_of_the_others():
    v = volume().as_tensor()
    v[0, 0, 0, 0] = 1e10
    levels, low, step = quantised(v[0])
    restored = low + step * (levels.float() + LEVELS // 2)
    assert restored[0, 0, 0] == pytest.approx(CUT[1]) and (restored - v[0])[1:].abs().max() < 1e-4


def test_one_value_is_a_volume_too():
    levels, low, step = quantised(torch.full((2, 2, 2), 0.25))
    assert torch.allclose(low + step * (levels.float() + LEVELS // 2), torch.tensor(0.25))


def test_volumes_stay_in_order_however_many_read_them():
    volumes = {f"v{n:02d}": volume((4, 5, 6), seed=n) for n in range(9)}
    one, four = (pool_of(volumes, num_workers=n, coarser=True, coarser_sizes=[1.0, 2.0]) for n in (1, 4))
    assert one.names == four.names == [name for name in volumes for _ in range(2)]
    assert torch.equal(one.levels, four.levels) and torch.equal(one.offset, four.offset)


def test_what_is_added_lies_behind_the_others():
    pool = pool_of({"a": volume(), "b": volume(seed=1)})
    before = [values_of(pool, n) for n in range(2)]
    more = pool_of({"c": volume((3, 4, 5), seed=2)})
    pool.add(more.read({"image": "c.nii.gz"}))
    assert [torch.equal(values_of(pool, n), v) for n, v in enumerate(before)] == [True, True]
    assert torch.equal(values_of(pool, 2), values_of(more, 0))


# -- how often it is drawn --------------------------------------------------------------------------
def test_weights_are_areas_of_sharp_slices_times_those_of_names():
    volumes = {
        "synthetic_1": volume((10, 20, 30)), "synthetic_2x": volume((10, 20, 30)),
        "thick": volume((20, 30, 5), (1, 1, 6)), "t1": volume((20, 20, 20)),
    }  # fmt: skip
    pool = pool_of(volumes, weights={"synthetic_": 0.5, "synthetic_2": 2.0})
    area = (200 + 300 + 600) / 3
    assert pool.weight.tolist() == pytest.approx([0.5 * area, 2 * area, 600, 400])
    assert pool.axes.tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 1], [1, 1, 1]]


def test_the_longest_beginning_of_a_name_decides():
    weights = {"s": 2.0, "synthetic_": 0.2, "synthetic_t2": 0.4}
    assert [weight_of(n, weights) for n in ("synthetic_t2_1", "synthetic_1", "scan", "T1")] == [0.4, 0.2, 2.0, 1.0]


@pytest.mark.parametrize("weights", [5, "x", {"a": 0}, {"a": -1}, {"a": "x"}, {3: 1.0}])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="volume_weights must be a"):
        pool_of({"a": volume()}, weights=weights)


# -- coarser copies ---------------------------------------------------------------------------------
@pytest.mark.parametrize("finest", [0.3, 0.55, 0.7, 1.0, 1.5, 1.9, 2.0, 3.0])
def test_copies_are_coarser_than_the_volume_and_within_the_range(finest):
    found = [voxel_sizes(finest, f"v{n}", 0) for n in range(200)]
    sizes = np.array([f[-1] for f in found]) if found[0] else np.empty(0)
    assert (len(sizes) == 0) == (1.15 * finest >= 2.2)
    assert all(s[:-1] == ([0.7] if 1.15 * finest < 0.7 else []) for s in found if s)
    if len(sizes):
        low = max(1.0, 1.15 * finest)
        assert low <= sizes.min() < low * 1.05 and 2.1 < sizes.max() < 2.2
    assert found == [voxel_sizes(finest, f"v{n}", 0) for n in range(200)]


def test_a_coarser_copy_shows_the_same_place_and_its_mean():
    """A linear ramp, which smoothing leaves, stays the same function of millimetres; so does the mean."""
    x, y, z = torch.meshgrid(*(torch.arange(40.0),) * 3, indexing="ij")
    fine = MetaTensor((0.01 * x + 0.005 * y - 0.002 * z)[None], affine=torch.eye(4))
    copy = at_voxel_size(fine, 2.0)
    assert tuple(copy.shape) == (1, 20, 20, 20) and copy.pixdim.tolist() == pytest.approx([2.0] * 3)
    i = torch.tensor([[4.0, 9, 13, 1]], dtype=copy.affine.dtype)
    x, y, z, _ = (i @ copy.affine.T)[0].tolist()
    assert float(copy[0, 4, 9, 13]) == pytest.approx(0.01 * x + 0.005 * y - 0.002 * z, abs=1e-4)
    assert float(copy.mean()) == pytest.approx(float(fine.mean()), abs=1e-4)


def test_what_is_finer_than_the_new_voxels_does_not_fold_into_them():
    """A wave of a period of 2.5 voxels has no place at three times their size: without smoothing it would alias."""
    wave = torch.cos(2 * torch.pi * torch.arange(60.0) / 2.5).expand(1, 60, 60, 60)
    copy = at_voxel_size(MetaTensor(wave.clone(), affine=torch.eye(4)), 3.0)
    assert float(copy[0, 5:-5, 5:-5, 5:-5].std()) < 0.15 * float(wave.std())


def test_thick_slices_stay_as_thick_as_they_are():
    copy = at_voxel_size(volume((30, 30, 6), (0.5, 0.5, 5.0)), 1.0)
    assert tuple(copy.shape) == (1, 15, 15, 6) and copy.pixdim.tolist() == pytest.approx([1.0, 1.0, 5.0])


# -- memory -----------------------------------------------------------------------------------------
def test_too_many_volumes_are_told_before_all_are_read():
    seen = []
    volumes = {f"v{n}": volume((20, 20, 20), seed=n) for n in range(40)}

    def read(item):
        seen.append(item)
        return {"image": volumes[item["image"].removesuffix(".nii.gz")]}

    data = [{"image": f"{name}.nii.gz"} for name in volumes]
    words = r"the 40 volumes .* take about 1\.28 MB .* and 1 MB are available on cpu: give fewer volumes, --coarser"
    with pytest.raises(ValueError, match=words):
        VolumePool(data, read, coarser=False, num_workers=1, limits=Limits(max_memory=0.001))
    assert len(seen) < 10
    VolumePool(data, read, coarser=False, num_workers=1, limits=Limits(max_memory="off"))


def test_no_volume_is_an_error():
    with pytest.raises(ValueError, match="no volume to train on: check dataset_dir"):
        pool_of({})


def test_what_cannot_be_read_ends_it_in_the_readers_words():
    def read(item):
        raise ValueError(f"{item['image']} is damaged")

    with pytest.raises(ValueError, match="b.nii is damaged"):
        VolumePool([{"image": "b.nii"}], read)
