"""Parts that the sampler cannot use are refused when it is built, and not after sampling has begun."""

from types import SimpleNamespace

import pytest

from interslice.sampling import inferers
from interslice.sampling.inferers import DiffusionInverseInferer
from interslice.usage import UsageError
from tests.support.helpers import sampler
from tests.support.scans import ROOT


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ("dds", "'dds': choose a solver by its overlay, configs/solver_dds.json"),
        ("DDNM+", "configs/solver_ddnm_plus.json"),
        ("unknown", "such as configs/solver_dds.json"),
        (None, "got None"),
        (2.5, "got 2.5"),
    ],
)
def test_what_is_no_data_step_is_refused_with_the_overlay(given, fix):
    part = sampler()
    with pytest.raises(UsageError, match="data_consistency must be a data step") as refused:
        DiffusionInverseInferer(part.prior, given, part.noise_field)
    assert fix in str(refused.value)


def test_every_overlay_of_a_solver_is_known():
    assert {f"solver_{n}" for n in inferers.SOLVERS} == {p.stem for p in (ROOT / "configs").glob("solver_*.json")}


def test_what_is_no_field_or_no_prior_is_refused():
    part = sampler()
    with pytest.raises(UsageError, match=r"noise_field must be a noise field, got 3: choose one with --noise"):
        DiffusionInverseInferer(part.prior, part.data_consistency, 3)
    for prior in ("unet", None, SimpleNamespace(alpha_bars=[0.5])):
        with pytest.raises(UsageError, match="prior must be a prior"):
            DiffusionInverseInferer(prior, part.data_consistency, part.noise_field)


def test_resuming_with_an_observer_is_a_matter_of_usage():
    observer = SimpleNamespace(begin=lambda affine: None)
    with pytest.raises(UsageError, match="resume goes on where a run stopped"):
        sampler(observer=observer, keeper=SimpleNamespace(resume=True, begin=None, offer=None))


def test_what_is_no_keeper_is_refused():
    with pytest.raises(UsageError, match="keeper must be nothing or a .*Unfinished, got 'x'"):
        sampler(keeper="x")
