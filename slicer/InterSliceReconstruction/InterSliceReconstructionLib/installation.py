"""Which Python has what a reconstruction needs, where the bundle lies, and what to do if it is nowhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LOWEST = (3, 11)
"""The oldest Python that the package runs with."""
NEEDED = ("torch", "monai", "ignite", "nibabel", "interslice")
ASK = f"""
import importlib.util, json, os, sys
hint = sys.argv[1]
if hint:
    sys.path.insert(0, hint)
missing = [name for name in {NEEDED!r} if importlib.util.find_spec(name) is None]
root = ""
if "interslice" not in missing:
    package = os.path.dirname(importlib.util.find_spec("interslice").origin)
    places = (os.path.dirname(package), os.path.join(package, "share"))
    root = next((p for p in places if os.path.isfile(os.path.join(p, "configs", "inference.json"))), "")
print(json.dumps({{"version": sys.version_info[:2], "missing": missing, "root": root}}))
"""
"""What a Python is asked. Nothing is imported: torch alone would take seconds."""


@dataclass(frozen=True)
class Found:
    """What a Python has.

    Attributes:
        python: the program.
        version: (3, 12), or () where it cannot be started.
        missing: names of packages.
        root: the folder of configs/ and models/, empty if there is none.
    """

    python: str
    version: tuple[int, ...] = ()
    missing: tuple[str, ...] = NEEDED
    root: str = ""

    @property
    def ready(self) -> bool:
        return self.version >= LOWEST and not self.missing and bool(self.root)


def look(python: str, hint: str = "", environment: dict | None = None, run: Callable = subprocess.run) -> Found:
    """Ask a Python what it has.

    Args:
        python: the program.
        hint: a folder with the bundle, looked into first.
        environment: of the process.
        run: as `subprocess.run`.
    """
    try:
        done = run(
            [python, "-c", ASK, hint], env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
            check=True, encoding="utf-8",
        )  # fmt: skip
        said = json.loads(done.stdout.strip().splitlines()[-1])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return Found(python)
    return Found(python, tuple(said["version"]), tuple(said["missing"]), said["root"])


def slicer_python() -> str:
    """Slicer's own Python, as a program."""
    return shutil.which("PythonSlicer") or sys.executable


def advice(found: Found, hint: str, of_slicer: bool) -> str:
    """What to do before the first run, in words; empty if nothing is."""
    if found.ready:
        return ""
    if not found.version:
        return f"{found.python} does not start: choose the Python of an environment that has the package."
    if found.version < LOWEST:
        is_now, lowest = (".".join(map(str, version)) for version in (found.version, LOWEST))
        return (
            f"This Python is {is_now}, and the package needs {lowest} or newer: make an environment of its own for it "
            "(docs/how_to/slicer.md) and choose its Python."
        )
    lacks = ", ".join(found.missing) or "the folder configs/"
    if not is_bundle(hint):
        return f"{lacks} missing: choose the folder of the bundle, the one that holds configs/ and models/."
    if of_slicer:
        return f"{lacks} missing in Slicer's Python: Install puts them there (some GB, minutes), from {hint}."
    return f"{lacks} missing: run  {found.python} -m pip install {' '.join(requirements(hint))}"


def is_bundle(folder: str) -> bool:
    """Whether a folder holds the bundle."""
    return bool(folder) and (Path(folder) / "configs" / "inference.json").is_file()


def requirements(root: str) -> list[str]:
    """What pip is to install: the package with its ranges, which leave Slicer's own packages be; else the pins."""
    project = Path(root) / "pyproject.toml"
    if project.is_file() and "[project]" in project.read_text(encoding="utf-8"):
        return [root]
    return ["-r", str(Path(root) / "requirements.txt")]
