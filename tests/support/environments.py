"""Environments for tools that cannot share the tests' own, and bundles for them to read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from tests.support.scans import ROOT

INSTALLING = 600
"""Seconds at most."""


def clean_environment(**others: str) -> dict[str, str]:
    """This process's environment, without what would lead to another place's packages."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"} | others


def make_environment(folder: Path, packages: Sequence[str]) -> Path:
    """A virtual environment that sees this interpreter's packages, with `packages` before them; its interpreter.

    Nothing that the packages depend on is installed: the list is complete, with what is here.
    """
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    install = [python, "-m", "pip", "install", "--no-deps", "--quiet", *packages]
    done = subprocess.run(
        list(map(str, install)), capture_output=True, encoding="utf-8", timeout=INSTALLING, env=clean_environment()
    )
    if done.returncode:
        raise RuntimeError(f"pip install {' '.join(packages)} failed:\n{done.stderr[-2000:]}")
    # Files like this are read in the order of their names; those of some packages import others.
    shared = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    (site / "0_shared.pth").write_text("\n".join(shared) + "\n", encoding="utf-8")
    return python


def copy_bundle(folder: Path, weights: Path, **settings: dict) -> Path:
    """A bundle with other weights and changed configs: copy_bundle(folder, weights, inference={"outer#inner": 1})."""
    for part in ("interslice", "configs"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "models").mkdir()
    shutil.copyfile(weights, folder / "models" / "model.pt")
    for name, changes in settings.items():
        path = folder / "configs" / f"{name}.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        for id, value in changes.items():
            *outer, last = id.split("#")
            item = config
            for key in outer:
                item = item[key]
            item[last] = value
        path.write_text(json.dumps(config, indent=4), encoding="utf-8")
    return folder
