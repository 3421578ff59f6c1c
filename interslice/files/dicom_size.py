"""How large the pixels of a DICOM file become, known before they are: from its header, and from compressed images.

A deflated file is one stream, header and all, that pydicom unpacks whole to read any of it. A compressed image states
its own size, which decoders follow, whatever Rows and Columns say.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydicom import Dataset
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from interslice.files.limits import Limits, inflated
from interslice.files.machine import available_memory, in_gigabytes
from interslice.files.scan import Refusal

try:
    from pydicom.encaps import generate_frames
except ImportError:  # pydicom 2, which MONAI Label needs
    from pydicom.encaps import generate_pixel_data_frame

    def generate_frames(buffer: bytes, number_of_frames: int) -> Iterator[bytes]:
        return generate_pixel_data_frame(buffer, number_of_frames)


LARGEST_DEFLATED = 1_000_000_000
"""Bytes that a deflated file may unpack to; it holds one object, mostly one slice."""
FILE_META = 1 << 16
"""Bytes in which the transfer syntax is stated, and more."""
JPEG, JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
"""How the streams begin; of JPEG 2000 perhaps within a box."""
FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Of the segment of a JPEG or JPEG-LS image that states its size."""


def check_deflated(path: Path) -> None:
    """Raise Refusal for a deflated file that unpacks to more than it may, or than there is memory for."""
    with path.open("rb") as file:
        if DeflatedExplicitVRLittleEndian.encode() not in file.read(FILE_META):
            return
        file.seek(0)
        read_preamble(file, force=True)
        if _read_file_meta_info(file).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        size = inflated(file, LARGEST_DEFLATED, "raw")
    if size > min(LARGEST_DEFLATED, available_memory() / 3):
        raise Refusal(
            f"a deflated file of {in_gigabytes(path.stat().st_size)} that unpacks to {in_gigabytes(size)} or more, and "
            f"at most {in_gigabytes(LARGEST_DEFLATED)}, and a third of the memory, are unpacked: store it uncompressed"
        )


def check_pixels(image: Dataset, limits: Limits) -> None:
    """Raise Refusal for pixels that are more than may be read, or whose images are of another size than stated."""
    rows, columns, frames = int(image.Rows), int(image.Columns), int(image.get("NumberOfFrames") or 1)
    limits.check((columns, rows, frames))
    if not image.file_meta.TransferSyntaxUID.is_encapsulated or "PixelData" not in image:
        return
    for frame in generate_frames(image.PixelData, number_of_frames=frames):
        size = size_of(frame)
        if size not in (None, (rows, columns)):
            raise Refusal(
                f"the header states images of {columns} x {rows} pixels, and a compressed image is one of "
                f"{size[1]} x {size[0]}"
            )


def size_of(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 image states; None for others, and for damaged ones."""

    def number(at: int, length: int) -> int:
        return int.from_bytes(stream[at : at + length], "big")

    if (start := stream[:FILE_META].find(JPEG_2000)) >= 0:
        right, lower, left, upper = (number(start + 8 + 4 * i, 4) for i in range(4))
        return lower - upper, right - left
    at = len(JPEG) if stream.startswith(JPEG) else len(stream)
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        if stream[at + 1] == 0xFF:  # filled up
            at += 1
        elif stream[at + 1] in FRAME_MARKERS:
            return number(at + 5, 2), number(at + 7, 2)
        else:
            at += 2 + number(at + 2, 2)
    return None
