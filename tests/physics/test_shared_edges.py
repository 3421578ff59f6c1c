"""How far edges are shared: all of a volume's with another contrast of it, and none by chance."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.shared_edges import SLAB, shared_edges
from interslice.physics.variation import EDGE, Variation
from tests.support.helpers import normal, repeatable


def smooth(shape, seed):
    """Noise with edges in all directions."""
    x = normal(1, 1, *shape, seed=seed)
    for _ in range(2):
        x = torch.nn.functional.avg_pool3d(x, 3, 1, 1, count_include_pad=False)
    return x[0, 0] / x.std()


@repeatable
@given(seed=st.integers(0, 20), slope=st.sampled_from([-2.0, -0.5, 0.5, 3.0]), offset=st.floats(-1, 1))
def test_another_contrast_of_a_volume_shares_all_of_its_edges(seed, slope, offset):
    x = smooth((12, 14, 13), seed)
    assert shared_edges(x, slope * x + offset) == pytest.approx(1.0, abs=0.05)
    assert shared_edges(x, torch.where(x > 0, x.square(), 0.3 * x)) > 0.6


def test_pairs_at_random_share_what_chance_gives_and_that_is_nothing():
    shape = (40, 40, 40)
    found = [shared_edges(smooth(shape, n), smooth(shape, n + 50)) for n in range(4)]
    assert max(map(abs, found)) < 0.02
    # Gradients that lie in slices, as those of thick scans do: their squared cosine is a half in the mean, not a third.
    thick = [smooth(shape, n).mean(2, keepdim=True).expand(shape) for n in (7, 8)]
    assert abs(shared_edges(*thick)) < 0.06


def test_it_is_the_formula_whatever_the_slabs():
    x, y = smooth((2 * SLAB + 5, 9, 8), 1), smooth((2 * SLAB + 5, 9, 8), 2) + 0.5 * smooth((2 * SLAB + 5, 9, 8), 1)
    xi, eta = (Variation(guide=v.double()).field(v.double())[:, :-1, :-1, :-1].flatten(1) for v in (x, y))
    weight = (xi.square().sum(0) * eta.square().sum(0)).sum()
    c = float((xi * eta).sum(0).square().sum() / weight)
    pairs = (xi.T @ eta).square().sum() / (xi.square().sum() * eta.square().sum())  # every one with every other
    assert shared_edges(x, y) == pytest.approx((c - float(pairs)) / (1 - float(pairs)), rel=1e-9)
    assert shared_edges(x, y) == pytest.approx(shared_edges(y, x), rel=1e-9)


def test_where_one_shows_nothing_nothing_counts():
    x, y = smooth((20, 16, 12), 1), smooth((20, 16, 12), 2)
    y[:, 8:] = torch.nan
    assert shared_edges(x, y) == pytest.approx(shared_edges(x[:, :8], y[:, :8]), rel=1e-6)
    assert shared_edges(x, torch.full_like(x, torch.nan)) == 0
    assert shared_edges(x, torch.full_like(x, 0.5)) == 0


def test_an_edge_is_told_from_noise_by_its_height():
    x = torch.zeros(20, 20, 20)
    x[:, :, 10:] = 1.0
    noisy = x + 0.1 * EDGE * normal(20, 20, 20)
    assert shared_edges(noisy, x) > 0.9
    with pytest.raises(ValueError, match="must share one grid"):
        shared_edges(x, x[1:])
