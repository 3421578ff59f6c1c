"""Damaged DICOM: attributes of one file or of all, pixels, file meta information, and what lies in the folder."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from scripts.fuzzing.damage.anything import damage_bytes
from scripts.fuzzing.damage.odd import odd_word, pick

KEYWORDS = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "RescaleSlope",
    "RescaleIntercept", "NumberOfFrames", "PhotometricInterpretation", "Modality", "SOPClassUID", "SOPInstanceUID",
    "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "ImageType", "InstanceNumber", "EchoTime",
    "SpecificCharacterSet", "PixelPaddingValue", "StudyInstanceUID", "PatientName", "ImagesInAcquisition",
    "WindowCenter", "FrameOfReferenceUID", "StudyDate", "PixelData", "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
)  # fmt: skip
OWN = ("ImagePositionPatient", "SOPInstanceUID", "InstanceNumber", "PixelData")
"""Those in which the files of a series differ."""
SYNTAXES = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5",
    "1.2.3", "x", "",
)  # fmt: skip
KINDS = (b"DS", b"IS", b"US", b"LO", b"UN", b"SQ", b"OB", b"FD", b"XX", b"UI")
"""Value representations, one of which there is none."""


def damage_dicom(rng: np.random.Generator, folder: Path) -> str:
    """Of a folder of slices, or with one multi-frame file."""
    files = sorted(folder.iterdir())
    way = pick(rng, (attribute, attribute, attribute, raw_value, raw_value, one_file, meta, pixels, in_folder, types))
    return way(rng, folder, files)


def chosen(rng: np.random.Generator, files: Sequence[Path]) -> list[Path]:
    """One file, or all of them."""
    return list(files) if rng.random() < 0.4 else [pick(rng, files)]


def attribute(rng: np.random.Generator, folder: Path, files: Sequence[Path]) -> str:
    """An attribute that is taken away, emptied, or that of another file."""
    keyword, way = pick(rng, KEYWORDS), pick(rng, ("removed", "emptied", "of another", "nested", "removed"))
    if way == "of another":
        keyword = pick(rng, OWN)
    some, other = chosen(rng, files), pydicom.dcmread(pick(rng, files))
    for path in some:
        ds = pydicom.dcmread(path)
        for part in parts_with(ds, keyword):
            if way == "removed":
                del part[keyword]
            elif way == "emptied":
                part[keyword].value = None if part[keyword].VR != "SQ" else []
            elif way == "of another" and keyword in other:
                part[keyword] = copy.deepcopy(other[keyword])
            elif way == "nested" and part[keyword].VR == "SQ" and part[keyword].value:
                part[keyword].value = [part[keyword].value[0]]
        save(ds, path)
    return f"{keyword} {way} in {len(some)} of {len(files)} files"


def parts_with(ds: Dataset, keyword: str) -> list[Dataset]:
    """The dataset, or the items inside of it, that have an attribute."""
    if keyword in ds:
        return [ds]
    items = [item for element in ds if element.VR == "SQ" for item in element.value]
    return [found for item in items for found in parts_with(item, keyword)]


def raw_value(rng: np.random.Generator, folder: Path, files: Sequence[Path]) -> str:
    """The bytes of an attribute replaced by an odd text or number, as no library would write them."""
    keyword = pick(rng, KEYWORDS[:-3])
    some, said = chosen(rng, files), ""
    state = rng.bit_generator.state
    for path in some:
        rng.bit_generator.state = state  # the same in all
        ds = pydicom.dcmread(path)
        for part in parts_with(ds, keyword)[:1]:
            element = part[keyword]
            if element.VR == "US":
                value = int(
                    pick(rng, (0, 1, 2, 7, 13, 32, 65535, int(element.value) + 1, max(0, int(element.value) - 1)))
                )
                content = value.to_bytes(2, "little")
            else:
                old = element.value
                several = isinstance(old, MultiValue)
                text = odd_word(rng, " ".join(map(str, old)) if several else str(old))
                content = text.replace(" ", "\\").encode("latin-1", "replace")[:65534]
            content += b" " * (len(content) % 2)
            said = repr(content[:40])
            part[keyword] = RawDataElement(Tag(keyword), element.VR, len(content), content, 0, False, True)
        save(ds, path)
    return f"{keyword} = {said} in {len(some)} of {len(files)} files"


def types(rng: np.random.Generator, folder: Path, files: Sequence[Path]) -> str:
    """Another value representation for an element, or an element that stands there twice."""
    path, keyword = pick(rng, files), pick(rng, KEYWORDS[:-3])
    content, tag = path.read_bytes(), Tag(keyword)
    mark = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")
    at = content.find(mark, 132)
    if at < 0:
        return damage_bytes(rng, path)
    if rng.random() < 0.6:
        kind = pick(rng, KINDS)
        content, what = content[: at + 4] + kind + content[at + 6 :], f"VR {kind.decode()}"
    else:
        length = 8 + int.from_bytes(content[at + 6 : at + 8], "little")
        content, what = content[: at + length] + content[at:], "twice"
    path.write_bytes(content)
    return f"{keyword}: {what} in one file"


def one_file(rng: np.random.Generator, folder: Path, files: Sequence[Path]) -> str:
    """Bytes of a file."""
    return damage_bytes(rng, pick(rng, files))


def meta(rng: np.random.Generator, folder: Path, files: Sequence[Path]) -> str:
    """Transfer syntax, preamble, or all of the file meta information."""
    some, way, syntax = chosen(rng, files), pick(rng, ("syntax", "syntax", "no preamble", "none")), pick(rng, SYNTAXES)
    for path in some:
        content = path.read_bytes()
        if way == "no preamble":
            path.write_bytes(content[132:])
            continue
        ds = pydicom.dcmread(path)
        at = content.find(b"\x02\x00\x10\x00UI", 132)
        length = int.from_bytes(content[at + 6 : at + 8], "little")
        if way == "none":
            start = 144 + int.from_bytes(content[140:144], "little")
            path.write_bytes(content[start:])
        else:
            text = syntax.encode() + b"\0" * (len(syntax) % 2)
            group = int.from_bytes(content[140:144], "little") + len(text) - length
            path.write_bytes(
                content[:140] + group.to_bytes(4, "little") + content[144 : at + 6] + len(text).to_bytes(2, "little")
                + text + content[at + 8 + length :]
            )  # fmt: skip
        del ds
    return f"{way} {syntax if way == 'syntax' else ''} in {len(some)} of {len(files)} files"


def pixels(rng: np.random.Generator, folder: Path, files: Sequence[Path]) -> str:
    """Pixels that are too few, too many, none, or all alike."""
    way = pick(rng, ("none", "half", "a byte short", "twice", "zeros", "one value in all", "empty"))
    some = list(files) if way == "one value in all" else chosen(rng, files)
    for path in some:
        ds = pydicom.dcmread(path)
        old = ds.PixelData
        if way == "none":
            del ds.PixelData
        else:
            ds.PixelData = {
                "half": old[: len(old) // 4 * 2], "a byte short": old[:-1], "twice": old + old,
                "zeros": bytes(len(old)),
                "one value in all": b"\x07\0" * (len(old) // 2), "empty": b"",
            }[way]  # fmt: skip
        save(ds, path)
    return f"pixels: {way} in {len(some)} of {len(files)} files"


def in_folder(rng: np.random.Generator, folder: Path, files: Sequence[Path]) -> str:
    """Files too many, too few, or of another kind."""
    path = pick(rng, files)
    changes = {
        "a file removed": path.unlink,
        "all but one removed": lambda: [p.unlink() for p in files if p != path],
        "a copy": lambda: shutil.copy(path, folder / "copy.dcm"),
        "a copy with other pixels": lambda: other_pixels(path, folder / "copy.dcm"),
        "an empty file": lambda: path.write_bytes(b""),
        "a text": lambda: (folder / "notes.txt").write_text("hello"),
        "a link to nothing": lambda: (folder / "lost.dcm").symlink_to("nowhere"),
        "a folder with one of the files": lambda: ((folder / "more").mkdir(), path.rename(folder / "more" / path.name)),
        "a disc's index": lambda: (folder / "DICOMDIR").write_bytes(path.read_bytes()),
        "a volume of another format": lambda: (folder / "scan.nii.gz").write_bytes(rng.bytes(200)),
        "names without suffix": lambda: [p.rename(p.with_suffix("")) for p in files],
    }
    name = pick(rng, tuple(changes))
    changes[name]()
    return name


def other_pixels(path: Path, copy_to: Path) -> None:
    ds = pydicom.dcmread(path)
    ds.PixelData = ds.PixelData[::-1]
    save(ds, copy_to)


def save(ds: Dataset, path: Path) -> None:
    """Write a dataset whose values need not be right."""
    with pydicom.config.disable_value_validation():
        ds.save_as(path, enforce_file_format=False)
