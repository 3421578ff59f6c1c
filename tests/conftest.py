"""A head made of ellipsoids, tiny scans and weights, and two ways to run a config: here and by command line."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import run

from bundle.prior.network import SliceUNet

ROOT = Path(__file__).parents[1]
CHANNELS, GROUPS = (8, 16), 4
INFERENCE, EVALUATE, TRAIN = (f"configs/{name}.json" for name in ("inference", "evaluate", "train"))

STRAIGHT = np.diag([1.0, 1.0, 1.0, 1.0])
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, -0.2, 0.15) @ np.diag([-1.0, 1.0, 1.0]),  # and the first axis runs right to left
    [31.0, -22.0, 7.0],
)


def pytest_addoption(parser):
    parser.addoption("--tools", action="store_true", help="run the tests that install MONAI Label, MONAI Deploy, ...")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--tools"):
        why = "installs a tool that cannot share this environment, which takes minutes: pytest --tools"
        for item in items:
            if "tools" in item.keywords:
                item.add_marker(pytest.mark.skip(reason=why))


def head_voxels(shape=(40, 36, 40), seed=0):
    """Skin, skull, brain and ventricles as nested ellipsoids with texture, 0 to about 1000, air around them."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    radius = np.sqrt(np.square(grid / np.array([0.85, 0.9, 0.95])[:, None, None, None]).sum(0))
    volume = np.zeros(shape)
    for limit, level in ((1.0, 800), (0.9, 150), (0.78, 600), (0.55, 900), (0.2, 250)):
        volume[radius < limit] = level
    texture = 60 * np.sin(9 * grid[0] + 2) * np.cos(11 * grid[1]) * np.sin(13 * grid[2] + 1)
    return (volume + texture * (radius < 1) + rng.normal(0, 8, shape)).clip(0).astype(np.float32)


def chest_voxels(shape=(24, 24, 8), seed=0):
    """The same shells in Hounsfield units: air, fat, lung-like and bone-like layers."""
    return head_voxels(shape, seed) * 1.1 - 1000


def write_volume(path, voxels, affine=None, spacing=(1.0, 1.0, 1.0)):
    """Write voxels as NIfTI; without an affine, a straight one of this spacing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1.0]) if affine is None else affine), path)
    return path


def thick_voxels(seed=0):
    """(20, 18, 6): every four slices of a small head are one, for a spacing of 1 x 1 x 4 mm."""
    return head_voxels((20, 18, 24), seed).reshape(20, 18, 6, 4).mean(3)


def cut_short(path, share=0.6):
    """Keep the first part of a file, as an interrupted download does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


class Marker:
    """Unpickled, it would create a file: what code hidden in a weights file could do."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def random_network(seed=0, channels=CHANNELS):
    """A tiny SliceUNet; MONAI's last layer starts at zero, so every weight is drawn again."""
    network = SliceUNet(channels, norm_num_groups=GROUPS)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return network


@pytest.fixture(scope="session")
def head():
    return head_voxels()


@pytest.fixture(params=[STRAIGHT, OBLIQUE], ids=["straight", "oblique"])
def head_affine(request):
    return request.param


@pytest.fixture
def thick_file(tmp_path):
    return write_volume(tmp_path / "scans" / "thick.nii.gz", thick_voxels(), spacing=(1, 1, 4))


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(random_network().state_dict(), path)
    return path


@pytest.fixture
def tiny_overrides(tiny_weights, tmp_path):
    """Returns overrides that run configs/inference.json within seconds: `overrides(dataset_dir, num_steps=3)`."""

    def overrides(dataset_dir, **others):
        return {
            "dataset_dir": str(dataset_dir),
            "output_dir": str(tmp_path / "results"),
            "checkpoint": str(tiny_weights),
            "device": "$torch.device('cpu')",
            "num_steps": 2,
            "num_draws": 1,
            "network_def#channels": list(CHANNELS),
            "network_def#norm_num_groups": GROUPS,
            "sampler#progress": False,
            "report": False,  # a page of some megabytes
        } | others

    return overrides


@pytest.fixture
def run_here(monkeypatch):
    """Runs an id of a config in this process, from the repository root: `run_here("inference", configs, overrides)`."""
    monkeypatch.chdir(ROOT)

    def run_config(run_id, config_file, overrides):
        run(run_id, config_file=config_file, logging_file=False, **overrides)

    return run_config


@pytest.fixture
def run_bundle():
    """Runs `python -m monai.bundle run ID --config_file ... --key value` from the repository root, as a user does."""

    def run_command(run_id, config_file, overrides):
        command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(config_file)]
        for key, value in overrides.items():
            command += [f"--{key}", str(value)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=300)

    return run_command


def whole_message(error):
    """The texts of an exception and of those it came from: what the command line prints, without the code lines."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.fixture(scope="session")
def chromium():
    """Chromium without a window; skips where there is none."""
    from tests.browser import browser  # selenium is needed by these tests alone

    with browser() as opened:
        yield opened


@pytest.fixture(scope="session")
def full(tmp_path_factory):
    """A report page with all that it can show: its path, and what is in it."""
    from tests.report_pages import full_page

    path = tmp_path_factory.mktemp("page") / "report.html"
    return path, full_page(path)


@pytest.fixture
def full_view(chromium, full):
    """The full page, opened in a wide window."""
    chromium.resize(1280, 900)
    return chromium.open(full[0])
