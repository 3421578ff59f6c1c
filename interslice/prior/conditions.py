"""Under which conditions a training runs: what a resumed one must share with it, and what it had better.

Conditions are kept in its checkpoints as {"fixed": {id: value}, "noted": {name: value}, "max_epochs": number,
"max_minutes": number or None}.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import monai
import numpy as np
import torch

from interslice.files.fingerprint import fingerprint
from interslice.ranks import world_size
from interslice.usage import UsageError

FIXED = ("seed", "teacher", "epoch_length", "learning_rate", "ema_momentum", "patch_size", "batch_size", "foreground",
         "coarser", "coarser_sizes", "volume_weights", "resample_shear")  # fmt: skip
"""Settings without which a training is another one. Those that change no weight, such as val_interval, are free."""
NOTED = ("grow", "compile")
"""Settings that may change between one machine and the next."""
LENGTH = ("max_epochs", "max_minutes")
"""Settings that the learning rate follows; with the second, the first says nothing."""
RANKS = "the number of ranks"
"""Fixed: with `batch_size` it makes the effective batch. Those of one process do not say it."""
DATA, SCAN = "the data", "the scan"
"""Noted of what is trained on: names and sizes; and of a single one, as of an adaptation, what is in it."""


def conditions_of(settings: Mapping, network: torch.nn.Module, volumes: Sequence[Sequence[Mapping]],
                  device: torch.device | str) -> dict:  # fmt: skip
    """The conditions of a run.

    Args:
        settings: by the ids of configs/train.json.
        network: the prior; its attribute `about`, if it has one, says what it is and what it is trained with.
        volumes: those that are trained on and those that are watched, [{"image": path}, ...] each.
        device: that it is trained on.
    """
    about = dict(flat(getattr(network, "about", {})))
    if isinstance(volumes, str) or not isinstance(volumes, Sequence):
        raise UsageError(f"volumes must be lists of volumes, those of training and of validation, got {volumes!r}")
    images = {str(item["image"]) for item in chain(*volumes)}
    scan = content_of(Path(images.pop())) if len(images) == 1 else None
    return {
        "fixed": {name: settings[name] for name in FIXED if name in settings} | about
        | ({RANKS: world_size()} if world_size() > 1 else {}),
        "noted": {name: settings[name] for name in NOTED if name in settings} | {
            DATA: " and ".join(fingerprint_of(v) for v in volumes),
            "the device": torch.device(device).type,
            "the number of threads": torch.get_num_threads(),
            "torch": str(torch.__version__), "monai": monai.__version__, "numpy": np.__version__,
        } | ({} if scan is None else {SCAN: scan}),
    } | {name: settings.get(name) for name in LENGTH}  # fmt: skip


def flat(about: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """("network#channels", [16, 32]), ... of {"network": {"channels": [16, 32]}}."""
    for name, value in about.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}#")
        else:
            yield prefix + name, value


def fingerprint_of(volumes: Sequence[Mapping]) -> str:
    """How many volumes, and 16 hexadecimal digits of their names and sizes, in order; wherever they lie."""
    told = []
    for item in volumes:
        path = Path(item["image"])
        files = list(path.rglob("*")) if path.is_dir() else [path]
        sizes = [p.stat().st_size for p in files if p.is_file()]
        told.append(f"{path.name} {len(sizes)} {sum(sizes)}")
    return f"{len(volumes)} volumes ({hashlib.sha256(chr(10).join(told).encode()).hexdigest()[:16]})"


def content_of(path: Path) -> str:
    """16 hexadecimal digits of what is in a file, or in the files of a folder, whatever they are called."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return hashlib.sha256(" ".join(str(fingerprint(p)) for p in files).encode()).hexdigest()[:16]


def compare(path: Path, before: Mapping, now: Mapping) -> None:
    """Tell in which conditions a run differs from the one that wrote the checkpoint at `path`.

    Raises:
        ValueError: a fixed one differs.
    """
    fixed, fixed_now = ({RANKS: 1} | conditions["fixed"] for conditions in (before, now))
    if gone := sorted(n for n in fixed.keys() - fixed_now.keys() if "#" not in n):
        raise ValueError(
            f"{path} is of another version, which had {', '.join(gone)}: go on with that version, or train anew in "
            "another output_dir"
        )
    if changed := _changed(fixed, fixed_now):
        ids = ", ".join(name for name, *_ in changed)
        raise ValueError(
            f"{path} was trained otherwise than this run: {_in_words(changed)}; give {ids} as before to go on, or "
            "train anew in another output_dir"
        )
    if changed := _noted_changed(before["noted"], now["noted"]):
        warnings.warn(
            f"{path}: {_in_words(changed)}; the training goes on, but not to the same bits as one that was never "
            "interrupted",
            stacklevel=3,
        )
    if length_of(before) != length_of(now):
        warnings.warn(
            f"{path}: the training was to take {length_of(before)}, and is to take {length_of(now)}: from here on the "
            f"learning rate follows the cosine over {length_of(now)}; what was trained before did not",
            stacklevel=3,
        )


def length_of(conditions: Mapping) -> str:
    """In words: "20 epochs" or "30 minutes"."""
    minutes = conditions.get("max_minutes")
    return f"{conditions['max_epochs']} epochs" if minutes is None else f"{minutes:g} minutes"


def other_data(before: Mapping, now: Mapping) -> str:
    """In words, how the data of a run differ from those of another; empty if they do not, or it is not known."""
    changed = _noted_changed(before.get("noted", {}), now["noted"])
    told = [c for c in changed if c[0] in (DATA, SCAN) and None not in c]
    return _in_words([c for c in told if c[0] == SCAN] or told)


def _noted_changed(before: Mapping, now: Mapping) -> list[tuple[str, object, object]]:
    """`_changed`, without the content of a scan that one of them did not note, as version 0.6.0 and others."""
    return [c for c in _changed(before, now) if c[0] != SCAN or None not in c]


def _changed(before: Mapping, now: Mapping) -> list[tuple[str, object, object]]:
    """(name, value before, value now) of what differs; None where there is no value."""
    values = ((name, before.get(name), now.get(name)) for name in {**before, **now})
    return [(name, a, b) for name, a, b in values if a != b]


def _in_words(changed: Sequence[tuple[str, object, object]]) -> str:
    return ", ".join(f"{name} was {before} and is {now}" for name, before, now in changed)
