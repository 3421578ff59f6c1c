"""MetaImage in: .mha, or a header .mhd with its data file, by ITK.

ITK ends the process, or reads memory that was never written, for some damaged headers; so the header is read here
first, and what ITK could not take is refused. TransformMatrix and Offset place the voxels; AnatomicalOrientation, which
says the same in letters, is not asked, as in ITK. Source: the MetaIO documentation, itk.org/Wiki/MetaIO/Documentation.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import itk
import numpy as np

from interslice.files.beside import check_beside
from interslice.files.limits import Limits, check_stored, inflated
from interslice.files.scan import LPS_TO_RAS, UNKNOWN_SIDES, Refusal, Scan, without_single_axes

LONGEST_HEADER = 1 << 16
MOST_AXES = 4
BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4, "LONG_LONG": 8,
         "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}  # fmt: skip
"""Of a voxel, by ElementType less its "MET_"."""
MATRIX = ("TransformMatrix", "Rotation", "Orientation")
"""Names of the matrix of the axes."""
MILLIMETRES = {"mm": 1.0, "cm": 10.0, "um": 0.001}
"""DistanceUnits, in mm."""
SEPARATOR = re.compile("[=:]")
"""Between the name and the value of a field."""
COMMENT = "Comment"
"""The one field that may stand in a header more than once."""
FROM = ("RL", "AP", "IS")
"""Letters of AnatomicalOrientation: where an axis comes from, if it points along plus or minus L, P, S."""


def read_metaimage(path: Path, limits: Limits | None = None) -> Scan:
    """Raises Refusal for a header that states no image, or a larger one than may be read, or than is there."""
    header = check_metaimage(path, limits or Limits())
    image = itk.imread(str(path), itk.F, imageio=itk.MetaImageIO.New())
    doubts = []
    if not any(name in header for name in MATRIX):
        doubts.append(UNKNOWN_SIDES.format(" (no TransformMatrix)") + "; LPS is assumed, as by ITK")
    unit = header.get("DistanceUnits", "mm").lower()
    if (to_mm := MILLIMETRES.get(unit, 1.0)) != 1:
        doubts.append(f"lengths are in {unit}, and are converted to mm; ITK takes them for mm")
    axes = min(3, image.GetImageDimension())
    direction, affine = np.asarray(image.GetDirection()), np.eye(4)
    affine[:axes, :axes] = direction[:axes, :axes] * np.array(image.GetSpacing())[:axes] * to_mm
    affine[:axes, 3] = np.array(image.GetOrigin())[:axes] * to_mm
    letters = letters_of(direction[:axes, :axes])
    stated = header.get("AnatomicalOrientation", letters).upper()
    if doubts == [] and len(letters) == 3 and stated != letters and set(stated) <= set("RLAPIS"):
        doubts.append(f"TransformMatrix, which is used, says {letters}, and AnatomicalOrientation {stated}")
    voxels = without_single_axes(itk.array_from_image(image).T)
    return Scan(voxels, LPS_TO_RAS @ affine, tuple(doubts))


def check_metaimage(path: Path, limits: Limits) -> dict[str, str]:
    """The header of a file that ITK can read; raises Refusal for others."""
    header, length = read_header(path)
    check_header(header, length, path, limits)
    return header


def read_header(path: Path) -> tuple[dict[str, str], int]:
    """The fields of a header, and its length in bytes; lines may be empty, as in ITK."""
    fields, length = {}, 0
    with path.open("rb") as file:
        while "ElementDataFile" not in fields:
            line = file.readline(LONGEST_HEADER)
            length += len(line)
            name, *value = SEPARATOR.split(line.decode("latin-1").strip(), maxsplit=1)
            if length <= LONGEST_HEADER and line and not name:
                continue
            if not value or length > LONGEST_HEADER:
                raise Refusal("this is no MetaImage header, or it is damaged: it has no ElementDataFile")
            name = name.strip()
            if name in fields and name != COMMENT:
                raise Refusal(f"the header states {name} twice; repair it")
            fields[name] = value[0].strip()
    return fields, length


def check_header(header: dict[str, str], length: int, path: Path, limits: Limits) -> None:
    """Raise Refusal unless the header states an image that ITK can read, all of which is there."""
    if (kind := header.get("ObjectType", "Image")) != "Image":
        raise Refusal(f"ObjectType = {kind}: expected Image")
    axes = _whole(header, "NDims", 1)[0]
    if not 1 <= axes <= MOST_AXES:
        raise Refusal(f"NDims = {axes}: expected 3 axes; the header is damaged, or the file is no volume")
    sizes = _whole(header, "DimSize", axes)
    if min(sizes) < 1:
        raise Refusal(f"DimSize = {header['DimSize']} is not positive; repair the header")
    if math.prod(sizes[3:]) > 1:
        raise Refusal(f"expected one 3-D volume, got an image of {axes} dimensions {tuple(sizes)}; split it first")
    kind = header.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
    if kind not in BYTES:
        raise Refusal(f"ElementType = {header.get('ElementType', '')}: expected one of MET_{', MET_'.join(BYTES)}")
    spacing = _numbers(header, "ElementSpacing", axes) or _numbers(header, "ElementSize", axes)
    if not spacing:
        raise Refusal("the header states no spacing (ElementSpacing); convert the scan again")
    if not all(0 < s < math.inf for s in spacing):
        raise Refusal(f"spacing {spacing} mm is not positive in each direction; repair the header")
    for name in MATRIX:
        matrix = _numbers(header, name, axes * axes)
        if matrix and abs(np.linalg.det(np.reshape(matrix, (axes, axes)))) < 1e-6:
            raise Refusal(f"{name} = {header[name]} has axes in one plane; repair the header")
    channels = _whole(header, "ElementNumberOfChannels", 1, "1")[0]
    if channels != 1:
        raise Refusal(f"expected one volume, got {channels} (times or channels); save each as its own file")
    _check_voxels(header, sizes, BYTES[kind], length, path, limits)


def _check_voxels(header: dict[str, str], sizes: list[int], size: int, length: int, path: Path, limits: Limits
                  ) -> None:  # fmt: skip
    """Raise Refusal unless the file of the voxels, of `size` bytes each, is there, with all of them, not too many."""
    voxels = math.prod(sizes)
    data = header["ElementDataFile"]
    if data.upper() == "LIST" or "%" in data:
        raise Refusal("the voxels lie in several files (ElementDataFile); save the volume in one")
    local = data.upper() == "LOCAL"
    if not local:
        check_beside(path, data)
    file = path if local else path.parent / data
    if not file.is_file():
        raise Refusal(f"its voxels are missing: {data} is not beside it")
    start = local * length + max(0, _whole(header, "HeaderSize", 1, "0")[0])
    there, needed = file.stat().st_size - start, voxels * size
    if not _is(header, "BinaryData", "True"):
        needed = 2 * voxels - 1  # numbers in words, with a space between
    compressed = _is(header, "CompressedData", "False")
    check_stored(needed, there, compressed)
    limits.check(sizes)
    if compressed:
        with file.open("rb") as stream:  # ITK fills up what is missing with anything, and unpacks all that is there
            stream.seek(start)
            unpacked = inflated(stream, needed)
        check_stored(needed, unpacked)
        if unpacked > needed:
            raise Refusal(f"the file is damaged: more voxels are there than the {needed} bytes that its header states")


def _is(header: dict[str, str], name: str, default: str) -> bool:
    return header.get(name, default).lower() in ("true", "1")


def _whole(header: dict[str, str], name: str, count: int, default: str = "") -> list[int]:
    try:
        values = [int(word) for word in header.get(name, default).split()]
    except ValueError:
        values = []
    if len(values) != count:
        raise Refusal(f"{name} = {header.get(name, '')}: expected {count} whole numbers; the header is damaged")
    return values


def _numbers(header: dict[str, str], name: str, count: int) -> list[float]:
    """The numbers of a field, none where it is missing."""
    try:
        values = [float(word) for word in header.get(name, "").split()]
    except ValueError:
        values = [math.nan]
    if name in header and (len(values) != count or not np.isfinite(values).all()):
        raise Refusal(f"{name} = {header[name]}: expected {count} numbers; the header is damaged")
    return values


def letters_of(direction: np.ndarray) -> str:
    """AnatomicalOrientation of axes whose directions (LPS) are the columns."""
    nearest = np.abs(direction).argmax(axis=0)
    return "".join(FROM[row][int(direction[row, axis] < 0)] for axis, row in enumerate(nearest))
