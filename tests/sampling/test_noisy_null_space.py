"""The null-space step for noisy data, DDNM+: what it lets in of the noise, and what the next step then meets."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from interslice.noise import Key, Purpose
from interslice.prior.diffusion import SIGMA_RULES
from interslice.sampling.data_consistency import NullSpace
from interslice.sampling.posterior_steps import (
    NoisyNullSpace,
)
from interslice.sampling.step import Step
from tests.support.gaussian_models import (
    AB,
    AB_S,
    AB_T,
    EXACT,
    SHAPE,
    SIZE,
    DenseOperator,
    S,
    T,
    case,
    closed_or_not,
    regular_inverse,
    some_matrix,
)
from tests.support.helpers import dense, normal

# -- the null-space step for noisy data: DDNM+ -----------------------------------------------------------

NOISE_STD = 0.3


def reverse_step(rule="ddim", eta=0.85, t=T, s=S, **others):
    ab_t, ab_s = float(AB[t]), float(AB[s])
    return Step(ab_t, ab_s, SIGMA_RULES[rule](ab_t, ab_s, eta), **others)


def filter_matrix(operator, make_step, **settings):
    """F with x0_hat = x0 + F (y - A x0)."""
    consistency = NoisyNullSpace(**settings)
    zero = torch.zeros(SHAPE, dtype=torch.float64)
    return dense(lambda y: consistency(zero.clone(), y, operator, make_step()), operator.range_shape)


@closed_or_not
@pytest.mark.parametrize(("rule", "eta"), [("ddim", 0.85), ("fixed_share", 0.3), ("fixed_share", 1.0)])
def test_noisy_null_space_takes_the_documented_share_of_every_direction(closed_form, rule, eta):
    operator, x0, y = case(closed_form=closed_form, smallest=0.01)
    step = reverse_step(rule, eta)
    f = filter_matrix(operator, partial(reverse_step, rule, eta), noise_std=NOISE_STD, **EXACT)
    rho = AB_S * NOISE_STD**2 / (4 * step.sigma**2)
    assert torch.allclose(f, regular_inverse(operator.matrix, rho), atol=1e-8)
    result = NoisyNullSpace(NOISE_STD, **EXACT)(x0.clone(), y, operator, step)
    expected = x0.flatten() + f @ (y - operator.forward(x0))
    assert torch.allclose(result.flatten(), expected, atol=1e-8)


@pytest.mark.parametrize(("t", "s"), [(999, 700), (400, 250), (100, 3)])
@pytest.mark.parametrize(("rule", "eta"), [("ddim", 0.2), ("ddim", 1.0), ("fixed_share", 0.5)])
@pytest.mark.parametrize("noise_std", [0.01, 0.3, 3.0])
def test_noise_of_the_data_stays_below_the_fresh_noise_in_every_direction(t, s, rule, eta, noise_std):
    operator, _, _ = case(smallest=0.001)
    step = reverse_step(rule, eta, t, s)
    f = filter_matrix(operator, partial(reverse_step, rule, eta, t, s), noise_std=noise_std)
    let_in = math.sqrt(step.ab_s) * noise_std * torch.linalg.svdvals(f)
    assert float(let_in.max()) <= step.sigma * (1 + 1e-9)
    assert (
        noise_std * float(torch.linalg.svdvals(torch.linalg.pinv(operator.matrix)).max()) > step.sigma
    )  # A^+ would not


def test_the_bound_of_the_noise_is_met_where_the_singular_value_is_the_square_root_of_rho():
    step = reverse_step()
    rho = step.ab_s * NOISE_STD**2 / (4 * step.sigma**2)
    operator = DenseOperator(math.sqrt(rho) * some_matrix(7, smallest=2.0) / 2)
    f = filter_matrix(operator, reverse_step, noise_std=NOISE_STD)
    let_in = math.sqrt(step.ab_s) * NOISE_STD * torch.linalg.svdvals(f)
    assert torch.allclose(let_in, torch.full_like(let_in, step.sigma), rtol=1e-9)


@closed_or_not
@pytest.mark.parametrize(("rule", "eta"), [("ddim", 0.85), ("fixed_share", 1.0)])
def test_the_next_volume_has_the_noise_that_the_network_expects(closed_form, rule, eta):
    """From a clean x0 and noisy data, x_s = sqrt(ab_s) x + noise of variance 1 - ab_s: a mean over directions, keys."""
    operator, x, _ = case(closed_form=closed_form)
    y = operator.forward(x)
    consistency = NoisyNullSpace(NOISE_STD, **EXACT)
    let_in = []
    for key in range(400 if closed_form else 80):
        step = reverse_step(rule, eta, key=Key(0, key, Purpose.MEASUREMENT))
        assert torch.allclose(consistency(x.clone(), y, operator, step), x, atol=1e-9)  # without noise x is kept
        let_in.append(step.let_in**2)
    f = filter_matrix(operator, partial(reverse_step, rule, eta), noise_std=NOISE_STD, **EXACT)
    from_data = NOISE_STD**2 * float(f.square().sum()) / SIZE
    estimated = sum(let_in) / len(let_in)
    assert estimated == pytest.approx(from_data, rel=4 * float(np.std(let_in)) / math.sqrt(len(let_in)) / from_data)
    kept = 1 - step.ab_s - step.sigma**2
    fresh = step.sigma**2 - step.ab_s * estimated
    assert fresh > 0
    assert kept + fresh + step.ab_s * from_data == pytest.approx(1 - step.ab_s, rel=0.03)


def test_without_noise_it_is_the_null_space_step():
    operator, x0, y = case()
    step = reverse_step()
    result = NoisyNullSpace(0.0, floor=1e-12)(x0.clone(), y, operator, step)
    assert torch.allclose(result, NullSpace()(x0.clone(), y, operator, step), atol=1e-6)
    assert step.let_in == 0
    for last in (False, True):
        near = NoisyNullSpace(0.0)(x0.clone(), y, operator, Step(AB_T) if last else reverse_step())
        exact = NullSpace()(x0.clone(), y, operator, step)
        assert (near - exact).norm() < 1e-3 * exact.norm()  # the floor of the weight, for singular values from 0.1


@pytest.mark.parametrize("noise_std", [0.0, NOISE_STD])
def test_without_fresh_noise_no_noise_of_the_data_is_let_in(noise_std):
    operator, x0, y = case()
    result = NoisyNullSpace(noise_std)(x0.clone(), y, operator, reverse_step(eta=0.0))
    if noise_std:
        assert torch.allclose(result, x0, atol=1e-6)
    else:
        assert torch.allclose(operator.forward(result), y, atol=1e-3)


def test_it_amplifies_noise_less_than_the_null_space_step():
    operator, x0, _ = case(smallest=0.001)
    clean, noise = operator.forward(x0), NOISE_STD * normal(7, seed=8, dtype=torch.float64)
    for step in (reverse_step(), Step(AB_T)):
        changes = [
            (consistency(x0.clone(), clean + noise, operator, step) - x0).norm()
            for consistency in (NoisyNullSpace(NOISE_STD), NullSpace())
        ]
        assert changes[0] < 0.05 * changes[1]


def test_the_last_step_weighs_the_data_by_the_error_of_the_clean_estimate():
    operator, x0, y = case()
    last = Step(AB_T, 1.0, 0.0)
    result = NoisyNullSpace(NOISE_STD)(x0.clone(), y, operator, last)
    rho = NOISE_STD**2 / (4 * last.noise_ratio)
    assert torch.allclose(result, operator.prox(x0, y, rho), atol=1e-12)
    assert last.let_in == 0
