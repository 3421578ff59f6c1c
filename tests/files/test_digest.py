"""Digests: equal for parts that do the same, in any process; other for whatever a result depends on."""

import functools
import inspect
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import interslice.sampling as sampling
from interslice.files import digest as module
from interslice.files.digest import digest, of_versions
from interslice.noise import IndependentNoise, MaternNoise, OrnsteinUhlenbeckNoise, SlerpNoise
from interslice.physics.baselines import LeastSquares, LinearReconstruction
from interslice.physics.ct.cone_beam import ConeBeam
from interslice.physics.ct.geometry import Grid, ScanGeometry
from interslice.physics.ct.sparse_radon import SparseRadon
from interslice.physics.kspace.cartesian_mri import CartesianMRI
from interslice.physics.thick.through_plane import ThroughPlane, slice_weights
from interslice.prior import SlicePrior
from interslice.sampling.inferers import DiffusionInverseInferer
from tests.prior.test_batches import Small
from tests.support.helpers import alpha_bars, normal
from tests.support.scans import random_network


def nudged(tensor):
    """One element is the next larger number."""
    tensor = tensor.clone()
    tensor.view(-1)[3] = torch.nextafter(tensor.view(-1)[3], torch.tensor(math.inf))
    return tensor


def thick(thickness=4.0, axis=2):
    return ThroughPlane((8, 8, 8), axis, slice_weights(8, 1.0, 2, 4.0, thickness), 1.0, 4.0, thickness)


def parallel(**changed):
    plain = {"beam": "parallel", "angles": (0.0, 60.0, 120.0), "num_columns": 12, "num_rows": 2}
    geometry = ScanGeometry(**plain | changed, column_size=1.0, row_size=1.0)
    return SparseRadon(geometry, Grid((8, 8, 2), (1.0, 1.0, 1.0)))


def cone(distance=50.0):
    geometry = ScanGeometry("cone", (0.0, 90.0), 12, 1.0, num_rows=4, row_size=1.0, source_to_isocenter=distance,
                            source_to_detector=100.0)  # fmt: skip
    return ConeBeam(geometry, Grid((8, 8, 2), (1.0, 1.0, 1.0)))


def kspace(mask=1):
    lines = torch.ones(8, 8)
    lines[:, 2] = mask
    return CartesianMRI(torch.ones(1, 2, 8, 8, dtype=torch.complex64), lines)


def adder(number):
    return lambda x: x + number


OTHERS = {
    "one bit of a measurement": (normal(8, 8, 8), nudged(normal(8, 8, 8))),
    "its shape": (torch.zeros(2, 3), torch.zeros(3, 2)),
    "its type": (torch.zeros(2), torch.zeros(1, dtype=torch.float64)),
    "arrays": (np.zeros(3), np.array([0, 0, 1.0])),
    "numbers": (1, 1.0),
    "text": ("1", 1),
    "switches": (True, 1),
    "what stands where": ([1, [2]], [[1], 2]),
    "names": ({"a": 1}, {"b": 1}),
    "sets": ({1, 2}, {1, 3}),
    "a thickness": (thick(4.0), thick(3.0)),
    "an axis": (thick(axis=0), thick(axis=2)),
    "an angle": (parallel(), parallel(angles=(0.0, 60.0, 121.0))),
    "an offset": (parallel(), parallel(column_offset=0.5)),
    "a distance": (cone(), cone(51.0)),
    "a mask": (kspace(), kspace(0)),
    "a noise field": (IndependentNoise(), SlerpNoise()),
    "its length": (MaternNoise(10.0), MaternNoise(20.0)),
    "its kind": (MaternNoise(10.0), OrnsteinUhlenbeckNoise(10.0)),
    "a baseline": (LinearReconstruction(), LeastSquares()),
    "its iterations": (LeastSquares(5), LeastSquares(6)),
    "weights": (random_network(0), random_network(1)),
    "the layers": (torch.nn.MaxPool2d(2), torch.nn.MaxPool2d(3)),
    "a mode": (random_network(), random_network().eval()),
    "functions": (math.sin, math.cos),
    "code": (lambda x: x + 1, lambda x: x - 1),
    "constants in code": (lambda x: x + 1, lambda x: x + 2),
    "what a function closes over": (adder(1), adder(2)),
    "arguments": (functools.partial(pow, 2), functools.partial(pow, 3)),
    "methods": (SlicePrior(alpha_bars()).pull_back, SlicePrior(alpha_bars()).__call__),
    "who has them": (SlicePrior(alpha_bars(), 8).pull_back, SlicePrior(alpha_bars(), 4).pull_back),
    "builtin methods": (normal(3).sin, normal(3).cos),
    "who has these": (normal(3).sin, normal(3, seed=1).sin),
    "classes": (SlerpNoise, MaternNoise),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_differs_has_another_digest(what):
    one, other = OTHERS[what]
    assert digest(one) == digest(one) != digest(other) == digest(other)
    assert digest(["beside", one], 1) != digest(["beside", other], 1)


def test_the_weights_are_told_to_the_last_bit():
    networks = [random_network() for _ in range(3)]
    with torch.no_grad():
        weight = list(networks[2].parameters())[-1]
        weight.copy_(torch.nextafter(weight, torch.tensor(math.inf)))
    first, same, other = (digest(n) for n in networks)
    assert first == same != other


@pytest.mark.parametrize("make", [thick, parallel, cone, kspace], ids=lambda f: f.__name__)
def test_what_was_computed_meanwhile_does_not_matter(make):
    used, fresh = make(), make()
    y = used.forward(normal(*used.domain_shape))
    used.prox(used.linear_reconstruction(y), y, 0.1)
    assert used.norm > 0
    assert digest(used) == digest(fresh)


def test_a_prior_that_has_worked_is_the_same():
    used, fresh = (SlicePrior(alpha_bars(), "auto", multiple=1) for _ in range(2))
    used(Small(2), normal(6, 6, 6), 100, 0)
    assert used.calls and used.batch_sizes  # halved
    assert digest(used) == digest(fresh)


ARGUMENTS = {
    "prior": SlicePrior(alpha_bars(), 4), "data_consistency": sampling.Proximal(0.1), "noise_field": SlerpNoise(),
    "num_steps": 4, "start_fraction": 0.3, "eta": 0.5, "sigma_rule": "ddim", "slice_axis": 1, "num_draws": 4,
    "antithetic": False, "seed": 1, "timesteps": [500, 100, 20], "start": LeastSquares(),
    "finish": sampling.Proximal(0.2), "eps_after_data": True, "subject": sampling.SubjectBoxes(),
}  # fmt: skip
"""Another value of every argument of the sampler that the result is a function of."""
WITHOUT_A_SAY = {"observer", "progress", "keeper", "storage", "time_noise"}


def told_by_a_sampler(device="cpu", **changed):
    """What a sampler tells its keeper."""
    seen = []

    class Listens:
        resume = False

        def begin(self, *parts):
            seen.append(digest(*parts[:2]))

        def offer(self, state):
            raise AssertionError("nothing is sampled here")

    plain = {"prior": SlicePrior(alpha_bars(), 8), "data_consistency": sampling.NullSpace(),
             "noise_field": IndependentNoise(), "slice_axis": 0, "num_draws": 1}  # fmt: skip
    inferer = DiffusionInverseInferer(**plain | changed, keeper=Listens())
    run = inferer.begin(torch.zeros(8, 8, 2), thick(), None)
    run.volumes = replace(run.volumes, device=torch.device(device))
    inferer._kept(run, 1)
    return seen[0]


def test_the_kind_of_device_has_a_say_and_where_volumes_lie_has_none():
    assert told_by_a_sampler() != told_by_a_sampler("cuda")
    assert told_by_a_sampler() == told_by_a_sampler(storage=sampling.Storage("host"))


def test_every_argument_of_the_sampler_has_a_say():
    assert ARGUMENTS.keys() | WITHOUT_A_SAY == inspect.signature(DiffusionInverseInferer).parameters.keys()
    digests = {name: told_by_a_sampler(**{name: value}) for name, value in ARGUMENTS.items()}
    assert len({*digests.values(), told_by_a_sampler()}) == len(ARGUMENTS) + 1
    assert told_by_a_sampler(progress=False) == told_by_a_sampler(observer=sampling.Trajectory()) == told_by_a_sampler()


def test_versions_have_a_say(monkeypatch, tmp_path):
    now = of_versions()
    assert of_versions.__wrapped__() == now
    for library in (torch, np, module.monai):
        with monkeypatch.context() as other:
            other.setattr(library, "__version__", "0.0.1")
            assert of_versions.__wrapped__() != now
    (tmp_path / "changed.py").write_text("step = 2\n")
    monkeypatch.setattr(module.interslice, "__file__", str(tmp_path / "__init__.py"))
    assert of_versions.__wrapped__() != now


def test_what_leads_back_to_itself_ends():
    class Knot:
        pass

    knot = Knot()
    knot.itself = knot
    assert digest(knot) == digest(knot)


def test_what_cannot_be_told_is_refused():
    with pytest.raises(TypeError, match="no attributes by which it could be told"):
        digest([object()])


@pytest.mark.slow
def test_another_process_finds_the_same(fresh_python):
    code = """
from tests.files.test_digest import OTHERS, told_by_a_sampler
from interslice.files.digest import digest, of_versions
print(*[digest(part) for part, _ in OTHERS.values()], told_by_a_sampler(), of_versions())
"""
    here = [*[digest(part) for part, _ in OTHERS.values()], told_by_a_sampler(), of_versions()]
    assert fresh_python(code).split() == fresh_python(code).split() == here
