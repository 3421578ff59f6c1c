"""The sampler's memory: how many arrays of the volume's size are alive at once."""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from interslice.noise.field import SlerpNoise
from interslice.sampling.data_consistency import NullSpace, Proximal
from tests.support.helpers import BlurringDenoiser, alpha_bars, measured, normal, sampler

NETWORK = BlurringDenoiser(alpha_bars())


class AliveVolumes(TorchDispatchMode):
    """Counts the arrays of a volume's size or more that are alive at once after any operation."""

    def __init__(self, volume_bytes):
        super().__init__()
        self.volume_bytes, self.alive, self.peak = volume_bytes, set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().nbytes() >= self.volume_bytes:
                self.alive.add(StorageWeakRef(leaf.untyped_storage()))
        self.alive = {storage for storage in self.alive if not storage.expired()}
        self.peak = max(self.peak, len(self.alive))
        return result


def peak_volumes(num_steps, consistency, axis=2, **arguments):
    thick = [40, 36, 44]  # more slices than are drawn at once, whatever the axis
    thick[axis] = 8
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 5.0
    fine = list(thick)
    fine[axis] = 40
    inferer = sampler(SlerpNoise(), consistency, slice_batch_size=4, num_steps=num_steps, **arguments)
    measurement = measured(normal(*thick), tuple(spacing), axis=axis)
    with AliveVolumes(4 * fine[0] * fine[1] * fine[2]) as alive:
        inferer.reconstruct(measurement, NETWORK)
    return alive.peak


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("consistency", [NullSpace(), Proximal(0.1)], ids=["null_space", "proximal"])
@pytest.mark.parametrize(("eta", "num_draws", "most"), [(1.0, 1, 4), (0.5, 1, 5), (1.0, 3, 6), (0.5, 3, 7)])
def test_few_volumes_are_alive(consistency, axis, eta, num_draws, most):
    assert 2 <= peak_volumes(3, consistency, axis, eta=eta, num_draws=num_draws, slice_axis="alternate") <= most


def test_steps_and_draws_take_no_memory_of_their_own():
    peak = peak_volumes(3, NullSpace(), eta=0.5, num_draws=3)
    assert peak_volumes(7, NullSpace(), eta=0.5, num_draws=3) == peak
    assert peak_volumes(3, NullSpace(), eta=0.5, num_draws=5) == peak


def test_a_forgotten_array_would_be_counted():
    kept = []

    def hoard(x0, y, operator, step):
        kept.append(x0.clone())
        return x0

    assert peak_volumes(7, hoard) >= 7
