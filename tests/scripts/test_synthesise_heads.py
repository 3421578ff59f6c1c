"""Heads that a seed decides."""

import numpy as np
import pytest
import torch

from scripts.data.synthesise_heads import HeadSynthesiser
from tests.support.archives import SIDE, tissue_maps


def test_the_seed_alone_decides_the_head():
    draw = HeadSynthesiser(*tissue_maps())
    head = draw(3)
    torch.manual_seed(1)
    np.random.seed(1)
    assert not torch.equal(draw(4), head)
    assert torch.equal(draw(3), head)
    assert torch.equal(HeadSynthesiser(*tissue_maps())(3), head)


@pytest.mark.parametrize("seed", range(6))
def test_a_head_is_an_image_in_range_with_tissue_or_nothing_around_its_brain(seed):
    maps = tissue_maps()
    head = HeadSynthesiser(*maps)(seed)
    assert head.shape == (SIDE,) * 3 and head.dtype == torch.float32
    assert torch.isfinite(head).all() and head.min() >= 0 and head.max() == 1
    outside = head[maps[2] == 0]
    drawn, alone = (outside > 0.1).float().mean() > 0.1, (outside == 0).float().mean() > 0.9
    assert drawn or alone  # skull, fat and skin, or the brain alone
    assert head.diff(dim=0).abs().mean() > 0.01  # and it is no smooth average


def test_maps_of_different_grids_are_refused():
    wm, gm, t1 = tissue_maps()
    with pytest.raises(ValueError, match=r"must share one grid; got \(40, 40, 40\), \(40, 40, 40\), \(39, 40, 40\)"):
        HeadSynthesiser(wm, gm, t1[1:])
