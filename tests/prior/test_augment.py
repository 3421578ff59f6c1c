"""Augmentations: each patch by itself, with the stated probability and law."""

import pytest
import torch
from scipy.stats import kstest

from interslice.prior.augment import RandFlip, RandGain, RandGamma, RandShift

N = 4000


def patches(seed=0):
    return torch.rand(N, 1, 3, 5, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.1


def share(prob):
    """A share of N that is drawn with a probability, to five standard deviations."""
    return pytest.approx(prob, abs=5 * (prob * (1 - prob) / N) ** 0.5 + 1e-9)


@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("axes", [[0], [1], [0, 1]])
def test_flips(axes, prob):
    torch.manual_seed(0)
    x = patches()
    y = RandFlip(axes, prob)(x)
    kinds = {(): x, (0,): x.flip(2), (1,): x.flip(3), (0, 1): x.flip((2, 3))}
    found = {k: (y == v).flatten(1).all(1).float().mean().item() for k, v in kinds.items()}
    for kind, value in found.items():
        p = 1.0
        for axis in (0, 1):
            chance = prob if axis in axes else 0.0
            p *= chance if axis in kind else 1 - chance
        assert value == share(p)


def test_gamma_is_one_power_for_a_patch_and_leaves_black_white_and_below():
    torch.manual_seed(0)
    x = patches()
    x[:, :, 0, 0], x[:, :, 0, 1] = 0.0, 1.0
    y = RandGamma(0.4, 0.35)(x)
    assert torch.equal(y[x <= 0], x[x <= 0]) and (y[:, :, 0, 1] == 1).all()
    gamma = torch.log(y.clamp_min(1e-9)) / torch.log(x.clamp_min(1e-9))
    inner = (x > 0.01) & (x < 0.95)
    spread = [g[m] for g, m in zip(gamma, inner, strict=True)]
    changed = torch.tensor([float(g.mean()) for g in spread if not torch.allclose(g, torch.ones(1))])
    assert all(float(g.std()) < 1e-3 for g in spread if len(g) > 1)
    assert len(changed) / N == share(0.4)
    assert kstest((changed.log().numpy() / 0.35 + 1) / 2, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("step", "draw"), [(RandGain(0.7, 0.3), lambda x, y: y / x - 1), (RandShift(0.5, 0.3), lambda x, y: y - x)]
)
def test_gain_and_shift_are_one_number_for_a_patch(step, draw):
    torch.manual_seed(0)
    x = patches() + 1
    found = draw(x, step(x)).flatten(1)
    assert found.std(1).max() < 1e-5
    changed = found.mean(1)[found.mean(1).abs() > 1e-5]
    assert len(changed) / N == share(step.prob)
    assert kstest((changed.numpy() / 0.3 + 1) / 2, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("make", [lambda: RandFlip(prob=2), lambda: RandGain(factors=-1), lambda: RandShift("x")])
def test_values_without_sense_are_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()
