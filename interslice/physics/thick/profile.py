"""Slice profiles: how much of the signal at each depth a thick slice takes.

    box         1 for |z| < t / 2
    gaussian    exp(-4 ln 2 (z / t)^2)
    sinc        FT of the pulse sinc(B s) cos^2(pi s / T), |s| < T / 2, B T = 4, scaled to full width t at half maximum
    Table       measured: a response at each depth, straight lines between, nothing beyond its ends

z is the depth in mm from the middle of the slice, t the slice's thickness in mm: the width at half maximum. The sinc
is the response of a slice-selective pulse of two side lobes a side with a Hann window, for small flip angles: a box
with soft edges, which the FT of its window, a rounded step, has closed in sine integrals. Hoult, "The solution of the
Bloch equations in the presence of a varying B1 field", Journal of Magnetic Resonance 35 (1979), says when that holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.special import sici

from interslice.files.carried import carried

PROFILES = ("box", "gaussian", "sinc")
BANDWIDTH_TIME = 4.0
"""B T of the pulse: two zeros of the sinc on each side."""
SINC_REACH = 1.5
"""Half the span of the sinc's response, in thicknesses; beyond is less than a thousandth of it."""
POINTS = 1201
"""At which the sinc's response is tabulated."""


@carried
@dataclass(frozen=True)
class Table:
    """A measured profile.

    Attributes:
        depths: mm off the middle of the slice, rising.
        response: at each, in any unit.

    Raises:
        ValueError: what `check_table` says.
    """

    depths: tuple[float, ...]
    response: tuple[float, ...]

    def __post_init__(self) -> None:
        check_table(self.depths, self.response)

    @property
    def width(self) -> float:
        """mm between the outermost places at half of the maximum."""
        return half_width(np.array(self.depths), np.array(self.response))

    def __str__(self) -> str:
        return f"a table of {len(self.depths)} depths, {self.width:.3g} mm wide"


Profile = str | Table


def check_table(depths: Sequence[float], response: Sequence[float]) -> None:
    """Raise ValueError unless these are a profile: three depths and more, rising, and mostly positive responses."""
    z, p = np.asarray(depths, float), np.asarray(response, float)
    if len(z) != len(p) or len(z) < 3:
        raise ValueError(f"a slice profile has a response at three depths or more, got {len(z)} and {len(p)}")
    if not (np.isfinite(z).all() and np.isfinite(p).all()):
        raise ValueError("a slice profile has numbers alone: a depth or response is not finite")
    if not (np.diff(z) > 0).all():
        at = int(np.argmax(np.diff(z) <= 0))
        raise ValueError(f"the depths of a slice profile rise, but {z[at]:g} mm is followed by {z[at + 1]:g} mm")
    if not p.max() > 0 or p.min() < -0.5 * p.max():
        raise ValueError(f"a slice profile is mostly positive, but this one reaches from {p.min():g} to {p.max():g}")
    low, high = half_places(z, p)
    if not low < 0 < high:
        raise ValueError(
            f"depths count from the middle of the slice, but half of the maximum is reached from {low:.3g} to "
            f"{high:.3g} mm: subtract the middle"
        )


def cumulative(profile: Profile, z: torch.Tensor, thickness: float) -> torch.Tensor:
    """The integral of a profile up to depths z (any shape, mm, float64), but for a factor and a constant."""
    if isinstance(profile, Table):
        return _integral(np.array(profile.depths), np.array(profile.response), z)
    if profile == "box":
        return z.clamp(-thickness / 2, thickness / 2)
    if profile == "gaussian":
        return torch.erf(z * (2 * math.sqrt(math.log(2)) / thickness))
    if profile == "sinc":
        depths, response = sinc_response()
        return _integral(depths * thickness, response, z)
    raise ValueError(f"profile must be one of {PROFILES} or a table, got {profile!r}")


def response(profile: Profile, z: np.ndarray, thickness: float) -> np.ndarray:
    """The profile at depths z in mm, 1 in the middle (of a table: its own units)."""
    if isinstance(profile, Table):
        return np.interp(z, profile.depths, profile.response, left=0.0, right=0.0)
    if profile == "box":
        return (np.abs(z) <= thickness / 2).astype(float)
    if profile == "gaussian":
        return np.exp(-4 * math.log(2) * np.square(z / thickness))
    depths, values = sinc_response()
    return np.interp(z, depths * thickness, values, left=0.0, right=0.0)


def reach(profile: Profile, thickness: float) -> float:
    """Half the span in mm outside which a profile has nothing, or less than half a percent."""
    if isinstance(profile, Table):
        return max(-profile.depths[0], profile.depths[-1])
    return thickness * {"box": 0.5, "gaussian": 1.2, "sinc": SINC_REACH}[profile]


@lru_cache(maxsize=1)
def sinc_response() -> tuple[np.ndarray, np.ndarray]:
    """Depths in thicknesses and the response of the windowed sinc pulse there, 1 in the middle."""

    def selected(f):
        """FT of a Hann-windowed sinc of bandwidth 1 and length BANDWIDTH_TIME, at frequency f."""

        def truncated(f):
            half = math.pi * BANDWIDTH_TIME
            return (sici(half * (f + 0.5))[0] - sici(half * (f - 0.5))[0]) / math.pi

        side = 1 / BANDWIDTH_TIME
        return 0.5 * truncated(f) + 0.25 * (truncated(f - side) + truncated(f + side))

    depths = np.linspace(-SINC_REACH, SINC_REACH, POINTS)
    width = half_width(depths, selected(depths))
    values = selected(depths * width)
    return depths, values / values.max()


def half_width(depths: np.ndarray, values: np.ndarray) -> float:
    """Full width at half maximum."""
    low, high = half_places(depths, values)
    return high - low


def half_places(depths: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """The outermost places at half of the maximum, by straight lines between the points."""
    half = values.max() / 2
    above = np.flatnonzero(values >= half)
    first, last = above[0], above[-1]
    low, high = depths[first], depths[last]
    if first > 0:
        low = np.interp(half, values[first - 1 : first + 1], depths[first - 1 : first + 1])
    if last < len(depths) - 1:
        high = np.interp(half, values[last : last + 2][::-1], depths[last : last + 2][::-1])
    return float(low), float(high)


def _integral(depths: np.ndarray, values: np.ndarray, z: torch.Tensor) -> torch.Tensor:
    """Of straight lines between the points, up to z: exact, a parabola within each piece."""
    steps = np.diff(depths)
    sums = np.concatenate([[0.0], np.cumsum(steps * (values[1:] + values[:-1]) / 2)])
    inside = np.clip(z.numpy(), depths[0], depths[-1])
    piece = np.clip(np.searchsorted(depths, inside, side="right") - 1, 0, len(steps) - 1)
    far = inside - depths[piece]
    slope = np.diff(values) / steps
    return torch.from_numpy(sums[piece] + far * (values[piece] + slope[piece] * far / 2))
