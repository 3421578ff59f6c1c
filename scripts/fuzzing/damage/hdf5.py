"""Damaged k-space in HDF5: datasets, their types and shapes, acquisitions, and the header in XML."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from scripts.fuzzing.damage.anything import damage_bytes
from scripts.fuzzing.damage.odd import pick, set_element
from scripts.fuzzing.damage.texts import changed_xml

KINDS = ("c8", "c16", "f4", "f8", "i2", "u1", "S4", "bool")


def damage_fastmri(rng: np.random.Generator, path: Path) -> str:
    """Of `kspace`, `mask` and `ismrmrd_header`."""
    way = pick(rng, (damage_bytes, dataset, dataset, dataset, dataset, header))
    return way(rng, path)


def header(rng: np.random.Generator, path: Path) -> str:
    """The XML of the scan."""
    with h5py.File(path, "a") as file:
        if "ismrmrd_header" in file:
            text = file["ismrmrd_header"][()].decode()
            del file["ismrmrd_header"]
            file["ismrmrd_header"], what = changed_xml(rng, text)
        else:
            text, what = changed_xml(rng, file["dataset/xml"][0].decode())
            file["dataset/xml"][0] = text
    return f"header: {what}"


def dataset(rng: np.random.Generator, path: Path) -> str:
    """One dataset that is missing, renamed, or of another type, shape or content."""
    with h5py.File(path, "a") as file:
        name = pick(rng, ("kspace", "kspace", "kspace", "mask", "ismrmrd_header"))
        values = file[name][()]
        way = pick(rng, ("removed", "renamed", "group", "link", "elsewhere", "type", "values", "values", "shape",
                         "shape", "compressed", "giant", "names"))  # fmt: skip
        what = f"{name} {way}"
        del file[name]
        if way == "renamed":
            file[name.capitalize()] = values
        elif way == "group":
            file.create_group(name)["x"] = 1
        elif way == "link":
            file[name] = h5py.SoftLink("/nowhere")
        elif way == "elsewhere":
            file[name] = h5py.ExternalLink("nowhere.h5", "/x")
        elif way == "compressed" and isinstance(values, np.ndarray):
            file.create_dataset(name, data=values, compression="gzip")
        elif way == "giant":
            shape = (4, 2, 50_000, 50_000) if name == "kspace" else (10**10,)
            file.create_dataset(name, shape, "c8" if name == "kspace" else "f4", chunks=(1, 1, 64, 64)[: len(shape)])
        elif way == "names":
            file.create_dataset(name, data=np.zeros((4, 16, 12), [("r", "f4"), ("i", "f4")]))
        elif way in ("type", "values", "shape"):
            made, more = changed_values(rng, np.asarray(values), way)
            try:
                file[name] = made
            except TypeError:
                return f"{name} removed"
            what = f"{name}: {more}"
    return what


def changed_values(rng: np.random.Generator, values: np.ndarray, way: str) -> tuple[np.ndarray, str]:
    """An array of another type, with odd numbers, or of another shape."""
    with np.errstate(all="ignore"):
        if values.dtype.kind not in "fc":
            return np.array(pick(rng, (b"", b"x", b"<a/>", 3.5, [b"<a/>", b"<b/>"]))), "another value"
        if way == "type":
            kind = pick(rng, KINDS)
            return np.real(values).astype(kind) if kind not in ("c8", "c16") else values.astype(kind), f"type {kind}"
        if way == "values":
            number = pick(rng, (np.nan, np.inf, 0, 1, 1e38, 1e-38, -1))
            share = pick(rng, (0.001, 0.2, 1.0))
            return np.where(rng.random(values.shape) < share, number, values).astype(
                values.dtype
            ), f"{number} in {share}"
        changes = {
            "flat": lambda: values.ravel(), "an axis less": lambda: values[0], "an axis more": lambda: values[None],
            "turned": lambda: values.T, "empty": lambda: values[:0], "one": lambda: values[:1],
            "scalar": lambda: values.flat[0],
            "doubled": lambda: np.concatenate([values, values], -1), "cut": lambda: values[..., :-3],
            "reversed": lambda: values[..., ::-1], "two axes": lambda: values.reshape(-1, values.shape[-1]),
        }  # fmt: skip
        name = pick(rng, tuple(changes))
        return np.array(changes[name]()), f"shape: {name}"


def damage_ismrmrd(rng: np.random.Generator, path: Path) -> str:
    """Of the acquisitions and the header."""
    way = pick(rng, (damage_bytes, acquisitions, acquisitions, acquisitions, header, groups))
    return way(rng, path)


def groups(rng: np.random.Generator, path: Path) -> str:
    """Groups and datasets that are missing, or too many."""
    with h5py.File(path, "a") as file:
        way = pick(rng, ("no xml", "no data", "two groups", "renamed", "xml empty", "data empty", "xml a number"))
        if way == "two groups":
            file.copy("dataset", "other")
        elif way == "renamed":
            file.move("dataset", "measured")
        elif way == "data empty":
            file["dataset/data"].resize(0, axis=0) if file["dataset/data"].maxshape[0] is None else None
        else:
            del file["dataset/data" if way == "no data" else "dataset/xml"]
            if way == "xml empty":
                file.create_dataset("dataset/xml", (0,), h5py.special_dtype(vlen=bytes))
            elif way == "xml a number":
                file["dataset/xml"] = 3.0
    return way


def acquisitions(rng: np.random.Generator, path: Path) -> str:
    """Fields of the heads of some acquisitions, or their samples."""
    with h5py.File(path, "a") as file:
        data = file["dataset/data"]
        lines = data[()]
        some = [int(rng.integers(len(lines)))] if rng.random() < 0.5 else range(len(lines))
        if rng.random() < 0.3:
            way = pick(rng, ("cut", "empty", "NaN", "zeros", "huge"))
            for line in some:
                old = lines["data"][line]
                lines["data"][line] = {"cut": old[:-2], "empty": old[:0], "NaN": old * np.nan, "zeros": old * 0,
                                       "huge": old * np.float32(1e38)}[way]  # fmt: skip
            data[...] = lines
            return f"samples of {len(some)} lines: {way}"
        head = lines["head"]
        name = pick(rng, head.dtype.names)
        state = rng.bit_generator.state
        said = ""
        for line in some:
            rng.bit_generator.state = state
            part, inner = head[line : line + 1], name
            while part[inner].dtype.names:
                part, inner = part[inner], pick(rng, part[inner].dtype.names)
            changed = np.array(part[inner])
            said = f"{inner}{set_element(rng, changed)}"
            part[inner] = changed
        data[...] = lines
    return f"heads of {len(some)} lines: {said}"
