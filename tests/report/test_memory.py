"""The estimate of a run's memory: refused before any work, in words that name the number and what to change."""

import json
import os
import subprocess
import sys

import pytest
import torch
from monai.bundle import ConfigParser

from interslice.files.limits import Limits
from interslice.files.memory import array_bytes, largest, with_more
from interslice.noise.field import SlerpNoise
from interslice.physics.linear_solvers import conjugate_gradient, descent_bytes
from interslice.physics.total_variation import minimise_total_variation, total_variation_bytes
from interslice.prior.activations import BYTES_PER_PIXEL, WORKSPACE, _Alive, activation_bytes
from interslice.prior.slices import SlicePrior
from interslice.report import memory
from interslice.report.memory import CheckMemoryd
from interslice.sampling.data_consistency import NullSpace, Proximal
from interslice.usage import UsageError
from scripts.studies.memory import MARKER, table_of
from scripts.studies.tables import fill
from tests.sampling.test_inferers_memory import NETWORK, AliveVolumes
from tests.support.helpers import measured, normal, sampler
from tests.support.scans import INFERENCE, ROOT, random_network, thick_voxels, write_volume


class Asked:
    """A prior that takes what it is told to."""

    def __init__(self, prior, size):
        self.prior, self.size, self.alpha_bars = prior, size, prior.alpha_bars

    def working_bytes(self, network, shape, axes, gradient=False):
        return self.size


def checked(limit, consistency=None, network_bytes=0.0, **others):
    inferer = sampler(SlerpNoise(), consistency or NullSpace(), num_steps=2, num_draws=others.pop("num_draws", 1))
    inferer.prior = Asked(inferer.prior, network_bytes)
    check = CheckMemoryd("image", inferer, NETWORK, inferer, Limits(max_memory=limit), **({"report": False} | others))
    check({"image": measured(normal(64, 64, 20), (1.0, 1.0, 5.0))})


def test_what_fits_passes_and_what_does_not_is_refused_with_the_number(tmp_path):
    checked(1.0)
    words = r"takes about 5.3 GB of memory \(network 5.0 GB\), and 1.0 GB are available: --slice_batch_size 1, larger"
    with pytest.raises(ValueError, match=words):
        checked(1.0, network_bytes=5e9)
    checked("off", network_bytes=1e15)


def test_what_nearly_fits_goes_on():
    needed = 5e9 + memory.OVERHEAD
    checked(0.92 * needed / 1e9, network_bytes=5e9)
    with pytest.raises(ValueError, match="to reconstruct it takes"):
        checked(0.88 * needed / 1e9, network_bytes=5e9)


def test_the_disk_is_asked(monkeypatch):
    monkeypatch.setattr(memory, "free_disk", lambda folder: 1000)
    with pytest.raises(
        ValueError, match="its results take about .* and 0.001 MB are free at .*: choose another --output_dir"
    ):
        checked(10.0)
    monkeypatch.setattr(memory, "free_disk", lambda folder: None)
    checked(10.0)


# -- what parts say of themselves is what they take ------------------------------------------------
SHAPE = (24, 20, 22)


def alive(call):
    """Arrays of a volume's size that a call holds at once, its arguments not counted."""
    with torch.no_grad(), AliveVolumes(array_bytes(SHAPE)) as counted:
        call()
    return counted.peak


def test_conjugate_gradients_take_what_they_say():
    b, x = torch.rand(SHAPE), torch.rand(SHAPE)
    peak = alive(lambda: conjugate_gradient(lambda z: 2 * z, b, x, 3))
    assert peak <= descent_bytes(1) <= peak + 3


def test_total_variation_takes_what_it_says():
    y, x = torch.rand(SHAPE), torch.rand(SHAPE)
    with torch.no_grad(), _Alive() as counted:
        minimise_total_variation(lambda z: z + 0, lambda z: z + 0, 1.0, y, x, 0.1, 3)
    said = total_variation_bytes(array_bytes(SHAPE), array_bytes(SHAPE))
    assert counted.peak <= said <= 1.6 * counted.peak


@pytest.mark.parametrize("consistency", [NullSpace(), Proximal(0.1, iterations=3)], ids=["closed", "conjugate"])
@pytest.mark.parametrize(("eta", "num_draws"), [(1.0, 1), (0.5, 1), (1.0, 3), (0.5, 3)])
def test_the_sampler_takes_what_it_says(consistency, eta, num_draws):
    inferer = sampler(SlerpNoise(), consistency, slice_batch_size=4, num_steps=3, eta=eta, num_draws=num_draws)
    measurement = measured(normal(40, 36, 8), (1.0, 1.0, 5.0))
    operator = measurement.meta["operator"]
    volume = array_bytes(operator.domain_shape)
    with AliveVolumes(volume) as counted:
        inferer.reconstruct(measurement, NETWORK)
    inferer.prior = Asked(inferer.prior, 0.0)
    said = sum(inferer.working_bytes(measurement[0], operator, (1.0, 1.0, 1.0), NETWORK).values()) / volume
    assert counted.peak <= said <= 2.5 * counted.peak


@pytest.mark.parametrize("gradient", [False, True])
def test_a_network_is_asked_without_being_run(gradient):
    network = random_network()
    x, t = torch.rand(3, 1, 32, 48, requires_grad=gradient), torch.zeros(3, dtype=torch.long)
    with torch.set_grad_enabled(gradient), _Alive() as counted:
        output = network(x, t)
        if gradient:
            torch.autograd.grad(output, x, torch.ones_like(output))
    said = activation_bytes(network, (3, 1, 32, 48), gradient)
    assert said == pytest.approx(WORKSPACE * counted.peak, rel=0.2)
    assert activation_bytes(network, (6, 1, 32, 48), gradient) == pytest.approx(2 * said, rel=0.05)


def test_a_network_that_cannot_be_asked_counts_as_a_shipped_one():
    class Odd(torch.nn.Module):
        def forward(self, x, t):
            return x * float(x.sum())  # there is no value to be had

    assert activation_bytes(Odd(), (2, 1, 10, 10)) == WORKSPACE * BYTES_PER_PIXEL * 200


def test_the_largest_plane_and_batch_count():
    prior = SlicePrior(torch.linspace(0.9, 0.1, 10), slice_batch_size=4, multiple=2)
    network = random_network()
    said = prior.working_bytes(network, (40, 16, 3), (0, 2))
    assert said == activation_bytes(network, (3, 1, 40, 16))
    assert prior.working_bytes(network, (40, 16, 3), (0,)) == activation_bytes(network, (4, 1, 16, 4)) < said


def test_parts_add_up():
    assert with_more({"a": 1.0}, a=2.0, b=3.0) == {"a": 3.0, "b": 3.0}
    assert largest({"a": 1.0, "b": 1.0}, {"a": 1.5}) == {"a": 1.0, "b": 1.0}


# -- whole runs ------------------------------------------------------------------------------------
def test_every_task_states_what_it_takes(tmp_path, monkeypatch):
    """Nothing is missing on the way from a config to the estimate."""
    monkeypatch.chdir(ROOT)
    for names in (["inference"], ["inference", "task_svct"], ["inference", "task_csmri"]):
        parser = ConfigParser()
        parser.read_config([f"configs/{n}.json" for n in names])
        parser.update({"output_dir": str(tmp_path), "device": "$torch.device('cpu')"})
        assert isinstance(parser.get_parsed_content("check_memory"), CheckMemoryd)


@pytest.mark.slow
def test_a_case_that_is_too_large_is_refused_by_name_and_the_other_is_done(tmp_path, tiny_overrides):
    """In a process whose addresses are limited, as `ulimit -v` does."""
    write_volume(tmp_path / "scans" / "good.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    large = torch.rand(400, 400, 90).numpy()
    large[:40] = 0
    write_volume(tmp_path / "scans" / "large.nii.gz", large, spacing=(0.5, 0.5, 4))
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)); sys.argv = sys.argv[1:]\n"
    code += (
        "import runpy; sys.argv.insert(0, ''); runpy.run_module('monai.bundle', run_name='__main__', alter_sys=True)"
    )
    options = tiny_overrides(tmp_path / "scans", num_draws=4, slice_batch_size=64, num_steps=1)
    words = [w for k, v in options.items() for w in (f"--{k}", str(v))]
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "inference", "--config_file", INFERENCE, *words],
        cwd=ROOT, capture_output=True, encoding="utf-8", env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr[-2000:]
    last = done.stderr.strip().splitlines()[-1]
    assert "large.nii.gz: to reconstruct it takes about" in last and "larger voxels (--operator#spacing)" in last
    assert [p.parent.name for p in tmp_path.rglob("*_recon.nii.gz")] == ["good"]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are Linux's")
@pytest.mark.parametrize("number", [1, 7, 10, 13], ids=["mri", "network", "ct", "k-space"])
def test_the_estimate_is_that_of_the_peak(number):
    """No more than a tenth below, which is what is let pass, and not more than 2.5 times above: of small runs."""
    command = [sys.executable, "-m", "scripts.studies.memory", "--run", str(number)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0.9 <= json.loads(done.stdout.splitlines()[-1])["ratio"] <= 2.5


def test_a_limit_below_what_libraries_take_has_no_empty_brackets():
    with pytest.raises(ValueError, match=r"MB of memory, and 1 MB are available") as refused:
        checked(0.001)
    assert "()" not in str(refused.value)


def test_baselines_that_are_none_are_refused():
    with pytest.raises(UsageError, match="baselines must be nothing or reconstructions by name, @baselines, got 2.5"):
        checked(1.0, baselines=2.5)


def test_the_page_holds_what_the_json_says(tmp_path):
    text, page = (ROOT / "docs/reference/limits.md").read_text(encoding="utf-8"), tmp_path / "limits.md"
    page.write_text(text, encoding="utf-8")
    assert fill(page, MARKER, table_of(json.loads((ROOT / "docs/memory.json").read_text(encoding="utf-8"))))
    assert page.read_text(encoding="utf-8") == text
