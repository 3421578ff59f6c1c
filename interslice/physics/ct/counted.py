"""What a detector read, to line integrals: air, flat and dark fields, bad elements, and how many photons it was.

    y = (N - dark) k,   I0 = (flat - dark) k  of each element, or air_counts k for all       k photons per count
    p, v                what y of I0 says (counting.py)

Without a flat field the values are counts of `air_counts` through air, less the dark current. k is 1, or what
`photons`, those through air, says. Where a number of photons is not known, p = -log(N / air), and no variance.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import median_filter

from interslice.files.limits import Limits
from interslice.files.scan import Refusal, unreadable
from interslice.physics.ct.attenuation import LOWEST_COUNT, line_integrals_of, lowest_of
from interslice.physics.ct.counting import RayNoise, as_float64, rays_of, some_views
from interslice.physics.ct.dead_columns import WIDEST_GAP, interpolated, listed, longest_run

SATURATED = 0.001
"""Share of the counts at the maximum from which a detector is called saturated."""
TOO_SMALL = 0.01
"""Share of the counts between 0 and a half from which they are hardly counts."""
DARK = 0.1
"""Share of what its neighbours see through air, less than which an element of the flat field sees too little."""
FIELDS = ("flat", "dark", "bad_pixels")
"""Fields of the JSON file that name an array (columns, rows), or several of them one after the other."""
NAMES = ("air_counts", "photons", "electronic_noise", *FIELDS)
"""Fields of the JSON file that say what was counted."""


@dataclass(frozen=True, eq=False)
class Counted:
    """How counts are to be read.

    Args:
        air_counts: through air, of all elements; nothing with a flat field.
        photons: through air, where counts are of another unit.
        electronic_noise: standard deviation of the read-out, in the unit of the counts.
        flat, dark: (columns, rows), counts without an object, and without a beam.
        bad_pixels: bool (columns, rows).

    Raises:
        Refusal: numbers that are none, or that do not go together.
    """

    air_counts: float | None = None
    photons: float | None = None
    electronic_noise: float = 0.0
    flat: np.ndarray | None = None
    dark: np.ndarray | None = None
    bad_pixels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if (self.air_counts is None) == (self.flat is None):
            raise Refusal("counts through air are stated once: by air_counts, or by the array that flat names")
        if self.air_counts is not None and not (_is_amount(self.air_counts) and self.air_counts > 0):
            raise Refusal(f"air_counts must be a positive number, got {self.air_counts!r}")
        if self.photons is not None and not (_is_amount(self.photons) and self.photons > 1):
            raise Refusal(f"photons must be a number above 1, of those that arrive through air, got {self.photons!r}")
        if not _is_amount(self.electronic_noise) or self.electronic_noise < 0:
            raise Refusal(f"electronic_noise must be a number of counts from 0, got {self.electronic_noise!r}")

    @classmethod
    def taken_from(cls, fields: dict, folder: Path, read: Callable[[Path], np.ndarray]) -> Counted | None:
        """Of the fields of a JSON file, which are taken out; None where the values are line integrals.

        Args:
            folder: of the file, in which arrays are named.
            read: reads an array of a file.

        Raises:
            Refusal: as above, an array that is not there, or fields that say nothing of line integrals.
        """
        stated = {name: fields.pop(name) for name in NAMES if name in fields}
        stated = {name: value for name, value in stated.items() if value is not None}
        if not stated:
            return None
        if not stated.keys() & {"air_counts", "flat"}:
            raise Refusal(f"{' and '.join(stated)} say nothing of line integrals: state air_counts or flat as well")
        arrays = {name: field_of(name, stated[name], folder, read) for name in FIELDS if name in stated}
        if "bad_pixels" in arrays:
            arrays["bad_pixels"] = arrays["bad_pixels"] > 0
        return cls(**stated | arrays)

    def read(self, counts: np.ndarray, path: Path) -> tuple[np.ndarray, RayNoise | None, list[str]]:
        """Line integrals of counts (views, columns, rows), their noise where it is known, and what was mended.

        Warns of counts that are zero or saturated, in the name of the file `path`.

        Raises:
            Refusal: fields of another size, counts that are NaN, all zero, or of too many bad elements.
        """
        for name in FIELDS:
            if (array := getattr(self, name)) is not None and array.shape != counts.shape[1:]:
                raise Refusal(f"{name} has {array.shape} (columns, rows), and the projections have {counts.shape[1:]}")
        said = []
        air, bad = self._air(), np.zeros(counts.shape[1:], bool) if self.bad_pixels is None else self.bad_pixels
        if self.flat is not None:
            usual = float(np.median(air))
            if not usual > 0:
                raise Refusal(f"flat is {usual:.4g} above dark in most elements: are the two swapped?")
            bad = bad | dark_elements(air)
            air = np.where(bad, usual, air)
        if bad.any():
            gap = max(longest_run(row) for row in bad.T)
            if gap > WIDEST_GAP or bad.all(0).any():
                raise Refusal(
                    f"{listed(bad)} are bad, up to {gap} beside each other, and at most {WIDEST_GAP} are filled in: "
                    "leave those columns out"
                )
            said = [f"{listed(bad)} hold bad elements, which are interpolated from their neighbours"]

        def corrected(some: np.ndarray) -> np.ndarray:
            """Counts of some views, float64, less the dark current, with bad elements filled in."""
            some = as_float64(some) if self.dark is None else as_float64(some) - self.dark
            return interpolated(np.where(bad, 0.0, some) / air, bad) * air if bad.any() else some

        p, noise = self._line_integrals(counts, corrected, air, path)
        return p, noise if noise is None or not bad.any() else noise.without(bad), said

    def _air(self) -> float | np.ndarray:
        if self.flat is None:
            return float(self.air_counts)
        return self.flat.astype(np.float64) - (0.0 if self.dark is None else self.dark)

    def _line_integrals(self, counts: np.ndarray, corrected: Callable[[np.ndarray], np.ndarray],
                        air: float | np.ndarray, path: Path) -> tuple[np.ndarray, RayNoise | None]:  # fmt: skip
        usual = float(np.median(air))
        small = warn_of((some for _, some in some_views(counts, corrected)), usual, path)
        counted = lowest_of(usual) == LOWEST_COUNT and small <= TOO_SMALL
        if self.photons is None and self.electronic_noise and lowest_of(usual) != LOWEST_COUNT:
            raise Refusal(
                f"electronic_noise is {self.electronic_noise:g}, and {usual:g} through air is transmission, no count "
                "of photons: state photons, how many these stand for, or leave it out"
            )
        if self.photons is None and not self.electronic_noise and not counted:
            p = np.empty(counts.shape, np.float32)
            for views, some in some_views(counts, corrected):
                p[views] = line_integrals_of(torch.from_numpy(some / air * usual).float(), usual).numpy()
            return p, None
        scale = 1.0 if self.photons is None else self.photons / usual
        return rays_of(
            counts, np.asarray(air) * scale, self.electronic_noise * scale, lambda some: corrected(some) * scale
        )


def dark_elements(air: np.ndarray) -> np.ndarray:
    """bool (columns, rows): elements of a flat field that see less than DARK of the good ones before them.

    From the brightest column outwards: what a bowtie filter lets through falls to the edges, but by and by.
    """
    level = median_filter(np.median(air, axis=1), 5, mode="nearest")
    middle, dark = int(level.argmax()), np.zeros(air.shape, bool)
    for way in (range(middle, len(air)), range(middle, -1, -1)):
        near = np.full(air.shape[1], level[middle])
        for column in way:
            dark[column] = air[column] < DARK * near
            step = np.minimum(air[column], 2 * near) - near  # no single bright element may darken the next
            near += np.where(dark[column], 0.0, 0.5 * step)
    return dark


def field_of(name: str, file: object, folder: Path, read: Callable[[Path], np.ndarray]) -> np.ndarray:
    """(columns, rows), the mean of the arrays in a file beside the JSON file, or in a folder inside."""
    if not isinstance(file, str) or not file or Path(file).is_absolute() or ".." in Path(file).parts:
        raise Refusal(f"{name} must be the name of a file beside the projections, or in a folder there, got {file!r}")
    path = folder / file
    if folder.resolve() not in path.resolve().parents:
        raise Refusal(f"{name} names {file}, which lies outside of the folder of the projections")
    if not path.is_file():
        raise FileNotFoundError(f"{name} names {file}, and there is no such file beside the projections")
    try:
        array = read(path)
    except Refusal as error:
        raise Refusal(f"{file}: {error}") from None
    if not np.isfinite(array).all():
        raise Refusal(f"{file}: {int((~np.isfinite(array)).sum())} values are NaN or infinite")
    return array.mean(0, dtype=np.float64)


def read_field(path: Path, limits: Limits, read_image: Callable[[Path, Limits], np.ndarray]) -> np.ndarray:
    """(n, columns, rows) of a .npy, (columns, rows) or n of these, or of what `read_image` reads."""
    if not path.name.lower().endswith(".npy"):
        return read_image(path, limits)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise Refusal(unreadable(error)) from None
    limits.check(array.shape)
    if array.ndim not in (2, 3) or array.dtype.kind not in "buif":
        raise Refusal(f"a field is an array of numbers (columns, rows), or several, got {array.dtype} {array.shape}")
    return np.asarray(array, np.float32).reshape(-1, *array.shape[-2:])


def warn_of(parts: Iterable[np.ndarray], air: float, path: Path) -> float:
    """Say what is doubtful about counts, of so many through air, and return the share of those between 0 and a half.

    Args:
        parts: the counts, some after the others.

    Raises:
        Refusal: no counts at all.
    """
    lowest = lowest_of(air)
    size = infinite = empty = few = clipped = 0
    highest = -np.inf
    for counts in parts:
        size, infinite = size + counts.size, infinite + int((~np.isfinite(counts)).sum())
        empty, few = empty + int((counts <= 0).sum()), few + int(((counts > 0) & (counts < lowest)).sum())
        if (top := counts.max()) > highest:
            highest, clipped = top, 0
        clipped += int((counts == highest).sum())
    if infinite:
        raise Refusal(f"{infinite} counts are NaN or infinite")
    if empty == size:
        raise Refusal("every count is zero")
    taken = "half a count" if lowest == LOWEST_COUNT else f"{lowest:g}"
    if empty:
        where = ", where their neighbours do not tell better" if lowest == LOWEST_COUNT else ""
        warnings.warn(f"{path}: {empty} counts are zero or negative and are taken as {taken}{where}", stacklevel=6)
    small = few / size
    if small > TOO_SMALL:
        warnings.warn(
            f"{path}: {small:.1%} of the counts lie between 0 and {lowest:g} and are taken as {taken}: for "
            "transmission on another scale than counts, divide by air_counts and state air_counts 1",
            stacklevel=6,
        )
    share = clipped / size
    # Through air, counts reach air_counts and scatter about it; a detector that stops below has met its limit.
    if share > SATURATED and clipped >= 10 and highest < 0.98 * air:
        warnings.warn(
            f"{path}: {share:.1%} of the counts are at the maximum, {highest:g}: the detector looks saturated, and "
            "what lies behind is thicker than it seems",
            stacklevel=6,
        )
    return small


def _is_amount(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
