"""NRRD in: .nrrd, or a header .nhdr with its data file, by pynrrd.

    affine    columns: the space direction of each of the three axes in space; last: the space origin, a voxel's centre

in the space that "space" names, lengths in "space units", whichever order the axes have and whatever other axes of one
entry stand between them. A space that does not say where the patient's left is counts as LPS, as in ITK, and that is
said. Source: "Definition of NRRD File Format", teem.sourceforge.net/nrrd/format.html, section 5.
"""

from __future__ import annotations

import math
from os import SEEK_END
from pathlib import Path

import nrrd
import numpy as np

from interslice.files.beside import check_beside
from interslice.files.limits import LARGEST_PREAMBLE, Limits, inflated
from interslice.files.scan import LPS_TO_RAS, UNKNOWN_SIDES, Refusal, Scan, without_single_axes

TO_RAS = {"RAS": (1, 1, 1), "LAS": (-1, 1, 1), "LPS": (-1, -1, 1)}
"""Signs of the coordinates, by the initials of a space."""
NO_SIDES = ("", "scanner-xyz", "3d-right-handed")
"""Spaces that do not say where the patient's left is."""
MILLIMETRES = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "µm": 0.001, "μm": 0.001, "nm": 1e-6}
"""Units by their symbols; those written out begin with one of UNIT_WORDS."""
UNIT_WORDS = {"millimet": "mm", "centimet": "cm", "micron": "um", "micromet": "um", "nanomet": "nm", "met": "m"}
NOT_SPACE = ("list", "vector", "time", "rgb", "color", "scalar", "complex")
"""How the kinds of axes begin that are not in space, in a header without directions."""
DEFLATED, BZIPPED = ("gzip", "gz"), ("bzip2", "bz2")
"""Encodings that are compressed."""
MOST_LINES, LONGEST_WORD = 10_000, 64
"""Lines that may be skipped; characters of a voxel in words, with what stands around it."""


def read_nrrd(path: Path, limits: Limits | None = None) -> Scan:
    """Raises Refusal for three axes in space that are not there, a unit that is none, and beyond the limits."""
    check_nrrd(path, limits or Limits())
    voxels, header = nrrd.read(str(path))
    doubts: list[str] = []
    to_ras = _to_ras(header, doubts)
    directions, origin = _directions(header, doubts)
    # Of a space with time, the first three coordinates are places.
    axes = [n for n, d in enumerate(directions) if np.isfinite(d).all() and np.abs(d[:3]).max() > 0]
    if len(axes) != 3 or any(np.abs(directions[n][3:]).max(initial=0) > 0 for n in axes):
        raise Refusal(f"expected three axes in space, got {len(axes)} of {voxels.shape}; split it first")
    scale = _millimetres(header, axes, doubts)
    affine = np.eye(4)
    affine[:3, :3] = directions[axes, :3].T
    affine[:3, 3] = origin[:3]
    affine = to_ras @ np.diag([*scale, 1.0]) @ affine
    voxels = without_single_axes(np.moveaxis(voxels, axes, (0, 1, 2)))
    return Scan(voxels, affine, tuple(doubts), _thickness(header, axes, affine, scale))


def check_nrrd(path: Path, limits: Limits) -> None:
    """Raise Refusal for a header that states too much, or another number of voxels than are there, or elsewhere.

    pynrrd unpacks all that a file holds, whatever its header states.
    """
    with path.open("rb") as file:
        header = nrrd.read_header(file)
        start = file.tell()
    sizes, encoding = [int(n) for n in header["sizes"]], header["encoding"]
    if min(sizes) < 1:
        raise Refusal(f"sizes {sizes} are not positive; repair the header")
    limits.check(sizes)
    lines, skipped = (int(header.get(f"{w} skip", header.get(f"{w}skip", 0))) for w in ("line", "byte"))
    if not (0 <= lines <= MOST_LINES and -1 <= skipped <= LARGEST_PREAMBLE):
        raise Refusal(f"line skip {lines}, byte skip {skipped}: expected few, or byte skip -1; repair the header")
    voxels = math.prod(sizes)
    needed = voxels * nrrd.reader._determine_datatype(header).itemsize  # the table of types is nowhere else
    # With byte skip -1 all is skipped before the last bytes that are needed, else what it says; of unpacked bytes.
    least, most = needed + max(0, skipped), needed + (int(LARGEST_PREAMBLE) if skipped < 0 else skipped)
    if encoding not in (*DEFLATED, *BZIPPED, "raw"):
        least, most = 2 * voxels - 1, max(0, skipped) + LONGEST_WORD * voxels  # numbers in words
    data = _data_file(path, header)
    with (path if data is None else path.parent / data).open("rb") as file:
        file.seek(start if data is None else 0)
        for _ in range(lines):
            file.readline()
        if encoding in (*DEFLATED, *BZIPPED):
            there = inflated(file, most, "deflate" if encoding in DEFLATED else "bzip2")
        else:
            there = -file.tell() + file.seek(0, SEEK_END)
    if not least <= there <= (math.inf if skipped < 0 and encoding == "raw" else most):
        more = "at least " if there > most else ""
        raise Refusal(f"the file is truncated or damaged: {more}{there} bytes of voxels are there, expected {needed}")


def _data_file(path: Path, header: dict) -> str | None:
    """The file of the voxels; None if they are in that of the header. Refusal if they lie in several, or elsewhere."""
    data = header.get("data file", header.get("datafile"))
    if data is None:
        return None
    if data.upper().startswith("LIST") or "%" in data:
        raise Refusal("the voxels lie in several files (data file); save the volume in one")
    check_beside(path, data)
    return data


def _to_ras(header: dict, doubts: list[str]) -> np.ndarray:
    """(4, 4): from the header's space to RAS."""
    space = str(header.get("space", "")).strip()
    place = space.lower().removesuffix("-time")
    initials = "".join(word[:1] for word in place.split("-")) if "-" in place else place[:3]
    if initials.upper() in TO_RAS:
        return np.diag([*TO_RAS[initials.upper()], 1.0])
    if place not in NO_SIDES:
        raise Refusal(f"the space {space!r} is none of {', '.join(TO_RAS)}; repair the header")
    doubts.append(
        UNKNOWN_SIDES.format(f" (space {space!r})" if space else " (no space)") + "; LPS is assumed, as by ITK"
    )
    return LPS_TO_RAS


def _directions(header: dict, doubts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(axes, 3 or 4): the step along each axis, NaN for an axis outside space; and the place of the first voxel."""
    if "space directions" in header:
        steps = np.array([np.full(3, np.nan) if d is None else d for d in header["space directions"]], float)
        if "space origin" not in header:
            doubts.append("no place is stated (no space origin): the first voxel is put at 0")
        return steps, np.asarray(header.get("space origin", np.zeros(steps.shape[1])), float)
    if "spacings" not in header:
        raise Refusal("the header states no spacing (space directions, or spacings); convert the scan again")
    kinds = [str(k).lower() for k in header.get("kinds", ["domain"] * header["dimension"])]
    spatial = [n for n, k in enumerate(kinds) if not any(word in k for word in NOT_SPACE)]
    steps = np.full((header["dimension"], 3), np.nan)
    for coordinate, axis in enumerate(spatial[:3]):
        steps[axis] = np.eye(3)[coordinate] * header["spacings"][axis]
    return steps, np.zeros(3)


def _millimetres(header: dict, axes: list[int], doubts: list[str]) -> list[float]:
    """What a unit of each coordinate is in mm."""
    if "space units" in header:
        stated = list(header["space units"])[:3]
    else:
        units = header.get("units")
        stated = ["mm"] * 3 if units is None or "space directions" in header else [units[n] for n in axes]
    scale = []
    for word in (str(u).strip().strip('"') for u in stated):
        symbol = next((u for start, u in UNIT_WORDS.items() if word.lower().startswith(start)), word)
        if symbol in ("", "???", "none"):
            symbol = "mm"
        if symbol not in MILLIMETRES:
            raise Refusal(f"lengths are in {word!r}, which is none of {', '.join(MILLIMETRES)}; repair the header")
        scale.append(MILLIMETRES[symbol])
    if set(scale) != {1.0}:
        doubts.append(
            f"lengths are in {', '.join(dict.fromkeys(stated))}, and are converted to mm; ITK takes them for mm"
        )
    return scale


def _thickness(header: dict, axes: list[int], affine: np.ndarray, scale: list[float]) -> float:
    """Of the samples along the axis with the largest spacing, in mm; 0 where the header has none."""
    thick = int(np.linalg.norm(affine[:3, :3], axis=0).argmax())
    stated = float(header["thicknesses"][axes[thick]]) if "thicknesses" in header else 0.0
    return stated * scale[0] if np.isfinite(stated) and stated > 0 else 0.0
