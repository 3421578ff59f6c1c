"""Elements that read too much in all views are evened; what moves with the views stays."""

import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from interslice.files.doubts import doubts_of
from interslice.physics.ct import CheckProjectionsd, HounsfieldScale, RemoveRingsd
from interslice.physics.ct.counting import RayNoise
from interslice.physics.ct.rings import stripes
from tests.physics.ct.test_plausible import measured


def scan(views=48, photons=1e5, offsets=0.0, seed=0):
    """The body of test_plausible on a fine detector, with an offset in some of its elements."""
    y = measured(num_views=views, photons=photons, column_size=0.75)
    random = np.random.default_rng(seed)
    wrong = np.where(random.random(y.shape[2:]) < 0.1, random.normal(0, 1, y.shape[2:]), 0.0) * offsets
    return y, MetaTensor((y.as_tensor() + torch.from_numpy(wrong).float()), meta=dict(y.meta)), wrong


@pytest.mark.parametrize("views", [24, 48, 180])
def test_offsets_of_elements_are_found(views):
    right, wrong, offsets = scan(views, offsets=0.1)
    found = stripes(wrong.as_tensor()[0].numpy())
    left = np.sqrt(np.square(found - offsets).mean()) / np.sqrt(np.square(offsets).mean())
    assert left < 0.4
    assert np.corrcoef(found.ravel(), offsets.ravel())[0, 1] > 0.9


def test_rings_fall_and_a_scan_without_them_hardly_changes():
    right, wrong, _ = scan(offsets=0.1)
    remove = RemoveRingsd("image")
    with pytest.warns(UserWarning, match="in all views, as makes rings, and are evened"):
        mended = remove({"image": wrong})["image"]
    error = [float((y.as_tensor() - right.as_tensor()).mean(1).square().mean().sqrt()) for y in (wrong, mended)]
    assert error[1] < 0.4 * error[0]
    assert "detector elements were off" in doubts_of(mended)[0]
    noise = float(right.as_tensor().std()) * 0.01
    untouched = stripes(right.as_tensor()[0].numpy())
    assert np.sqrt(np.square(untouched).mean()) < noise


def test_dead_columns_are_filled_in_before_rings_are_evened():
    """By the steps of the config, in their order: what either leaves alone is left, and dead columns keep no weight."""
    right, wrong, offsets = scan(offsets=0.1)
    broken, dead = wrong.clone(), slice(100, 103)
    broken[:, :, dead] = 11.0
    broken.meta["noise"] = RayNoise(np.full(broken.shape[1:], 1e-4, np.float32))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mended = RemoveRingsd("image")(CheckProjectionsd("image", HounsfieldScale())({"image": broken}))["image"]
        alone = RemoveRingsd("image")({"image": wrong})["image"]
    assert any("3 columns (100, 101, 102)" in str(w.message) for w in caught) and len(doubts_of(mended)) == 2
    off = (mended.as_tensor() - right.as_tensor())[0].mean(0)
    error = float((alone.as_tensor() - right.as_tensor())[0].mean(0).square().mean().sqrt())
    others = torch.ones(len(off), dtype=torch.bool)
    others[dead] = False
    assert float(off[others].square().mean().sqrt()) < 1.1 * error
    assert float(off[dead].abs().max()) < 0.05 * float(right.max())
    lost = np.isinf(mended.meta["noise"].variance)
    assert lost[:, dead].all() and not lost[:, others.numpy()].any()


def test_what_is_the_same_in_all_columns_is_no_ring():
    p = np.random.default_rng(0).random((12, 1, 3)).repeat(30, 1).astype(np.float32)
    assert not stripes(p).any()


def test_it_is_a_switch_and_needs_views():
    image = MetaTensor(torch.rand(1, 4, 30, 2), meta={"filename_or_obj": "scan.npz"})
    assert RemoveRingsd("image", False)({"image": image})["image"] is image
    with pytest.raises(ValueError, match="scan.npz: rings cannot be told from what is there in 4 views, and 8 are"):
        RemoveRingsd("image")({"image": image})
