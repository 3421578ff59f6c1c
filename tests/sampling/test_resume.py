"""A reconstruction that was interrupted after any step, and goes on, is bit for bit the one that never was."""

from types import SimpleNamespace

import pytest
import torch
from monai.bundle import ConfigParser

from interslice.files.unfinished import Unfinished
from interslice.noise.auto_length import AutoLength
from interslice.prior.weights import load_weights
from interslice.sampling import Trajectory
from interslice.sampling.known_spacing import KnownSpacingInferer
from interslice.sampling.posterior_steps import SliceTotalVariation, Variational
from interslice.sampling.state import State
from tests.physics.ct.test_task import measure
from tests.sampling.test_solvers import SOLVERS, configs
from tests.support.helpers import BlurringDenoiser, alpha_bars, measured, normal, sampler
from tests.support.scans import ROOT, head_voxels, write_volume

NETWORK = BlurringDenoiser(alpha_bars())
SCAN = measured(normal(12, 10, 4, seed=6))
STEPS, DRAWS = 3, 2
EVERY_STEP = range(1, STEPS * DRAWS + 1)


class Interrupted(BaseException):
    """As a KeyboardInterrupt, no Exception."""


class Stops(Unfinished):
    """Saves every step, and ends the run after one of them."""

    def __init__(self, folder, after):
        super().__init__(folder, save_minutes=0)
        self.after = after

    def offer(self, state):
        super().offer(state)
        if state["done"] == self.after:
            raise Interrupted


class OnlyResumes(Unfinished):
    """Notes the state that it gave back, and saves none."""

    def __init__(self, folder):
        super().__init__(folder, resume=True, save_minutes=None)
        self.given = None

    def begin(self, *parts):
        self.given = super().begin(*parts)
        return self.given


def interrupted(inferer, sampling, scan, network, folder, after):
    """The result of a run that was interrupted after a step and of another one that went on; of the second, its keeper.

    `sampling` is what has the keeper: the inferer itself, or what it wraps.
    """
    sampling.keeper = Stops(folder, after)
    with pytest.raises(Interrupted):
        inferer.reconstruct(scan, network)
    sampling.keeper = keeper = OnlyResumes(folder)
    result = inferer.reconstruct(scan, network)
    sampling.keeper = None
    assert keeper.given["done"] == after
    return result


def same(one, other):
    """Volumes and spreads alike, to the last bit."""
    assert torch.equal(one.as_tensor(), other.as_tensor())
    maps, others = one.meta["findings"].maps, other.meta["findings"].maps
    assert maps.keys() == others.keys() and all(torch.equal(m, others[k]) for k, m in maps.items())
    return True


@pytest.fixture
def parts(tiny_overrides, thick_file, tmp_path, monkeypatch):
    """The sampler, a tiny scan and the network of a task with a solver's overlay."""
    monkeypatch.chdir(ROOT)

    def parsed(task, solver):
        quick = {}
        if task == "mri":
            source = thick_file
        elif task == "ct":
            source = measure(tmp_path / "projections", "parallel")
            quick = {"baselines#total_variation#iterations": 10, "finish#iterations": 5}
        else:
            source = write_volume(tmp_path / "truth" / "head.nii.gz", head_voxels((20, 18, 8)))
            quick = {"baselines#total_variation#iterations": 5}
        if solver == "solver_unconditional":
            quick = {}
        parser = ConfigParser()
        parser.read_config(configs(task, solver))
        parser.update(tiny_overrides(source, num_steps=STEPS, num_draws=DRAWS) | quick)
        network = load_weights(parser.get_parsed_content("network"), parser.get_parsed_content("weights"))
        scan = parser.get_parsed_content("dataset")[0]["image"]
        return SimpleNamespace(sampler=parser.get_parsed_content("sampler"), scan=scan, network=network)

    return parsed


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("task", ["mri", "ct", "k-space"])
def test_every_solver_and_task_goes_on_bit_for_bit(task, solver, parts, tmp_path):
    run = parts(task, solver)
    whole = run.sampler.reconstruct(run.scan, run.network)
    for after in EVERY_STEP:
        again = interrupted(run.sampler, run.sampler, run.scan, run.network, tmp_path / str(after), after)
        assert same(again, whole), after
        assert again.meta["findings"].resumed_after == after


@pytest.mark.parametrize("after", EVERY_STEP)
@pytest.mark.parametrize(
    "settings",
    [
        {"eta": 1.0, "slice_axis": "alternate"},
        {"eta": 0.5},
        {"eta": 0.0, "sigma_rule": "ddim", "start_fraction": 1},
        {"eta": 0.6, "eps_after_data": True},
        {"field": AutoLength()},
        {"consistency": Variational(learning_rate=0.02)},
        {"consistency": SliceTotalVariation(0.003, 0.1), "slice_axis": "alternate"},
        {"finish": SliceTotalVariation(0.003, 0.1)},
    ],
    ids=lambda s: "-".join(f"{v}" for v in s.values())[:30],
)
def test_what_is_kept_from_step_to_step_is_kept(settings, after, tmp_path):
    inferer = sampler(num_steps=STEPS, num_draws=DRAWS, slice_batch_size=5, **settings)
    assert same(interrupted(inferer, inferer, SCAN, NETWORK, tmp_path, after), inferer.reconstruct(SCAN, NETWORK))


def test_interrupted_more_than_once(tmp_path):
    inferer = sampler(num_steps=STEPS, num_draws=DRAWS, eta=0.5)
    whole = inferer.reconstruct(SCAN, NETWORK)
    for after in EVERY_STEP:
        inferer.keeper = Stops(tmp_path, after)
        inferer.keeper.resume = True
        with pytest.raises(Interrupted):
            inferer.reconstruct(SCAN, NETWORK)
    calls = inferer.prior.calls
    inferer.keeper = OnlyResumes(tmp_path)
    assert same(inferer.reconstruct(SCAN, NETWORK), whole)
    assert inferer.prior.calls == calls


class FailsOnce(BlurringDenoiser):
    """A network that fails at one of its calls."""

    def __init__(self, at):
        super().__init__(alpha_bars())
        self._at, self._calls = at, 0

    def __call__(self, x, t):
        self._calls += 1
        if self._calls == self._at:
            raise ArithmeticError
        return super().__call__(x, t)


@pytest.mark.parametrize("at", range(1, 13))
def test_a_step_that_ends_half_way_begins_anew(at, tmp_path):
    """In the middle of a step the volume is being changed: what counts is the state before."""
    inferer = sampler(num_steps=3, slice_batch_size=3, eta=0.5, slice_axis=1)  # four calls a step, for ten slices
    whole, network = inferer.reconstruct(SCAN, NETWORK), FailsOnce(at)
    inferer.keeper = Unfinished(tmp_path, save_minutes=0)
    with pytest.raises(ArithmeticError):
        inferer.reconstruct(SCAN, network)
    inferer.keeper = keeper = OnlyResumes(tmp_path)
    assert same(inferer.reconstruct(SCAN, network), whole)
    assert (keeper.given or {"done": 0})["done"] == (at - 1) // 4


def test_within_other_inferers(tmp_path):
    """What is around the sampler, blocks here, is computed again."""
    inner = sampler(num_steps=STEPS, num_draws=DRAWS)
    inferer = KnownSpacingInferer(inner, 2.0)
    assert same(interrupted(inferer, inner, SCAN, NETWORK, tmp_path, 4), inferer.reconstruct(SCAN, NETWORK))


def test_batch_sizes_that_the_memory_decided_are_kept(tmp_path):
    """Another size would change the rounding."""
    first, second = (sampler(num_steps=3, slice_batch_size="auto", slice_axis=0) for _ in range(2))
    first.prior.batch_sizes[(12, 10, 20), False, "cpu"] = 5  # as if there had been no memory for more
    first.keeper = Stops(tmp_path, 1)
    with pytest.raises(Interrupted):
        first.reconstruct(SCAN, NETWORK)
    second.keeper = OnlyResumes(tmp_path)
    second.reconstruct(SCAN, NETWORK)
    assert second.prior.batch_sizes == first.prior.batch_sizes
    assert second.prior.calls == 2 * 3  # twelve slices in batches of five, in the two steps that were left


def test_a_keeper_changes_nothing(tmp_path):
    inferer = sampler(num_steps=STEPS, num_draws=DRAWS)
    whole = inferer.reconstruct(SCAN, NETWORK)
    for minutes in (0, None, 5):
        inferer.keeper = Unfinished(tmp_path / str(minutes), save_minutes=minutes)
        assert same(inferer.reconstruct(SCAN, NETWORK), whole)
        assert (tmp_path / str(minutes)).exists() == (minutes == 0)
    assert whole.meta["findings"].resumed_after == 0


def test_an_observer_sees_every_step_or_none(tmp_path):
    resuming = Unfinished(tmp_path, resume=True)
    with pytest.raises(ValueError, match="resume goes on where a run stopped, and an observer"):
        sampler(observer=Trajectory(), keeper=resuming)
    with pytest.raises(ValueError, match="leave out one of them"):
        Unfinished(tmp_path, resume="yes", sampler=sampler(observer=Trajectory()))
    assert sampler(observer=Trajectory(), keeper=Unfinished(tmp_path)).keeper is not None


def test_the_mean_and_spread_of_a_state_are_those_of_its_draws():
    draws = normal(5, 2, 3, 4)
    state = State()
    for draw in draws:
        state.add(draw.clone())
    mean, squares = state.take()
    assert torch.allclose(mean, draws.mean(0), atol=1e-6)
    assert torch.allclose(squares / 4, draws.var(0), atol=1e-6)
    assert state.draw == 5 and state.mean is None
