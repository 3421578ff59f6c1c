"""Contrasts of synthetic heads: the order of tissues in the tables, and in the heads that are drawn."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.networks.layers import GaussianFilter

from scripts.data.contrasts import GAP, LESIONS, ORDERS, WEIGHTS, contrast_of, draw_tissues
from scripts.data.synthesise_heads import HeadSynthesiser, acquire, near_ventricles
from tests.support.helpers import repeatable

SIDE = 48
NAMED = ("T1", "T2", "FLAIR", "PD")


def rng(seed):
    return torch.Generator().manual_seed(seed)


def radius(side):
    grid = torch.stack(torch.meshgrid(*[torch.arange(side) - (side - 1) / 2] * 3, indexing="ij"))
    return grid.square().sum(0).sqrt()


def brain_maps():
    """A ventricle of 4 mm, white matter around it to 11 mm, cortex to 16 mm, CSF to 18 mm."""
    r = radius(SIDE)
    step = [torch.sigmoid(2 * (limit - r)) for limit in (4, 11, 16, 18)]
    wm, gm, brain = step[1] - step[0], step[2] - step[1], step[3]
    t1 = wm + 0.7 * gm + 0.25 * (brain - wm - gm)
    return wm, gm, torch.where(brain > 0.05, t1, 0.0)


@pytest.fixture(scope="module")
def draw():
    return HeadSynthesiser(*brain_maps())


def means(head, tissue):
    """Mean intensity of white matter, grey matter, CSF and lesions, by least squares over the brain's voxels."""
    inside = tissue.sum(0) > 0.9
    shares = tissue[:, inside].T.double()
    kept = shares.sum(0) > 15
    found = torch.full((4,), torch.nan, dtype=torch.float64)
    found[kept] = torch.linalg.lstsq(shares[:, kept], head[inside].double()[:, None]).solution[:, 0]
    return dict(zip(("wm", "gm", "csf", "lesion"), found.tolist()))


# -- the draw of a contrast -----------------------------------------------------------------------
@pytest.mark.parametrize("first", [0, 1, 500, 1000])
def test_seeds_in_a_row_take_the_contrasts_evenly(first):
    counts = Counter(contrast_of(seed) for seed in range(first, first + 200))
    for name, weight in WEIGHTS.items():
        assert abs(counts[name] - 200 * weight) <= 4, name
    assert set(map(contrast_of, range(first, first + 14))) >= {"T1", "T2", "FLAIR"}


def test_half_of_the_heads_are_t1():
    assert WEIGHTS["T1"] == 0.5 and sum(WEIGHTS.values()) == pytest.approx(1)


@repeatable
@given(seed=st.integers(0, 2**40))
def test_every_seed_has_one_of_the_contrasts_and_always_the_same(seed):
    assert contrast_of(seed) in WEIGHTS and contrast_of(seed) == contrast_of(seed)


# -- tables ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("contrast", NAMED)
@repeatable
@given(seed=st.integers(0, 2**40))
def test_means_stand_in_the_order_of_the_contrast(contrast, seed):
    tissues = draw_tissues(rng(seed), contrast)
    for order in (ORDERS[contrast], LESIONS[contrast]):
        levels = [tissues[name].mean for name in order]
        assert (np.diff(levels) >= GAP).all(), (order, levels)
    assert all(t.mean >= 0 and t.spread == 0 for t in tissues.values())
    assert tissues["air"].mean < min(tissues[name].mean for name in ("wm", "gm"))


def test_the_random_contrast_takes_every_order():
    orders = Counter()
    for seed in range(200):
        tissues = draw_tissues(rng(seed), "random")
        orders[tuple(sorted(("wm", "gm", "csf"), key=lambda name: tissues[name].mean))] += 1
    assert len(orders) == 6 and min(orders.values()) > 12


def test_fat_is_suppressed_in_some_scans_and_never_in_t1():
    low = {c: sum(draw_tissues(rng(s), c)["fat"].mean < 0.3 for s in range(100)) for c in NAMED}
    assert low["T1"] == 0 and all(20 < low[c] < 60 for c in ("T2", "FLAIR", "PD"))


def test_an_unknown_contrast_is_refused_with_the_list():
    with pytest.raises(ValueError, match="contrast is 'DWI': choose one of T1, T2, FLAIR, PD, random"):
        draw_tissues(rng(0), "DWI")


# -- drawn heads ----------------------------------------------------------------------------------
@pytest.mark.parametrize("contrast", NAMED)
def test_drawn_heads_have_the_order_of_their_contrast(draw, contrast):
    """In the mean of four heads: in a single one a bias field may hide what lies close together."""
    found = [means(*draw.with_tissues(seed, contrast)) for seed in range(4)]
    levels = [np.mean([f[name] / (f["wm"] + f["gm"] + f["csf"]) for f in found]) for name in ORDERS[contrast]]
    assert levels == sorted(levels) and levels[-1] > 1.2 * levels[0], levels


@pytest.mark.slow
def test_lesions_are_in_some_heads_and_bright_where_they_should_be(draw):
    with_lesions = 0
    for seed in range(12):
        head, tissue = draw.with_tissues(seed, "FLAIR")
        if tissue[3].sum() < 30:
            continue
        with_lesions += 1
        found, others = means(head, tissue), means(*draw.with_tissues(seed, "T1"))
        assert found["lesion"] > max(found["wm"], found["gm"])
        assert others["lesion"] < others["wm"]
        core = tissue[3] > 0.5
        assert (tissue[3] + tissue[0])[core].min() > 0.5  # they stand in the place of white matter
        assert tissue[3].sum() < 0.2 * tissue[0].sum()
    assert 2 <= with_lesions <= 10


def test_one_anatomy_may_be_seen_in_every_contrast(draw):
    (one, tissue), (other, again) = (draw.with_tissues(5, c) for c in ("T1", "T2"))
    assert torch.equal(tissue, again) and not torch.equal(one, other)
    assert torch.equal(draw(5), draw(5, contrast_of(5)))


@pytest.mark.slow
def test_some_heads_show_the_brain_alone_and_most_do_not(draw):
    outside = radius(SIDE) > 22
    alone = [float((draw(seed, "T1")[outside] == 0).float().mean()) > 0.9 for seed in range(18)]
    assert 1 <= sum(alone) <= 8


def test_bias_noise_and_resolution_differ_between_scans():
    """Of a ball: what varies in the air is noise, slowly within is bias, and what reaches past the border is blur."""
    r = radius(SIDE)
    scans = [acquire((r < 15).float(), rng(seed), seed) for seed in range(16)]
    air = [float(scan[r > 20].std()) for scan in scans]
    bias = [float(GaussianFilter(3, 2.0)(scan[None, None])[0, 0][r < 9].std() / scan[r < 9].mean()) for scan in scans]
    border = [float(scan[((r > 15) & (r < 16))].mean() / scan[r < 9].mean()) for scan in scans]
    assert max(air) > 10 * min(air) and max(air) > 0.02
    assert max(bias) > 3 * min(bias) and max(bias) > 0.05
    assert sum(b > 0.15 for b in border) in range(2, 9) and min(border) < 0.05
    assert all(scan.min() >= 0 and scan.max() == 1 for scan in scans)


# -- ventricles -----------------------------------------------------------------------------------
def test_nearness_to_the_ventricles_decays_with_the_distance_and_forgets_outer_fluid():
    r = radius(96)
    brain = r < 40
    near = near_ventricles(((r < 8) | (r > 36)).float(), brain)
    for distance in (0, 8, 16):
        shell = (r - (8 + distance)).abs() < 0.5
        assert near[shell].mean() == pytest.approx(np.exp(-distance / 8), abs=0.2)
    assert near[(r > 36) & brain].max() < 0.1
    assert near_ventricles((r > 36).float(), brain).eq(0).all()  # fluid outside alone
