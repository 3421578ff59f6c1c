"""Scans that lack directions are sampled with steps of their own: which ones lack any, and what they then get."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.files.findings import findings_of
from interslice.noise.field import IdenticalNoise
from interslice.physics.ct import Grid, ScanGeometry, SparseRadon
from interslice.physics.ct.redundancy import missing_directions
from interslice.physics.measurement import operator_of
from interslice.report.evaluation import with_noise
from interslice.sampling import MissingDirections
from interslice.sampling.presets import unless_given
from interslice.usage import UsageError
from tests.support.helpers import BlurringDenoiser, alpha_bars, sampler, scan
from tests.support.scans import EVALUATE, INFERENCE, chest_voxels, write_volume

NETWORK = BlurringDenoiser(alpha_bars())
STEPS = {"num_steps": 3, "start_fraction": 0.5, "num_draws": 2}


def parallel(angles):
    return ScanGeometry("parallel", tuple(map(float, angles)), 12, 2.0, 3, 2.0)


def rays(arc, views=20):
    return SparseRadon(parallel(arc / views * i for i in range(views)), Grid((8, 8, 3), (2.0, 2.0, 2.0)))


def measured(operator):
    """What an operator measures of some volume, and carries it."""
    volume = torch.randn(operator.domain_shape, generator=torch.Generator().manual_seed(0))
    image = scan(operator.forward(volume))
    image.meta["operator"] = operator
    return image


@given(
    arc=st.floats(30, 170), views=st.integers(12, 60), start=st.floats(-200, 200), turned=st.lists(st.booleans()),
    order=st.randoms(),
)  # fmt: skip
def test_the_share_is_that_of_the_wedge_however_the_views_are_stored(arc, views, start, turned, order):
    """Views from the other end see the same lines."""
    angles = [start + arc * (i + 0.5) / views for i in range(views)]
    angles = [a + 180 * turn for a, turn in zip(angles, turned + [False] * views)]
    order.shuffle(angles)
    expected = (180 - arc) / 180
    if (180 - arc + arc / views) > 3.1 * arc / views:  # more than a few steps: a wedge
        assert missing_directions(parallel(angles)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("beam", ["parallel", "fan", "cone"])
@pytest.mark.parametrize("views", [8, 30, 31])
def test_a_whole_scan_lacks_nothing(beam, views):
    turn = 180 if beam == "parallel" else 360
    lengths = {} if beam == "parallel" else {"source_to_isocenter": 500.0, "source_to_detector": 900.0}
    geometry = replace(parallel(turn / views * i for i in range(views)), beam=beam, **lengths)
    assert missing_directions(geometry) == 0


def test_two_wedges_add_up():
    angles = [*range(0, 50, 2), *range(90, 140, 2)]
    assert missing_directions(parallel(angles)) == pytest.approx((180 - 100) / 180, abs=1e-6)


def test_a_scan_that_lacks_directions_gets_its_own_steps_and_is_that_sampler_s_result():
    whole, part = (measured(rays(arc)) for arc in (180.0, 100.0))
    ours, plain, other = MissingDirections(sampler(), STEPS), sampler(), sampler(**STEPS)
    for image, expected in ((whole, plain), (part, other)):
        found, wanted = (inferer.reconstruct(image, NETWORK) for inferer in (ours, expected))
        assert torch.equal(found.as_tensor(), wanted.as_tensor())
        assert findings_of(found).record() == findings_of(wanted).record()
    assert findings_of(ours.reconstruct(part, NETWORK)).num_steps == 3


def test_below_the_share_and_without_settings_nothing_changes():
    image = measured(rays(100.0))
    assert operator_of(image).missing_directions == pytest.approx(4 / 9)
    for ours in (MissingDirections(sampler(), STEPS, share=0.5), MissingDirections(sampler())):
        assert findings_of(ours.reconstruct(image, NETWORK)).num_steps == 4


def test_another_noise_field_reaches_the_other_steps():
    ours = with_noise(MissingDirections(sampler(), STEPS), IdenticalNoise())
    assert "Identical" in findings_of(ours.reconstruct(measured(rays(100.0)), NETWORK)).noise


@pytest.mark.parametrize("share", [-0.1, 1.1, "x"])
def test_a_share_is_one(share):
    with pytest.raises(UsageError, match="share must be a number from 0, up to 1"):
        MissingDirections(sampler(), STEPS, share)


def test_what_is_given_goes_first():
    chosen, others = {"name": "a", "num_steps": 10, "num_draws": 4}, {"a": {"num_steps": 20}}
    assert unless_given(chosen, others, num_steps=10, num_draws=4) == {"num_steps": 20}
    assert unless_given(chosen, others, num_steps=5, num_draws=4) is None


@pytest.mark.slow
@pytest.mark.parametrize(("given", "steps"), [({}, (10, 0.1)), ({"num_steps": 2}, (2, 0.01))], ids=str)
def test_a_limited_arc_by_the_command_line(given, steps, run_here, tiny_overrides, tmp_path):
    chest = write_volume(tmp_path / "truth" / "chest.nii.gz", chest_voxels((16, 16, 4)))
    overrides = tiny_overrides(chest, preset="fast", arc=100.0, num_views=25, photons=1e5)
    overrides = {k: v for k, v in overrides.items() if k not in ("num_steps", "start_fraction", "num_draws")}
    run_here("inference", [INFERENCE, "configs/task_svct.json", EVALUATE], overrides | given)
    record = json.loads((tmp_path / "results" / "chest" / "run.json").read_text(encoding="utf-8"))
    assert (record["num_steps"], record["start_fraction"], record["num_draws"]) == (*steps, 1)
