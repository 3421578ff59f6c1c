"""Whole-head training volumes of any contrast from averaged tissue probability maps.

The ICBM averages have no skull and no sharp sulci; a scan has both. Following the idea of domain
randomisation (Billot et al., "SynthSeg", Medical Image Analysis 2023), each head draws at random

1. a shape: flip, affine, and smooth displacement fields at three scales;
2. a sharp anatomy: tissue maps p become softmax(k log p + folds), `folds` being band-pass noise that
   turns the averaged cortex into gyri and sulci;
3. layers around the brain at random, smoothly varying depths: CSF, inner table, marrow, outer table,
   muscle, fat, skin; below the brain, irregular blobs of the same tissues;
4. lesions, in half of the heads: blobs of white matter, more of them beside the ventricles;
5. tissue intensities in the order of a contrast (contrasts.py), and texture;
6. an acquisition: blur as of coarser voxels in one of three, a bias field, Rician noise. One head of six shows the
   brain alone, as scans do after brain extraction.

Shapes are (X, Y, Z) on a 1 mm grid; tissue maps are in [0, 1]; the result is in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.blocks import Warp
from monai.networks.layers import GaussianFilter
from monai.transforms import RandBiasField, RandRicianNoise
from scipy.ndimage import distance_transform_edt

from scripts.data.contrasts import contrast_of, draw_tissues
from scripts.data.deformation import displacement, smooth_noise, uniform

BLOB_TISSUES = ("air", "bone", "muscle", "muscle", "fat", "marrow", "csf")
INNER = ("wm", "gm", "csf", "lesion")
SLOW = {"T1": 0.6, "T2": -0.3, "FLAIR": -0.15, "PD": 0.0, "random": 0.0}
"""Largest power of the average's slow contrast in a head: deep grey nuclei and brain stem, which the maps lack.
Of signs that do not turn the order of the tissues."""


class HeadSynthesiser:
    """Draws heads from white- and grey-matter probability maps and the averaged T1 they belong to.

    Args:
        wm, gm: tissue probabilities, (X, Y, Z) tensors in [0, 1] on a 1 mm grid.
        t1: averaged T1 of the same grid, any scale; its positive voxels are the brain.
    """

    def __init__(self, wm: torch.Tensor, gm: torch.Tensor, t1: torch.Tensor) -> None:
        if not wm.shape == gm.shape == t1.shape:
            raise ValueError(
                f"the maps must share one grid; got {tuple(wm.shape)}, {tuple(gm.shape)}, {tuple(t1.shape)}"
            )
        brain = (t1 > 0).float()
        self.shape = tuple(t1.shape)
        self.maps = torch.stack([wm, gm, brain, t1 / t1.max()])

    def __call__(self, seed: int, contrast: str | None = None) -> torch.Tensor:
        """Return one head, an (X, Y, Z) float tensor in [0, 1], that depends on the arguments alone.

        Args:
            seed: number of the head.
            contrast: one of `contrasts.WEIGHTS`, instead of the one that belongs to the seed.
        """
        return self.with_tissues(seed, contrast)[0]

    def with_tissues(self, seed: int, contrast: str | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The head, and the shares (4, X, Y, Z) of white matter, grey matter, CSF and lesions in its brain."""
        contrast = contrast_of(seed) if contrast is None else contrast
        tissue, *anatomy = self._anatomy(seed)
        image = acquire(self._paint(tissue, *anatomy, contrast), self.rng, seed)
        brain = anatomy[0]
        if self._uniform(0, 1) < 1 / 6:
            image = image * (brain > 0.5)
        return image / image.max(), tissue * (brain > 0.5)

    def contrasts(self, seed: int, names: Sequence[str]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """One head scanned with several contrasts (X, Y, Z), and its shares of tissues as in `with_tissues`.

        Each scan has its own texture, resolution, bias field and noise; all show the whole head.
        """
        tissue, *anatomy = self._anatomy(seed)
        scans = [
            acquire(self._paint(tissue, *anatomy, name), self.rng, len(names) * seed + n)
            for n, name in enumerate(names)
        ]
        return [scan / scan.max() for scan in scans], tissue * (anatomy[0] > 0.5)

    def _anatomy(self, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
        """What head number `seed` is made of: tissues (4, X, Y, Z), brain, the average, labels and their names."""
        self.rng = torch.Generator().manual_seed(seed)
        wm, gm, brain, t1 = self._deform(self.maps)
        tissue = self._lesions(self._sharpen(wm, gm, brain), brain > 0.5)
        return tissue, brain, t1, *self._layers(brain > 0.5)

    # -- random numbers ---------------------------------------------------------------------------
    def _uniform(self, low: float, high: float) -> float:
        return uniform(self.rng, low, high)

    def _smooth(self, scale_mm: float, channels: int = 1) -> torch.Tensor:
        return smooth_noise(self.rng, self.shape, scale_mm, channels)

    # -- the six steps ----------------------------------------------------------------------------
    def _deform(self, maps: torch.Tensor) -> torch.Tensor:
        if self._uniform(0, 1) < 0.5:
            maps = maps.flip(1)
        ddf = displacement(self.rng, self.shape, 0.15, (0.88, 1.08), ((48.0, 3.0), (18.0, 1.8), (8.0, 0.8)))
        return Warp("bilinear", "zeros")(maps[None], ddf[None])[0].clamp_(0, 1)

    def _sharpen(self, wm: torch.Tensor, gm: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        """Probabilities (3, X, Y, Z) of white matter, grey matter and CSF with sharp borders."""
        p = torch.stack([wm, gm, (brain - wm - gm).clamp(0, 1)])
        k, fold = self._uniform(1.5, 5.0), self._uniform(0.5, 2.0)
        # Sulci lie where the average is undecided: the noise moves the borders there and nowhere else.
        folds = torch.cat([self._smooth(s, 3) for s in (5.0, 3.0)]).view(2, 3, *self.shape).mean(0)
        logits = k * (torch.log(p + 0.03) + fold * folds * (1 - p.max(0).values))
        # Narrow sulci: the zero level set of a smooth field is a set of thin sheets; cut them through cortex.
        sheets = torch.relu(1 - self._smooth(self._uniform(9.0, 14.0))[0].abs() / self._uniform(0.1, 0.2))
        logits[2] += k * self._uniform(2.0, 8.0) * sheets * gm
        blur = GaussianFilter(3, self._uniform(0.35, 0.7))
        return blur(logits.softmax(0)[None])[0]

    def _lesions(self, tissue: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        """The three tissues and, as a fourth, lesions in the place of white matter."""
        wm, csf = tissue[0], tissue[2]
        lesion = torch.zeros_like(wm)
        share = math.exp(self._uniform(math.log(5e-4), math.log(0.02)))  # of white matter
        if self._uniform(0, 1) < 0.5:
            inside = (wm > 0.6) & brain
            score = self._smooth(self._uniform(6.0, 14.0))[0] + 0.25 * self._smooth(4.0)[0]
            score = score + self._uniform(0.5, 2.5) * near_ventricles(csf, brain)
            if inside.any():
                edge = np.quantile(score[inside].numpy()[::5], 1 - share)
                lesion = torch.sigmoid(6 * (score - edge)) * wm
        return torch.stack([wm - lesion, tissue[1], csf, lesion])

    def _layers(self, brain: torch.Tensor) -> tuple[torch.Tensor, list[str]]:
        """Integer labels outside the brain: shells by distance, and blobs of tissue below it."""
        nx, ny, nz = self.shape
        column = brain.any(2)
        top, bottom = brain.any(0).any(0).nonzero().flatten()[[-1, 0]].tolist()
        base = bottom + self._uniform(0.25, 0.5) * (top - bottom)
        # The head goes on below the brain: extrude its outline, narrowed by a smooth random margin.
        depth = torch.from_numpy(distance_transform_edt(column.numpy())).float()
        margin = (8 + 6 * self._smooth(40.0)[0]).clamp_min(2)
        below = (torch.arange(nz) < base) & (depth[..., None] > margin)
        inside = brain | below
        d = torch.from_numpy(distance_transform_edt(~inside.numpy())).float()
        d = d + 0.5 * self._smooth(9.0)[0]

        names = ["air"]
        labels = torch.zeros(self.shape, dtype=torch.long)
        edge = torch.zeros(self.shape)
        shells = (("csf", 0.5, 4.0), ("bone", 1.0, 2.5), ("marrow", 0.0, 4.5), ("bone", 1.0, 2.5),
                  ("muscle", 0.0, 5.0), ("fat", 1.5, 6.0), ("skin", 1.0, 2.0))  # fmt: skip
        remaining = ~inside
        for name, low, high in shells:
            mean = self._uniform(low, high)
            edge = edge + (mean * (1 + 0.4 * self._smooth(35.0)[0])).clamp_min(0)
            names.append(name)
            labels[remaining & (d < edge)] = len(names) - 1
            remaining &= d >= edge
        # Blobs: the regions where one of several smooth noises is the largest.
        scale = self._uniform(9, 20)
        owner = torch.stack([self._smooth(scale)[0] + 0.35 * self._smooth(5.0)[0] for _ in BLOB_TISSUES]).argmax(0)
        first = len(names)
        names += BLOB_TISSUES
        blob = below & ~brain
        labels[blob] = owner[blob] + first
        return labels, names

    def _paint(self, tissue, brain, t1, labels, names, contrast) -> torch.Tensor:
        table = draw_tissues(self.rng, contrast)
        fine = torch.stack([self._smooth(s)[0] for s in (1.5, 3.0, 7.0)])
        mix = torch.softmax(torch.randn(3, generator=self.rng), 0)
        texture = torch.einsum("s,sxyz->xyz", mix, fine)
        slow = (t1 / (t1 * brain).sum() * brain.sum()).clamp(0.6, 1.3) ** (SLOW[contrast] * self._uniform(0.0, 1.0))
        inner = sum(p * table[n].mean * (1 + table[n].texture * texture) for p, n in zip(tissue, INNER)) * slow
        level = torch.tensor([table[n].mean for n in names])[labels]
        grain = torch.tensor([table[n].texture for n in names])[labels]
        outer = GaussianFilter(3, self._uniform(0.35, 0.7))((level * (1 + grain * texture))[None, None])[0, 0]
        return torch.lerp(outer, inner, brain.clamp(0, 1)).clamp_min(0)


def acquire(image: torch.Tensor, rng: torch.Generator, seed: int) -> torch.Tensor:
    """A scan of tissue intensities (X, Y, Z): resolution, bias field, noise, and a scale that ends at 1."""
    if uniform(rng, 0, 1) < 1 / 3:
        image = GaussianFilter(3, [uniform(rng, 0.2, 0.9) for _ in range(3)])(image[None, None])[0, 0]
    reach = uniform(rng, 0.04, 0.25)
    bias = RandBiasField(prob=1, degree=3, coeff_range=(-reach, reach)).set_random_state(seed)
    top = np.quantile(image.numpy()[::3, ::3, ::3], 0.995)  # noise is a share of what is bright
    std = float(top) * 0.07 * uniform(rng, 0, 1) ** 2
    noise = RandRicianNoise(prob=1, std=std, sample_std=False).set_random_state(seed)
    image = torch.as_tensor(noise(bias(image[None])))[0]
    return (image / np.quantile(image.numpy()[::3, ::3, ::3], 0.999)).clamp(0, 1).float()


def near_ventricles(
    csf: torch.Tensor, brain: torch.Tensor, coarse: int = 4, deep: float = 18.0, reach: float = 8.0
) -> torch.Tensor:
    """exp(-distance / reach) from CSF that lies more than `deep` within the brain; (X, Y, Z), lengths in voxels.

    Args:
        csf: share of CSF in each voxel.
        brain: where the brain is, with its ventricles.
        coarse: distances are computed on blocks of so many voxels, and interpolated.
    """
    fluid, inside = (F.avg_pool3d(x.float()[None, None], coarse, ceil_mode=True)[0, 0] for x in (csf, brain))
    depth = coarse * distance_transform_edt((inside > 0.5).numpy())
    ventricles = (fluid > 0.3).numpy() & (depth > deep)
    if not ventricles.any():
        return torch.zeros_like(csf)
    blocks = np.maximum(distance_transform_edt(~ventricles) - 0.5, 0)  # from the border, not from the centre
    near = torch.from_numpy(np.exp(-coarse * blocks / reach)).float()
    return F.interpolate(near[None, None], scale_factor=coarse, mode="trilinear")[0, 0][tuple(map(slice, csf.shape))]
