"""Padding: values that a scanner puts where it measured nothing, such as the corners around a round field of view.

DICOM states it in stored values: PixelPaddingValue, and with PixelPaddingRangeLimit all values from one to the other
(PS3.3, C.7.5.1.1.2). It is replaced where it stands out: below -1024, where no CT and no MR signal lies, negative in a
volume that is not, or above the real values. Else it is background already, as the 0 around a brain whose skull is
stripped.

Other files, and many DICOM ones, do not say: a value below -1024 (-3024, -2048, -32768, ...) that very many voxels have
exactly, some of them at the volume's border, or that stands in half of its corners, is padding, and so is all below it.

Both only far from the rest. Padding becomes the background: the lowest real value but for a thousandth, in CT that of
air.
"""

from __future__ import annotations

import numpy as np
import torch

from interslice.files.dicom_stack import Stack

LEAST_REAL = -1024.0
"""HU of air, less the noise that a 12-bit image can hold."""
SHARE = 0.005
"""Of the voxels: as many hold padding that is not stated; fewer do not move the scale."""
CORNERS = 4
"""Of eight: or as many hold it."""
FAR = 0.25
"""Times the span of the real values (1st to 99th percentile): nearer to them, a value is background already."""
BACKGROUND = 0.1
"""Percentile of the real values."""
MAX_SAMPLES = 2_000_000
"""Percentiles are taken over about this many evenly spaced voxels."""


def without_padding(volume: torch.Tensor, stated: torch.Tensor | None = None) -> tuple[torch.Tensor, str]:
    """A volume (..., X, Y, Z) with background for padding, and in words what was replaced: nothing if there is none.

    Args:
        volume: not changed.
        stated: (2, Z), lowest and highest value of padding in each slice; None if not stated.
    """
    said = []
    if stated is not None:
        volume, words = _freed(volume, (volume >= stated[0]) & (volume <= stated[1]))
        said.append(words)
    for value in _candidates(volume):
        volume, words = _freed(volume, volume <= value)
        said.append(words)
        if words:
            break
    return volume, "; ".join(filter(None, said))


def _freed(volume: torch.Tensor, padding: torch.Tensor) -> tuple[torch.Tensor, str]:
    """The volume with background where `padding` is, and what was done in words; as it is where that is no padding."""
    finite = volume.isfinite()  # others are refused later
    padding = padding & finite
    real = volume[~padding & finite]
    if not padding.any() or not real.numel():
        return volume, ""
    least, most = (float(v) for v in volume[padding].aminmax())
    real = real[:: max(1, real.numel() // MAX_SAMPLES)].cpu().numpy()
    if most < LEAST_REAL <= np.percentile(real, 10):  # what lies between the two was made by interpolation
        padding, real = padding | ((volume < LEAST_REAL) & finite), real[real >= LEAST_REAL]
    low, high = (float(v) for v in np.percentile(real, [1, 99]))
    below = low - most if most < LEAST_REAL or most < 0 <= low else 0.0
    if not max(below, least - high) > FAR * (high - low):
        return volume, ""
    background = float(np.percentile(real, BACKGROUND, method="lower"))
    value = f"{least:g}" if least == most else f"{least:g} to {most:g}"
    return torch.where(padding, background, volume), (
        f"padding ({value}) in {float(padding.double().mean()):.1%} of the voxels is set to {background:g}, the "
        "background"
    )


def _candidates(volume: torch.Tensor) -> list[float]:
    """Values that may be padding which no header states, the highest first."""
    values, counts = volume[(volume < LEAST_REAL) & volume.isfinite()].unique(return_counts=True)
    faces = torch.cat([volume.select(axis, end).flatten() for axis in (-3, -2, -1) for end in (0, -1)])
    corners = volume[..., [0, -1], :, :][..., [0, -1], :][..., [0, -1]].flatten()
    common = (counts >= SHARE * volume.numel()) & torch.isin(values, faces)
    cornered = (values[:, None] == corners).sum(1) >= CORNERS
    return values[common | cornered].flip(0).tolist()


def stated_padding(stack: Stack | None) -> torch.Tensor | None:
    """(2, Z) lowest and highest value of padding, rescaled as the voxels of each slice are; None if not stated."""
    if stack is None or (value := stack.header.get("PixelPaddingValue")) is None:
        return None
    limit = stack.header.get("PixelPaddingRangeLimit")
    bits = int(stack.header.get("BitsAllocated", 16))
    signed = bool(stack.header.get("PixelRepresentation", 0))
    stored = np.sort([_as_stored(int(v), bits, signed) for v in (value, value if limit is None else limit)])
    slope, intercept = np.array([s.rescale for s in stack.slices], np.float64).T
    ends = np.sort(stored[:, None] * slope + intercept, axis=0)
    return torch.from_numpy(ends.astype(np.float32))  # rounded as the voxels are


def _as_stored(value: int, bits: int, signed: bool) -> int:
    """A value that a header gives in the wrong one of the two whole-number types, in the pixels' own."""
    value %= 1 << bits
    return value - (1 << bits) if signed and value >= 1 << (bits - 1) else value
