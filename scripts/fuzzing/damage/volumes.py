"""Damaged volumes: fields of their headers, their voxels, and where these lie."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable
from pathlib import Path

import itk
import nibabel as nib
import nrrd
import numpy as np

from scripts.fuzzing.damage.anything import GZIP, damage_bytes
from scripts.fuzzing.damage.odd import WORDS, odd_voxels, odd_word, pick, set_element

BOMB = 1 << 24
"""Bytes of zeros that a member of a compressed file stands for."""
UNITS = ("unknown", "meter", "mm", "micron", "sec", "hz")


def damage_nifti(rng: np.random.Generator, path: Path) -> str:
    """Of .nii, .nii.gz, and .hdr with .img."""
    pair = path.with_suffix(".img")
    ways = [damage_bytes, damage_bytes, nifti_field, nifti_field, nifti_voxels, nifti_place, nifti_bomb]
    if pair.exists():
        if rng.random() < 0.2:
            return damage_bytes(rng, pair)
        if rng.random() < 0.1:
            pair.unlink()
            return "the other half is missing"
        ways.remove(nifti_bomb)
    return pick(rng, ways if rng.random() < 0.05 else [w for w in ways if w is not nifti_bomb])(rng, path)


def nifti_field(rng: np.random.Generator, path: Path) -> str:
    """One or two fields of the header set to odd numbers, whatever the rest says."""
    return binary_fields(rng, path, lambda content: nib.Nifti1Header.from_fileobj(io.BytesIO(content), check=False))


def mgh_field(rng: np.random.Generator, path: Path) -> str:
    return binary_fields(rng, path, lambda content: nib.MGHImage.header_class(content[:284], check=False))


def binary_fields(rng: np.random.Generator, path: Path, parse: Callable) -> str:
    """Odd numbers in the header that `parse` makes of a file's bytes, at their beginning."""
    content = path.read_bytes()
    compressed = content.startswith(GZIP)
    content = gzip.decompress(content) if compressed else content
    header = parse(content).structarr
    said = []
    for _ in range(int(rng.integers(1, 3))):
        name = pick(rng, header.dtype.names)
        field = header[name]
        if field.dtype.names is None:
            changed = np.atleast_1d(np.array(field))
            said.append(f"{name}{set_element(rng, changed)}")
            header[name] = changed.reshape(field.shape)
    start = header.tobytes()
    content = start + content[len(start) :]
    path.write_bytes(gzip.compress(content, 1, mtime=0) if compressed else content)
    return "header: " + ", ".join(said)


def nifti_voxels(rng: np.random.Generator, path: Path) -> str:
    """Voxels of another kind under a whole header."""
    image = nib.load(path, mmap=False)
    values = np.asarray(image.dataobj)
    if rng.random() < 0.1:
        colours = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        values, what = np.zeros(values.shape, colours), "voxels: colours"
    else:
        values, what = odd_voxels(rng, values)
    save_nifti(image, values, image.affine, path)
    return what


def nifti_place(rng: np.random.Generator, path: Path) -> str:
    """An affine that places nothing, or in an odd way; odd codes and units."""
    image = nib.load(path, mmap=False)
    affine = np.array(image.affine)
    changes = {
        "singular": lambda: affine.__setitem__((slice(None), 0), 0),
        "two axes alike": lambda: affine.__setitem__((slice(0, 3), 0), affine[:3, 1]),
        "sheared": lambda: affine.__setitem__((0, 1), float(rng.uniform(0.001, 1))),
        "one number odd": lambda: set_element(rng, affine[:3]),
        "all of one number": lambda: affine[:3].fill(pick(rng, (0.0, 1.0, np.nan, np.inf))),
        "tiny": lambda: affine.__imul__(1e-6),
        "huge": lambda: affine.__imul__(1e6),
    }
    name = pick(rng, tuple(changes))
    changes[name]()
    save_nifti(image, np.asarray(image.dataobj), None, path, affine)
    return f"affine: {name}"


def save_nifti(image, values: np.ndarray, affine: np.ndarray | None, path: Path, sform: np.ndarray | None = None):
    """Save what nibabel would refuse to, too: a matrix set as the sform goes out as it is."""
    made = type(image)(values, affine, dtype=values.dtype)
    if sform is not None:
        made.header["sform_code"], made.header["pixdim"][1:4] = 1, (1, 1, 4)
        for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
            made.header[name] = sform[row]
        made._affine = None  # or nibabel would overwrite the matrix by the affine that it has
    nib.save(made, path)


def nifti_bomb(rng: np.random.Generator, path: Path) -> str:
    """A small file that says, and holds when unpacked, gigabytes of zeros; without compression, says so alone."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8), header.set_data_shape((1024, 1024, 1024)), header.set_zooms((1, 1, 4))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    start = header.binaryblock.ljust(352, b"\0")
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(start, mtime=0) + gzip.compress(bytes(BOMB), mtime=0) * (2**30 // BOMB))
        return "unpacks to a gigabyte of zeros"
    path.write_bytes(start + rng.bytes(100))
    return "says a gigabyte, and holds 100 bytes"


def damage_mgh(rng: np.random.Generator, path: Path) -> str:
    """Of .mgh and .mgz."""

    def voxels(rng: np.random.Generator, path: Path) -> str:
        image = nib.load(path, mmap=False)
        values, what = odd_voxels(rng, np.asarray(image.dataobj))
        kept = values.real if np.iscomplexobj(values) else values
        kept = kept.astype(np.float32) if kept.dtype not in (np.uint8, np.int16, np.int32) else kept
        if kept.ndim not in (3, 4) or 1 in kept.shape[2:]:  # nibabel writes no others
            return damage_bytes(rng, path)
        nib.save(nib.MGHImage(np.ascontiguousarray(kept), image.affine), path)
        return what

    return pick(rng, (damage_bytes, mgh_field, mgh_field, voxels))(rng, path)


def damage_metaimage(rng: np.random.Generator, path: Path) -> str:
    """Of .mha, and .mhd with .raw."""
    return of_text_header(rng, path, path.with_suffix(".raw"), " = ", itk_voxels)


def damage_nrrd(rng: np.random.Generator, path: Path) -> str:
    """Of .nrrd, and .nhdr with .raw.gz."""
    return of_text_header(rng, path, path.with_suffix(".raw.gz"), ": ", nrrd_voxels)


def of_text_header(rng: np.random.Generator, path: Path, data: Path, sign: str, voxels: Callable) -> str:
    if data.exists() and rng.random() < 0.25:
        if rng.random() < 0.3:
            data.unlink()
            return f"{data.name} is missing"
        return damage_bytes(rng, data)
    way = pick(rng, ("bytes", "field", "field", "field", "voxels"))
    if way == "bytes":
        return damage_bytes(rng, path)
    return voxels(rng, path) if way == "voxels" else text_field(rng, path, sign)


def text_field(rng: np.random.Generator, path: Path, sign: str) -> str:
    """One or two lines of a header in words: another value, none, twice, or another name."""
    content = path.read_bytes()
    end = re.search(rb"ElementDataFile.*?\n|\n\n", content)
    head, rest = (content[: end.end()], content[end.end() :]) if end else (content, b"")
    lines = head.decode("latin-1").split("\n")
    said = []
    for _ in range(int(rng.integers(1, 3))):
        fields = [i for i, line in enumerate(lines) if sign in line]
        if not fields:
            break
        at = pick(rng, fields)
        name, value = lines[at].split(sign, 1)
        way = pick(rng, ("value", "value", "value", "removed", "twice", "renamed", "added", "moved"))
        said.append(f"{name} {way}")
        if way == "value":
            lines[at] = f"{name}{sign}{odd_word(rng, value)}"
            said[-1] = repr(lines[at][:80])
        elif way == "renamed":
            lines[at] = f"{name[:-1]}{sign}{value}"
        elif way == "added":
            lines.insert(at, f"{pick(rng, ('x', 'HeaderSize', 'CompressedData', 'content', 'byte skip'))}{sign}"
                             f"{pick(rng, WORDS)}")  # fmt: skip
        elif way == "twice":
            lines.insert(at, f"{name}{sign}{odd_word(rng, value)}")
        else:
            line = lines.pop(at)
            if way == "moved":
                lines.insert(1, line)
    path.write_bytes("\n".join(lines).encode("latin-1", "replace") + rest)
    return "header: " + ", ".join(said)


def itk_voxels(rng: np.random.Generator, path: Path) -> str:
    values, what = odd_voxels(rng, itk.array_from_image(itk.imread(str(path))).T)
    kinds = {np.dtype("float32"), np.dtype("uint8"), np.dtype("int16"), np.dtype("float64")}
    if values.ndim not in (2, 3, 4) or not values.size or values.dtype not in kinds:
        return damage_bytes(rng, path)
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(values.T)), str(path))
    return what


def nrrd_voxels(rng: np.random.Generator, path: Path) -> str:
    values, header = nrrd.read(str(path))
    values, what = odd_voxels(rng, values)
    if np.iscomplexobj(values) or not values.size:
        return damage_bytes(rng, path)
    axes = values.ndim
    directions = np.full((axes, 3), np.nan)
    directions[: min(axes, 3)] = np.diag([1.0, 1.0, 4.0])[: min(axes, 3)]
    fields = {"space": header["space"], "space directions": directions, "space origin": np.zeros(3)}
    nrrd.write(str(path), values, fields)
    return what
