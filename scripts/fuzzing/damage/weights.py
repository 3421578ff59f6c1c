"""Damaged weights: names, shapes and kinds of tensors, what they say of themselves, and files that would run code."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch

from scripts.fuzzing.damage.anything import damage_bytes
from scripts.fuzzing.damage.odd import VALUES, pick

EXTRA_STATE = "_extra_state"
MARK = "code-from-data-ran"
"""A file of this name appears where code ran that came with data."""


class Marker:
    """Unpickled, it makes a file: what code hidden in a file of weights could do."""

    def __reduce__(self):
        return open, (MARK, "w")


def damage_weights(rng: np.random.Generator, path: Path) -> str:
    """Of a state dict, in torch's zip format or the old one."""
    way = pick(rng, (damage_bytes, damage_bytes, tensors, tensors, tensors, words, content, archive))
    return way(rng, path)


def tensors(rng: np.random.Generator, path: Path) -> str:
    """One tensor, or all of them."""
    state = torch.load(path, weights_only=True)
    names = [n for n in state if n != EXTRA_STATE]
    name = pick(rng, names)
    old = state[name]
    changes = {
        "removed": lambda: state.pop(name),
        "renamed": lambda: state.__setitem__(f"module.{name}", state.pop(name)),
        "added": lambda: state.__setitem__("x", torch.zeros(3)),
        "NaN": lambda: state[name].fill_(torch.nan),
        "one infinity": lambda: state[name].view(-1)[0].fill_(torch.inf),
        "huge": lambda: state[name].mul_(1e38),
        "another shape": lambda: state.__setitem__(name, torch.zeros(*old.shape, 2)),
        "no shape": lambda: state.__setitem__(name, torch.tensor(1.0)),
        "empty": lambda: state.__setitem__(name, torch.zeros(0)),
        "a list": lambda: state.__setitem__(name, old.tolist()),
        "a number": lambda: state.__setitem__(name, 3),
        "nothing": lambda: state.__setitem__(name, None),
        "sparse": lambda: state.__setitem__(name, old.to_sparse()),
        "on no device": lambda: state.__setitem__(name, old.to("meta")),
        "key a number": lambda: state.__setitem__(7, state.pop(name)),
        "all kinds": lambda: None,
    }
    way = pick(rng, tuple(changes))
    if way == "all kinds":
        kind = pick(
            rng, (torch.int32, torch.bool, torch.complex64, torch.float64, torch.float16, torch.bfloat16, torch.uint8)
        )
        state = {n: v.to(kind) if n != EXTRA_STATE else v for n, v in state.items()}
        way = f"all {kind}"
    else:
        changes[way]()
    torch.save(state, path)
    return f"{name}: {way}"


def words(rng: np.random.Generator, path: Path) -> str:
    """What the weights say of themselves."""
    state = torch.load(path, weights_only=True)
    about = json.loads(bytes(state[EXTRA_STATE].tolist()))
    about |= {part: about.get(part, {}) for part in ("schedule", "scale", "grid")}
    part = pick(rng, tuple(about))
    name = pick(rng, {
        "network": ("channels", "num_res_blocks", "norm_num_groups", "x"), "grid": ("spacing", "x"),
        "schedule": ("num_train_timesteps", "beta_start", "beta_end", "schedule", "x"),
        "scale": ("kind", "low", "high", "x"),
    }[part])  # fmt: skip
    if rng.random() < 0.2:
        about[part] = pick(rng, VALUES)
    else:
        about[part] = dict(about[part]) | {
            name: pick(rng, (*VALUES, [8], [8, 16, 32], [8, -16], [2**20, 2**20], [7, 16]))
        }
    state[EXTRA_STATE] = torch.tensor(list(json.dumps(about).encode()), dtype=torch.uint8)
    if rng.random() < 0.15:
        state[EXTRA_STATE] = pick(rng, (torch.zeros(0), torch.full((5,), 300), torch.ones(3, 3), torch.tensor([1.5])))
    torch.save(state, path)
    return f"says {part} {name} = {str(about[part])[:60]}"


def content(rng: np.random.Generator, path: Path) -> str:
    """Files that torch or pickle wrote, and that hold no weights."""
    state = torch.load(path, weights_only=True)
    changes = {
        "code": lambda: torch.save({"x": Marker()}, path),
        "code in the old format": lambda: torch.save({"x": Marker()}, path, _use_new_zipfile_serialization=False),
        "code, pickled": lambda: path.write_bytes(pickle.dumps(Marker())),
        "a tensor": lambda: torch.save(torch.zeros(3), path),
        "a list": lambda: torch.save([1, 2], path),
        "nothing": lambda: torch.save(None, path),
        "no weights": lambda: torch.save({}, path),
        "a deeper dict": lambda: torch.save({"state_dict": {"net": state}}, path),
        "model is a list": lambda: torch.save({"model": [1]}, path),
        "a numpy array": lambda: np.savez(path.open("wb"), x=np.zeros(3)),
        "a traced network": lambda: torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)), path),
        "a network": lambda: torch.save(torch.nn.Linear(2, 2), path),
        "the old format, cut": lambda: cut_legacy(rng, state, path),
    }
    way = pick(rng, tuple(changes))
    changes[way]()
    return f"holds {way}"


def cut_legacy(rng: np.random.Generator, state: dict, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(rng.integers(len(whole)))])


def archive(rng: np.random.Generator, path: Path) -> str:
    """Members of the zip file, which the old format is not."""
    if not zipfile.is_zipfile(path):
        return damage_bytes(rng, path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = pick(rng, tuple(members))
    way = pick(rng, ("removed", "empty", "noise", "short", "added"))
    if way == "added":
        members["../../escaped"] = b"x"
    elif way == "removed":
        del members[name]
    else:
        members[name] = {"empty": b"", "noise": rng.bytes(len(members[name])), "short": members[name][:-1]}[way]
    with zipfile.ZipFile(path, "w") as file:
        for member, data in members.items():
            file.writestr(member, data)
    return f"{name} {way}"
