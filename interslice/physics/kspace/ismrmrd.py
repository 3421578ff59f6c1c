"""ISMRMRD: the header of an MRI scan, and its acquisitions sorted into k-space.

(Inati et al., "ISMRM Raw data format: a proposed standard for MRI raw datasets", Magn. Reson. Med. 2017.) One
acquisition is one line along the readout, of all coils, with its place in k-space, its slice and its position in the
patient. Lengths are mm.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from monai.utils import optional_import

from interslice.files.limits import Limits
from interslice.files.scan import Refusal
from interslice.files.xml_text import parse_xml

ismrmrd, _ = optional_import("ismrmrd")

IGNORED = (
    "NOISE_MEASUREMENT", "NAVIGATION_DATA", "PHASECORR_DATA", "HPFEEDBACK_DATA", "DUMMYSCAN_DATA", "RTFEEDBACK_DATA",
    "SURFACECOILCORRECTIONSCAN_DATA", "PHASE_STABILIZATION_REFERENCE", "PHASE_STABILIZATION",
)  # fmt: skip
"""Acquisitions with these flags (ACQ_IS_...) are no lines of the image."""
WORDS = 100
"""Numbers that the head of an acquisition takes, beside its samples."""
LARGEST_DEVIATION = 0.01
"""Share of the slice distance by which slices may be out of place."""


@dataclass(frozen=True)
class Encoding:
    """What the header says of k-space; each triple is (readout, phase encoding, slice).

    Args:
        matrix, field_of_view: of k-space as it was measured; points and mm.
        shown: field of view of the scanner's own pictures, in mm: along the readout often half of the measured one.
        center: number of the phase-encoding line in the centre of k-space.
    """

    matrix: tuple[int, int, int]
    field_of_view: tuple[float, float, float]
    shown: tuple[float, float, float]
    center: int


def read_header(text: str | bytes) -> Encoding:
    """The first encoding of an ISMRMRD header.

    Raises:
        ValueError: not XML, a size is missing or not positive, or the trajectory is not Cartesian.
    """
    try:
        root = parse_xml(text)
    except ElementTree.ParseError as error:
        raise Refusal(f"the ISMRMRD header is not XML: {error}") from None
    encoding = root.find("{*}encoding")
    if encoding is None:
        raise Refusal("the ISMRMRD header has no encoding")
    trajectory = encoding.findtext("{*}trajectory", "cartesian").strip()
    if trajectory != "cartesian":
        raise Refusal(f"the trajectory is {trajectory}: only cartesian k-space can be reconstructed")

    def triple(name: str) -> tuple[float, ...]:
        texts = [encoding.findtext("/".join(f"{{*}}{part}" for part in (*name.split("/"), axis))) for axis in "xyz"]
        try:
            values = tuple(float(t) for t in texts)
        except (TypeError, ValueError):
            raise Refusal(f"the ISMRMRD header states {name} as {texts}: expected three numbers") from None
        if not all(0 < v < 1e5 for v in values):
            raise Refusal(f"the ISMRMRD header states {name} as {values}: expected three positive numbers")
        return values

    matrix = tuple(int(v) for v in triple("encodedSpace/matrixSize"))
    center = encoding.findtext("{*}encodingLimits/{*}kspace_encoding_step_1/{*}center")
    return Encoding(
        matrix,
        triple("encodedSpace/fieldOfView_mm"),
        triple("reconSpace/fieldOfView_mm"),
        int(center) if center is not None else matrix[1] // 2,
    )


def read_ismrmrd(path: str | Path, group: str, encoding: Encoding, limits: Limits | None = None
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:  # fmt: skip
    """k-space complex64 (C, Z, KY, KX) with the readout along KY, its mask (Z, KY, KX), and its affine.

    Lines that were measured several times are averaged. Lines for calibration alone fill in where there are no others.
    The affine (4, 4), to RAS+ in mm, of voxels (phase encoding, readout, slice), is None if the file has no directions.

    Raises:
        ValueError: the package is missing; several contrasts, repetitions, phases, sets or partitions; lines outside
            of k-space; slices that are not parallel and equally spaced.
    """
    limits = limits or Limits()
    try:
        with ismrmrd.File(str(path), "r") as file:
            limits.check((len(file[group].acquisitions), WORDS))
            lines = [line for line in file[group].acquisitions if is_imaging(line)]
    except ImportError:  # of which MONAI's OptionalImportError is one
        raise Refusal(
            "an ISMRMRD file needs a package that is not installed: pip install ismrmrd==1.15.0 (the extra [kspace])"
        ) from None
    if not lines:
        raise Refusal("the file holds no acquisitions of an image")
    for name in ("contrast", "repetition", "phase", "set", "kspace_encode_step_2"):
        found = sorted({getattr(line.idx, name) for line in lines})
        if len(found) > 1:
            what = "partitions of a 3-D encoding" if name == "kspace_encode_step_2" else f"values of {name}"
            raise Refusal(f"the acquisitions have {len(found)} {what}: save 2-D slices of one image as a file")
    order, affine = slice_order(lines, encoding)
    shape = (lines[0].active_channels, len(order), encoding.matrix[0], encoding.matrix[1])
    limits.check(shape, parts=2)
    kspace, count = np.zeros(shape, np.complex64), np.zeros(shape[1:], np.int32)
    calibration = [line for line in lines if calibrates_only(line)]
    add_lines((line for line in lines if not calibrates_only(line)), order, encoding, kspace, count)
    if calibration:
        more, more_count = np.zeros_like(kspace), np.zeros_like(count)
        add_lines(calibration, order, encoding, more, more_count)
        more_count[count > 0] = 0
        kspace += more * (more_count > 0)
        count += more_count
    kspace /= np.maximum(count, 1)
    return kspace, count > 0, affine


def is_imaging(line) -> bool:
    """True for lines of the first encoding that are no noise scans and the like."""
    flags = (getattr(ismrmrd, f"ACQ_IS_{name}") for name in IGNORED)
    return line.encoding_space_ref == 0 and not any(line.is_flag_set(flag) for flag in flags)


def calibrates_only(line) -> bool:
    """True for lines that were measured for parallel imaging and are no lines of the image."""
    return line.is_flag_set(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION) and not line.is_flag_set(
        ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING
    )


def add_lines(lines: Iterable, order: dict[int, int], encoding: Encoding, kspace, count) -> None:
    """Adds lines to k-space (C, Z, KY, KX), and 1 to the count (Z, KY, KX) of the points where they lie."""
    rows, columns = kspace.shape[-2:]
    for line in lines:
        data, center = line.data, line.center_sample
        kept = np.arange(line.discard_pre, line.number_of_samples - line.discard_post)
        if line.active_channels != len(kspace):
            raise Refusal(f"acquisitions have {len(kspace)} and {line.active_channels} coils")
        backwards = line.is_flag_set(ismrmrd.ACQ_IS_REVERSE)
        row = rows // 2 + (center - kept if backwards else kept - center)
        inside = (row >= 0) & (row < rows)
        column = columns // 2 + line.idx.kspace_encode_step_1 - encoding.center
        # Of an even number of samples one has no mirror image.
        if not 0 <= column < columns or (~inside).sum() > int(backwards):
            raise Refusal(
                f"line {line.idx.kspace_encode_step_1}, samples {kept[0]} to {kept[-1]} around {center}, lies outside "
                f"of k-space of {columns} lines of {rows} samples: correct the encoded matrix or the encoding limits"
            )
        z, row, kept = order[line.idx.slice], row[inside], kept[inside]
        kspace[:, z, row, column] += data[:, kept]
        count[z, row, column] += 1


def slice_order(lines: Iterable, encoding: Encoding) -> tuple[dict[int, int], np.ndarray | None]:
    """(slice number of the scanner -> index along Z, affine or None), from the positions of the slices."""
    first = {}
    for line in lines:
        first.setdefault(line.idx.slice, line)
    head = first[min(first)]
    read, phase, normal = (np.array(v[:], np.float64) for v in (head.read_dir, head.phase_dir, head.slice_dir))
    position = {s: np.array(line.position[:], np.float64) for s, line in first.items()}
    if abs(np.linalg.det(np.stack([read, phase, normal]))) < 0.9:  # not stated
        return {s: i for i, s in enumerate(sorted(first))}, None
    along = {s: float(p @ normal) for s, p in position.items()}
    numbers = sorted(first, key=along.get)
    step = normal * encoding.shown[2]
    if len(numbers) > 1:
        step = (position[numbers[-1]] - position[numbers[0]]) / (len(numbers) - 1)
        distance = np.linalg.norm(step)
        expected = [position[numbers[0]] + i * step for i in range(len(numbers))]
        worst = max(float(np.linalg.norm(position[s] - e)) for s, e in zip(numbers, expected))
        turned = any(np.abs(np.array(line.slice_dir[:]) - normal).max() > LARGEST_DEVIATION for line in first.values())
        if turned or not distance > 0 or worst > LARGEST_DEVIATION * distance:
            raise Refusal(
                f"the slices are not parallel and equally spaced (up to {worst:.2g} mm out of place, {distance:.3g} mm "
                "apart): save those that are as a file of their own"
            )
    sizes = [f / n for f, n in zip(encoding.field_of_view, encoding.matrix)]
    affine = np.eye(4)
    affine[:3, :3] = np.stack([phase * sizes[1], read * sizes[0], step], 1)
    middle = np.array([encoding.matrix[1] // 2, encoding.matrix[0] // 2, 0])
    affine[:3, 3] = position[numbers[0]] - affine[:3, :3] @ middle
    affine[:2] *= -1  # the scanner's left and posterior to right and anterior
    return {s: i for i, s in enumerate(numbers)}, affine
