"""Volumes in the host's memory and on the disk: the same results, and memory that does not grow with the slices."""

import math

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from interslice.noise.field import SlerpNoise
from interslice.noise.markov import OrnsteinUhlenbeckNoise
from interslice.physics.baselines import Interpolation
from interslice.physics.ct import Grid, ScanGeometry, SparseRadon
from interslice.physics.measurement import operator_of
from interslice.sampling import ForegroundInferer, NullSpace, Proximal, TotalVariationProximal, volume_noise, volumes
from interslice.sampling.known_spacing import KnownSpacingInferer
from interslice.sampling.volumes import Storage, Volumes, parts
from tests.support.helpers import BlurringDenoiser, alpha_bars, measured, normal, sampler

NETWORK = BlurringDenoiser(alpha_bars())
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
THICK = measured(normal(11, 14, 6, seed=3))
SETTINGS = {
    "null_space": {"consistency": NullSpace(), "slice_axis": "alternate"},
    "pairs": {"consistency": NullSpace(), "slice_axis": 0, "num_draws": 4, "field": OrnsteinUhlenbeckNoise(5.0)},
    "kept": {"consistency": Proximal(0.1), "eta": 0.5, "sigma_rule": "ddim", "num_draws": 2},
    "kept_after_data": {"consistency": Proximal(0.1), "eta": 0.5, "eps_after_data": True},
    "coupled": {"consistency": TotalVariationProximal(0.1, 0.01, iterations=5)},
    "iterated": {"consistency": Proximal(0.1, iterations=4)},
    "start": {"start": Interpolation(3, consistent=True)},
    "noise": {"start_fraction": 1.0},
    "finish": {"finish": NullSpace(), "num_draws": 2},
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(volumes, "PART", 30_000)
    monkeypatch.setattr(volume_noise, "NOISE_CHUNK", 4)


def radon(slices):
    views = tuple(15.0 * view for view in range(12))
    geometry = ScanGeometry("parallel", views, num_columns=30, column_size=1.0, num_rows=slices, row_size=1.0)
    return SparseRadon(geometry, Grid((20, 18, slices), (1.0, 1.0, 1.0)))


@pytest.mark.parametrize("place", ["host", "disk"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_where_volumes_lie_changes_nothing(settings, place, tmp_path):
    here, there = (sampler(storage=storage, **settings) for storage in (None, Storage(place, tmp_path)))
    expected, found = (inferer.reconstruct(THICK, NETWORK) for inferer in (here, there))
    assert torch.allclose(found.as_tensor(), expected.as_tensor(), atol=2e-5)
    findings, others = found.meta["findings"], expected.meta["findings"]
    assert (findings.volumes_on, others.volumes_on) == (place, "device")
    assert findings.relative_residual == pytest.approx(others.relative_residual, rel=1e-3, abs=1e-6)
    for name, volume in others.maps.items():
        assert torch.allclose(findings.maps[name], volume, atol=2e-5)
    assert not list(tmp_path.iterdir())  # the files have gone


@pytest.mark.parametrize("around", [ForegroundInferer, lambda inner: KnownSpacingInferer(inner, 2.0)])
def test_within_other_inferers(around, tmp_path):
    expected, found = (
        around(sampler(num_draws=2, storage=storage)).reconstruct(THICK, NETWORK)
        for storage in (None, Storage("disk", tmp_path))
    )
    assert torch.allclose(found.as_tensor(), expected.as_tensor(), atol=2e-5)


@pytest.mark.parametrize("iterations", [1, 6])
def test_slices_of_a_tomogram_are_solved_each_for_itself(iterations, tmp_path):
    operator = radon(9)
    y = operator.forward(normal(*operator.domain_shape, seed=1))
    found = []
    for storage in (None, Storage("disk", tmp_path)):
        inferer = sampler(SlerpNoise(), Proximal(0.01, iterations=iterations), storage=storage, slice_axis=2)
        found.append(inferer.sample(inferer.begin(y, operator, NETWORK)))
    assert torch.allclose(*found, atol=1e-3 * float(found[0].abs().max()))


class Alive(TorchDispatchMode):
    """The most bytes that operations have made and that are alive at once, besides those that lie in files."""

    def __init__(self, in_files):
        super().__init__()
        self.in_files, self.sizes, self.peak = in_files, {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and func is not torch.ops.aten.from_file.default:
                self.sizes[StorageWeakRef(leaf.untyped_storage())] = leaf.untyped_storage().nbytes()
        kept = {storage for storage in self.sizes if not storage.expired() and storage not in self.in_files}
        self.sizes = {storage: self.sizes[storage] for storage in kept}
        self.peak = max(self.peak, sum(self.sizes.values()))
        return result


@pytest.fixture
def in_files(monkeypatch):
    """The storages of all volumes on the disk."""
    found, from_file = set(), torch.from_file

    def noted(*args, **kwargs):
        array = from_file(*args, **kwargs)
        found.add(StorageWeakRef(array.untyped_storage()))
        return array

    monkeypatch.setattr(torch, "from_file", noted)
    return found


def peak_bytes(count, in_files, tmp_path, physics):
    storage = Storage("disk", tmp_path)
    settings = {"slice_batch_size": 4, "num_draws": 2, "storage": storage}
    if physics == "thick":
        measurement = measured(normal(count, 14, 4, seed=3))
        y, operator = measurement.as_tensor()[0], operator_of(measurement)
        inferer = sampler(SlerpNoise(), NullSpace(), slice_axis=0, start=Interpolation(3, consistent=True), **settings)
    else:
        operator = radon(count)
        y = torch.rand(operator.range_shape)
        inferer = sampler(SlerpNoise(), Proximal(0.01, iterations=3), slice_axis=2, **settings)
    in_files.add(StorageWeakRef(y.untyped_storage()))  # it lies where it was read
    with Alive(in_files) as alive:
        run = inferer.begin(y, operator, NETWORK)
        for draw in range(2):
            run.state.add(inferer.sample(run, draw))
        run.volumes.misfit(run.state.take()[0], y, operator)
    return alive.peak


@pytest.mark.parametrize("physics", ["thick", "radon"])
def test_memory_does_not_grow_with_the_number_of_slices(physics, in_files, tmp_path):
    counts = (64, 256, 1024) if physics == "thick" else (32, 96)  # of CT each slice takes its time
    few, *others = (peak_bytes(count, in_files, tmp_path, physics) for count in counts)
    assert few > 20_000
    for count, peak in zip(counts[1:], others):
        assert peak <= few + 40 * (count - counts[0])  # where each slice lies; its voxels take more than a thousand


def test_parts_cover_the_volume_once():
    operator = radon(23)
    count = torch.zeros(operator.domain_shape)
    cut = list(parts(operator))
    assert len(cut) > 3
    for box in cut:
        count[box] += 1
    assert (count == 1).all()


GIGA = 1e9
FREE = {"cpu": 8 * GIGA, "cuda": 2 * GIGA}


@pytest.mark.parametrize(
    ("device", "needed", "place"),
    [(CUDA, 1, "device"), (CUDA, 4, "host"), (CUDA, 20, "disk"), (CPU, 4, "device"), (CPU, 20, "disk")],
)
def test_auto_takes_the_first_place_that_has_room(device, needed, place):
    found = Storage("auto", "out", FREE.get).of(device, needed * GIGA)
    assert found == Volumes(place, device, "out")
    assert Storage("host", "out", FREE.get).of(device, needed * GIGA).place == "host"


def test_a_disk_that_is_full_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("interslice.files.mapped.free_disk", lambda folder: 10)
    with pytest.raises(
        OSError, match="0.004 MB does not fit into .*, where 1e-05 MB are free: choose another --output_dir"
    ):
        Volumes("disk", CPU, tmp_path).empty((10, 10, 10))


@pytest.mark.cuda
@pytest.mark.parametrize("place", ["host", "disk"])
def test_on_a_gpu_slices_travel(place, tmp_path):
    network = torch.nn.Module()
    network.weight = torch.nn.Parameter(torch.ones(1, device="cuda"))
    network.forward = BlurringDenoiser(alpha_bars().cuda())
    expected, found = (
        sampler(num_draws=2, storage=Storage(where, tmp_path))(THICK[None], network) for where in ("device", place)
    )
    assert (expected.device.type, found.device.type) == ("cuda", "cpu")
    assert torch.allclose(found, expected.cpu(), atol=1e-4)
    assert math.isfinite(float(found.sum()))
