"""A head made of ellipsoids, tiny scans and weights, and what tests of whole runs share."""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from interslice.prior.network import SliceUNet

ROOT = Path(__file__).parents[2]
CHANNELS, GROUPS = (8, 16), 4
INFERENCE, EVALUATE, TRAIN = (f"configs/{name}.json" for name in ("inference", "evaluate", "train"))

STRAIGHT = np.diag([1.0, 1.0, 1.0, 1.0])
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, -0.2, 0.15) @ np.diag([-1.0, 1.0, 1.0]),  # and the first axis runs right to left
    [31.0, -22.0, 7.0],
)


THICK = OBLIQUE @ np.diag([1.0, 1.0, 4.0, 1.0])
TIMES = np.array([1.0, 1.4, 0.7, 1.1])
"""Brightness of the volumes of a series."""


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


def write_series(path, times=TIMES, affine=THICK, intent=0):
    """A thick scan at several times, of different brightness, as 4-D NIfTI; 2.5 s apart, from 3 s on. The voxels."""
    voxels = (thick_voxels()[..., None] * times).astype(np.float32)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4], image.header["intent_code"], image.header["toffset"] = 2.5, intent, 3.0
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return voxels


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


def random_network(seed=0, channels=CHANNELS, **about):
    """A tiny SliceUNet; MONAI's last layer starts at zero, so every weight is drawn again."""
    network = SliceUNet(channels, norm_num_groups=GROUPS, **about)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    return network


def whole_message(error):
    """The texts of an exception and of those it came from: what the command line prints, without the code lines."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def tiny_training(folder, **others):
    """Settings of a training of two steps an epoch on four heads, which it writes into `folder`."""
    for seed, name in enumerate("abcd"):
        write_volume(folder / "heads" / f"{name}.nii.gz", head_voxels((20, 24, 16), seed), spacing=(2, 2, 2))
    return {
        "dataset_dir": str(folder / "heads"), "device": "$torch.device('cpu')", "epoch_length": 2,
        "network_def#channels": list(CHANNELS), "network_def#norm_num_groups": GROUPS, "patch_size": 16,
        "batch_size": 4, "validate#cut#num_patches": 4, "validate#levels": [100, 600],
        "sample_grid#num_samples": 2, "sample_grid#size": 16, "sample_grid#num_steps": 2,
    } | others  # fmt: skip
