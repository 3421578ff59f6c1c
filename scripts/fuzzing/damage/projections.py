"""Damaged projections: the arrays in .npz files, and the geometry in JSON beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scripts.fuzzing.damage.anything import damage_bytes
from scripts.fuzzing.damage.odd import odd_voxels, pick
from scripts.fuzzing.damage.texts import damage_json


def damage_projections(rng: np.random.Generator, path: Path) -> str:
    """Of .npz with .json."""
    way = pick(rng, ("geometry", "geometry", "geometry", "bytes", "array", "array", "file"))
    if way == "geometry":
        return damage_json(rng, path.with_suffix(".json"))
    if way == "bytes":
        return damage_bytes(rng, path)
    return array(rng, path) if way == "array" else file(rng, path)


def array(rng: np.random.Generator, path: Path) -> str:
    """Other values, types and shapes."""
    with np.load(path) as arrays:
        values, what = odd_voxels(rng, arrays["projections"])
    np.savez(path, projections=values)
    return what


def file(rng: np.random.Generator, path: Path) -> str:
    """Arrays of other names, of texts and objects; no geometry; a file that is no archive."""
    with np.load(path) as arrays:
        values = arrays["projections"]
    changes = {
        "another name": lambda: np.savez(path, sinogram=values),
        "no array": lambda: np.savez(path),
        "texts": lambda: np.savez(path, projections=np.array(["a", "b"])),
        "objects": lambda: np.savez(path, projections=np.array([{}, None], dtype=object)),
        "fields": lambda: np.savez(path, projections=np.zeros(values.shape, [("a", "f4")])),
        "dates": lambda: np.savez(path, projections=np.zeros(values.shape, "M8[s]")),
        "a plain array": lambda: np.save(path.open("wb"), values),
        "compressed": lambda: np.savez_compressed(path, projections=values),
        "no geometry": lambda: path.with_suffix(".json").unlink(),
        "geometry a folder": lambda: (path.with_suffix(".json").unlink(), path.with_suffix(".json").mkdir()),
    }
    name = pick(rng, tuple(changes))
    changes[name]()
    return f"{path.name}: {name}"
