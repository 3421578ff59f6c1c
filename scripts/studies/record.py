"""A JSON file that grows run by run: an interrupted study leaves what it has, and goes on from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

from interslice.files.write import write_json
from interslice.usage import UsageError


def sha256(path: Path) -> str:
    """Of a file, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Record:
    """Results under paths of names, `{"settings": ..., "named": ..., "results": {name: {name: ... result}}}`.

    Args:
        path: the file; what it holds is kept.
        settings: what all its results have in common.
        named: what stands behind some of the names; more may come with each run.

    Raises:
        UsageError: the file holds results of other settings, or something else under one of the names.
    """

    def __init__(self, path: Path, settings: dict, named: dict[str, str] | None = None) -> None:
        self.path = path
        settings = json.loads(json.dumps(settings))  # as a file holds them
        self.content: dict = {"settings": settings, "named": {}, "results": {}}
        if path.exists():
            self.content |= json.loads(path.read_text(encoding="utf-8"))
        for there, given, grows in (
            (self.content["settings"], settings, False),
            (self.content["named"], named or {}, True),
        ):
            names = given if grows else there | given
            if wrong := sorted(k for k in names if there.get(k, given.get(k) if grows else None) != given.get(k)):
                raise UsageError(
                    f"{path} holds runs with other settings ({', '.join(wrong)}): name another --output, or remove it"
                )
        self.content["named"] |= named or {}

    def get(self, key: Iterable):
        """The result under a path of names; None if there is none."""
        place = self.content["results"]
        for name in key:
            place = place.get(str(name)) if place is not None else None
        return place

    def add(self, key: Iterable, result) -> None:
        """Keep a result, on the disk too."""
        *parents, last = map(str, key)
        place = self.content["results"]
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.content)

    def fill(self, keys: Iterable[tuple], run: Callable[[tuple], dict], what: str) -> None:
        """`run` every key that has no result yet, with a bar."""
        missing = [key for key in keys if self.get(key) is None]
        for key in tqdm(missing, desc=what, unit="run"):
            self.add(key, run(key))
