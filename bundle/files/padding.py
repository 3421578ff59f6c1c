"""Padding: values that a scanner puts where it measured nothing, such as the corners around a round field of view.

DICOM states it in stored values: PixelPaddingValue, and with PixelPaddingRangeLimit all values from one to the other
(PS3.3, C.7.5.1.1.2). Other files, and many DICOM ones, do not say: a value below -1024, where no CT and no MR signal
lies (-3024, -2048, -32768, ...), is padding if it is the volume's least, stands in half of its corners, and lies far
below the rest. Padding becomes the background: the lowest real value but for a thousandth, in CT that of air.
"""

from __future__ import annotations

import numpy as np
import torch

from bundle.files.dicom_stack import Stack

LEAST_REAL = -1024.0
"""HU of air, less the noise that a 12-bit image can hold."""
CORNERS = 4
"""Of eight: as many hold padding that is not stated."""
FAR = 0.25
"""Times the span of the real values (1st to 99th percentile): nearer to them, a stated value is background already."""
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
    for padding in (None if stated is None else (volume >= stated[0]) & (volume <= stated[1]), _unstated(volume)):
        if padding is None or not padding.any() or padding.all():
            continue
        values = volume[padding]
        least, most = float(values.min()), float(values.max())
        real = volume[~padding]
        real = real[:: max(1, real.numel() // MAX_SAMPLES)].cpu().numpy()
        low, some, high = (float(v) for v in np.percentile(real, [1, 10, 99]))
        if not max(low - most, least - high) > FAR * (high - low):
            continue
        if most < LEAST_REAL <= some:  # what lies between the two was made by interpolation
            padding, real = padding | (volume < LEAST_REAL), real[real >= LEAST_REAL]
        background = float(np.percentile(real, BACKGROUND, method="lower"))
        volume = torch.where(padding, background, volume)
        value = f"{least:g}" if least == most else f"{least:g} to {most:g}"
        said.append(
            f"padding ({value}) in {float(padding.double().mean()):.1%} of the voxels is set to {background:g}, the "
            "background"
        )
    return volume, "; ".join(said)


def _unstated(volume: torch.Tensor) -> torch.Tensor | None:
    """Where padding is that no header states."""
    corners = volume[..., [0, -1], :, :][..., [0, -1], :][..., [0, -1]]
    least = corners.min()
    if not least < LEAST_REAL or (corners == least).sum() < CORNERS or volume.min() < least:
        return None
    return volume == least


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
