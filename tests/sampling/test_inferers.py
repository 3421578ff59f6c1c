"""The inferers as MONAI pieces: keys of the noise, axes of the steps, metadata, refusals."""

import warnings

import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.inferers import Inferer

from interslice.noise.field import IdenticalNoise, IndependentNoise, SlerpNoise
from interslice.physics.thick import ThroughPlaneSampling
from interslice.sampling import volume_noise
from interslice.usage import UsageError
from tests.support.helpers import BlurringDenoiser, alpha_bars, measured, normal, sampled, sampler, scan

AB = alpha_bars()
NETWORK = BlurringDenoiser(AB)
THICK, FINE, SPACING = (12, 10, 4), (12, 10, 20), (1.0, 1.0, 5.0)
Y = normal(*THICK, seed=6)
OPERATOR = ThroughPlaneSampling(axis=2).for_scan(THICK, SPACING)


def batch(*values, **header):
    return list_data_collate([measured(v, **header) for v in values])


class Events:
    """A noise field and a network that note their calls in order."""

    def __init__(self, field):
        self.field, self.log = field, []

    def fit(self, *_):
        return self

    def across(self, axis):
        return self

    def draw(self, positions, slice_shape, **key):
        self.log.append(("noise", len(positions), slice_shape))
        return self.field.draw(positions, slice_shape, **key)

    def network(self, x, t):
        self.log.append(("network", x.shape[0], tuple(x.shape[2:]), int(t[0])))
        return NETWORK(x, t)


# -- keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [IndependentNoise(), IdenticalNoise(), SlerpNoise()], ids=lambda f: type(f).__name__)
def test_the_seed_alone_decides(field):
    torch.manual_seed(1)
    one = sampler(field, num_steps=3, seed=5)(batch(Y), NETWORK)
    torch.manual_seed(2)
    assert torch.equal(sampler(field, num_steps=3, seed=5)(batch(Y), NETWORK), one)
    assert (sampler(field, num_steps=3, seed=6)(batch(Y), NETWORK) - one).abs().mean() > 0.01


@pytest.mark.parametrize("slice_axis", [0, 1, 2, "alternate"])
def test_slice_batch_size_does_not_matter(slice_axis):
    arguments = {"num_steps": 4, "eta": 0.7, "slice_axis": slice_axis}
    results = [sampler(slice_batch_size=n, **arguments)(batch(Y), NETWORK) for n in (1, 3, 7, 64, "auto")]
    for other in results[1:]:
        assert torch.allclose(other, results[0], atol=1e-4)


@pytest.mark.parametrize("field", [IndependentNoise(), SlerpNoise()], ids=lambda f: type(f).__name__)
def test_chunks_of_noise_do_not_matter(field, monkeypatch):
    results = []
    for chunk in (1, 7, 64):
        monkeypatch.setattr(volume_noise, "NOISE_CHUNK", chunk)
        results.append(sampler(field, num_steps=3, eta=0.7, slice_axis=2)(batch(Y), NETWORK))
    for other in results[1:]:
        assert torch.allclose(other, results[0], atol=1e-5)


def test_draws_are_samples_of_their_own_and_their_mean_is_the_result():
    inferer = sampler(SlerpNoise(), num_steps=3, num_draws=3)
    draws = [sampled(inferer, Y, OPERATOR, NETWORK, draw=k) for k in range(3)]
    assert (draws[0] - draws[1]).abs().mean() > 0.01
    assert torch.allclose(inferer(batch(Y), NETWORK)[0, 0], torch.stack(draws).mean(0), atol=1e-6)
    assert torch.equal(sampler(SlerpNoise(), num_steps=3)(batch(Y), NETWORK)[0, 0], draws[0])


def test_no_two_steps_or_draws_share_a_key():
    keys = []

    class Recorded(IndependentNoise):
        def draw(self, positions, slice_shape, *, seed, step, slices, **level):
            keys.append((seed, step, slices.start))
            return super().draw(positions, slice_shape, seed=seed, step=step, slices=slices, **level)

    sampler(Recorded(), ab=AB[:6], num_steps=6, start_fraction=1, num_draws=3, antithetic=False)(
        batch(Y), lambda x, t: x
    )
    assert len(keys) == len(set(keys)) == 6 * 3


# -- steps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("slice_axis", [0, 1, 2, "auto", "alternate"])
def test_noise_is_white_in_the_planes_that_the_next_network_call_sees(axis, slice_axis):
    thick = list(FINE)
    thick[axis] = 4
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 4.5
    events = Events(IndependentNoise())
    inferer = sampler(events, num_steps=5, slice_axis=slice_axis)
    inferer(batch(normal(*thick), spacing=tuple(spacing), axis=axis), events.network)
    joined = [e for i, e in enumerate(events.log) if i == 0 or e[:3] != events.log[i - 1][:3]]  # chunks of one step
    assert [e[0] for e in joined] == ["noise", "network"] * 5
    for noise, seen in zip(joined[::2], joined[1::2]):
        assert noise[1:] == seen[1:3]
    shapes = [seen[2] for seen in joined[1::2]]
    fine = ThroughPlaneSampling(axis=axis).for_scan(tuple(thick), tuple(spacing)).domain_shape
    planes = [tuple(n for a, n in enumerate(fine) if a != across) for across in range(3)]
    in_plane = [a for a in range(3) if a != axis]
    expected = {"auto": in_plane[:1] * 5, "alternate": (in_plane * 3)[:5]}.get(slice_axis, [slice_axis] * 5)
    assert shapes == [planes[a] for a in expected]


@pytest.mark.parametrize(("slice_axis", "first"), [("alternate", [0, 1, 0]), ("auto", [0, 0, 0]), (1, [1, 1, 1])])
def test_alternating_draws_begin_with_the_next_axis(slice_axis, first):
    events = Events(IndependentNoise())
    inferer = sampler(events, num_steps=3, num_draws=3, antithetic=False, slice_axis=slice_axis, slice_batch_size=64)
    inferer(batch(Y), events.network)
    across = [{12: 0, 10: 1}[e[1]] for e in events.log if e[0] == "network"]
    assert across[::3] == first
    assert (slice_axis == "alternate") == (across[0] != across[1])


def test_explicit_timesteps_are_taken():
    events = Events(IndependentNoise())
    sampler(events, timesteps=[700, 300, 50], num_steps=9, start_fraction=0.1)(batch(Y), events.network)
    assert [e[3] for e in events.log if e[0] == "network"] == [700, 300, 50]


def test_pure_noise_forgets_the_data_and_a_warm_start_does_not():
    first = []

    def network(x, t):
        first.append(x.clone())
        return NETWORK(x, t)

    for fraction in (1, 0.3):
        first.clear()
        sampler(num_steps=2, start_fraction=fraction, slice_axis=0)(batch(Y + 50), network)
        ab = float(AB[round(1000 * fraction) - 1]) if fraction < 1 else 0.0
        noise = IndependentNoise().draw(12, FINE[1:], seed=0, step=0)
        expected = ab**0.5 * OPERATOR.linear_reconstruction(Y + 50) + (1 - ab) ** 0.5 * noise
        assert torch.allclose(first[0][:, 0], expected, atol=1e-3)


@pytest.mark.parametrize("rule", ["ddim", "fixed_share"])
def test_without_fresh_noise_the_start_decides(rule):
    class OnlyTheStart(IndependentNoise):
        def draw(self, positions, slice_shape, *, seed, **key):
            return super().draw(positions, slice_shape, seed=seed + 99 * (key["step"] > 0), **key)

    arguments = {"num_steps": 4, "eta": 0.0, "sigma_rule": rule}
    expected = sampler(**arguments)(batch(Y), NETWORK)
    assert torch.allclose(sampler(OnlyTheStart(), **arguments)(batch(Y), NETWORK), expected, atol=1e-6)


# -- metadata ---------------------------------------------------------------------------------------------


def test_every_case_of_a_batch_keeps_its_place_and_its_own_data():
    other = normal(*THICK, seed=7)
    items = [measured(Y, origin=(1.0, 2.0, 3.0)), measured(other, spacing=(1.0, 1.0, 5.0), origin=(-9.0, 0.0, 4.0))]
    inferer = sampler(num_steps=2)
    result = inferer(list_data_collate(items), NETWORK)
    assert isinstance(inferer, Inferer)
    assert isinstance(result, MetaTensor)
    assert result.shape == (2, 1, *FINE)
    for got, item in zip(decollate_batch(result), items):
        assert torch.allclose(got.affine, OPERATOR.domain_affine(item.affine))
        assert torch.allclose(got.pixdim, torch.ones(3, dtype=torch.float64))
        assert torch.equal(got.as_tensor(), inferer.reconstruct(item, NETWORK).as_tensor())
        assert torch.allclose(OPERATOR.forward(got.as_tensor()), item.as_tensor(), atol=1e-4)


def test_a_metatensor_that_is_no_collated_batch_is_one_of_cases_too():
    one = measured(Y)
    cases = MetaTensor(torch.stack([Y, normal(*THICK, seed=7)])[:, None], affine=one.affine, meta=one.meta)
    assert not cases.is_batch
    result = sampler(num_steps=2)(cases, NETWORK)
    assert torch.allclose(OPERATOR.forward(result.as_tensor()), cases.as_tensor(), atol=1e-4)


def test_measurement_is_left_alone():
    measurement = measured(Y.clone())
    measurement.meta["filename_or_obj"] = "a.nii.gz"
    result = sampler(num_steps=2).reconstruct(measurement, NETWORK)
    assert torch.equal(measurement.as_tensor()[0], Y)
    assert torch.equal(measurement.affine, measured(Y).affine)
    assert result.meta["filename_or_obj"] == "a.nii.gz"


def test_a_tensor_without_an_operator_is_refused():
    with pytest.raises(TypeError, match="MetaTensor"):
        sampler()(Y[None, None], NETWORK)
    with pytest.raises(ValueError, match="carries no operator: let interslice.physics.Measured"):
        sampler()(scan(Y)[None], NETWORK)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma_rule": "ddpm"}, "sigma_rule must be one of"),
        ({"eta": 1.1}, "eta must be a number from 0, up to 1, got"),
        ({"eta": -0.1}, "eta must be a number from 0, up to 1, got"),
        ({"slice_axis": 3}, "slice_axis must be"),
        ({"slice_axis": "z"}, "slice_axis must be"),
        ({"num_draws": 0}, "num_draws must be"),
        ({"num_steps": 0}, "num_steps must lie"),
        ({"start_fraction": 0.0}, "start_fraction must lie"),
        ({"timesteps": [10, 20]}, "descend strictly"),
        ({"timesteps": [1000]}, "descend strictly"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sampler(**arguments)


# -- planes that turn -----------------------------------------------------------------------------------


@pytest.mark.parametrize("slice_axis", ["alternate", [0, 1]])
@pytest.mark.parametrize(("rule", "eta"), [("ddim", 1.0), ("ddim", 0.0), ("fixed_share", 0.5)])
def test_kept_noise_that_slices_share_is_warned_of_where_planes_turn(slice_axis, rule, eta):
    with pytest.warns(UserWarning, match="turns the planes"):
        sampler(SlerpNoise(), slice_axis=slice_axis, sigma_rule=rule, eta=eta)


@pytest.mark.parametrize(
    ("field", "others"),
    [
        (IndependentNoise(), {"slice_axis": "alternate", "eta": 0.5}),
        (SlerpNoise(), {"slice_axis": "auto", "eta": 0.5}),
        (SlerpNoise(), {"slice_axis": [1, 1], "eta": 0.5}),
        (SlerpNoise(), {"slice_axis": "alternate", "eta": 1.0}),
    ],
)
def test_no_warning_without_a_reason(field, others):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler(field, **others)


def test_a_list_of_axes_is_taken_in_turn():
    events = Events(IndependentNoise())
    sampler(events, num_steps=4, slice_axis=[2, 0, 0])(batch(Y), events.network)
    shapes = [entry[2] for entry in events.log if entry[0] == "network"]
    across = {(FINE[0], FINE[1]): 2, (FINE[1], FINE[2]): 0}
    assert [across[shape] for shape in shapes] == [2, 0, 0, 2]


@pytest.mark.parametrize("slice_axis", [3, -1, [0, 3], [], "sideways", ["auto"]])
def test_an_axis_that_there_is_not_is_refused(slice_axis):
    with pytest.raises(ValueError, match="slice_axis must be"):
        sampler(slice_axis=slice_axis)


def test_the_name_of_a_field_is_no_field():
    with pytest.raises(UsageError, match="choose one by name with --noise auto"):
        sampler("auto")


def test_an_observer_sees_every_step_and_changes_nothing():
    seen = []

    class Observer:
        def begin(self, affine):
            seen.append(affine)

        def __call__(self, draw, step, t, slice_axis, x_t, x0_hat):
            seen.append((draw, step, t, slice_axis))

    plain = sampler(SlerpNoise(), num_steps=3, num_draws=2)
    watched = sampler(SlerpNoise(), num_steps=3, num_draws=2, observer=Observer())
    assert torch.equal(plain(batch(Y), NETWORK), watched(batch(Y), NETWORK))
    affine, *steps = seen
    assert torch.allclose(affine.norm(dim=0)[:3], torch.ones(3, dtype=torch.float64))
    assert [s[:3] for s in steps] == [(d, i, t) for d in (0, 1) for i, t in enumerate(plain.timesteps)]
