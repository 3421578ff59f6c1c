"""Tries the wheel in fresh environments: versions of Python, and of MONAI and torch, and records what came of each.

    python -m scripts.try_versions                    # what can be installed here cheaply; the rest is only resolved
    python -m scripts.try_versions --python 3.12 --all
    python -m scripts.try_versions --no-install       # resolves alone
    python -m scripts.try_versions --lowest           # the lower ends of the ranges in pyproject.toml, too

For each combination an environment is made, the wheel is installed with what it asks for, and `interslice doctor` and a
small reconstruction run in it. A combination whose torch is not on this machine would fetch gigabytes: it is only
resolved, from the index's metadata, and its console command is started without torch, unless --all is given.
docs/versions.json holds the results, and says `tried` of nothing that was not. Needs hatchling and uv.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

from interslice.files.last_words import plain_endings
from interslice.files.whole import written_whole

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "docs" / "versions.json"
PYTHONS = ("3.11", "3.12", "3.13")
LATEST = {"monai": ("1.6.1", "1.6.0"), "torch": ("2.15.0", "2.14.1", "2.13.0")}
"""The two latest releases when this was last looked at, and the pinned one."""
UV = [sys.executable, "-m", "uv"]
SCAN = "interslice/share/sample_data/mri/measured/colin27_t1_5mm.nii.gz"
PIECE = "import nibabel as n; n.save(n.load({!r}).slicer[60:108, 70:118, 8:14], 'piece.nii.gz')"
FINE = ["--preset", "fast", "--num-draws", "1", "--num-steps", "1", "--no-report", "--device", "cpu"]


def lowest() -> list[str]:
    """The lower end of each range of pyproject.toml as a pin, as `numpy==2.1.*`; torch and MONAI are chosen apart."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = (re.match(r"([\w.-]+)>=([\w.]+)", line).groups() for line in project["dependencies"])
    return [f"{name}=={version}.*" for name, version in found if name not in LATEST]


def combinations(pythons: Sequence[str]) -> Iterator[dict]:
    """Versions to try together: each Python with the pins' torch and MONAI, and then with each latest release."""
    for python in pythons:
        yield {"python": python, "torch": LATEST["torch"][-1], "monai": LATEST["monai"][0]}
        yield {"python": python, "torch": LATEST["torch"][-1], "monai": LATEST["monai"][1]}
        for torch in LATEST["torch"][:-1]:
            yield {"python": python, "torch": torch, "monai": LATEST["monai"][0]}


def build(folder: Path) -> Path:
    """The wheel of this checkout."""
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT)
    return next(folder.glob("interslice-*.whl"))


def attempt(versions: dict, wheel: Path, install: bool, folder: Path, pins: Sequence[str]) -> dict:
    """What came of one combination."""
    start, result = time.perf_counter(), dict(versions)
    asked = [str(wheel), f"torch=={versions['torch']}", f"monai=={versions['monai']}", *pins]
    try:
        if install:
            python = environment(versions["python"], folder)
            uv_pip(python, *asked)
            said = run([python, "-m", "interslice", "doctor", "-o", str(folder)], cwd=folder)
            run([python, "-c", PIECE.format(str(next(folder.glob(f"venv/**/{SCAN}"))))], cwd=folder)
            run([python, "-m", "interslice", "run", "piece.nii.gz", "-o", "out", *FINE], cwd=folder)
            assert (folder / "out/piece/piece_recon.nii.gz").is_file()
            result |= {"tried": "install, doctor, run", "doctor": said.splitlines()[-1].split(" (")[0]}
        else:
            result["resolved"] = resolve(asked, versions["python"], folder)
            result["tried"] = start_without_torch(versions["python"], wheel, folder)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout or "").strip().splitlines()
        result |= {"failed": last[-1][:300] if last else str(error)}
    return result | {"seconds": round(time.perf_counter() - start)}


def environment(python: str, folder: Path) -> str:
    """A fresh virtual environment of a Python; returns the path of its interpreter."""
    run([*UV, "venv", "-q", "--python", interpreter(python), str(folder / "venv")])
    return str(next(p for p in (folder / "venv/bin/python", folder / "venv/Scripts/python.exe") if p.exists()))


def uv_pip(python: str, *asked: str) -> None:
    """Install into an environment; what lies in folders that pip is told of need not be fetched."""
    links = [word for folder in os.environ.get("PIP_FIND_LINKS", "").split() for word in ("--find-links", folder)]
    run([*UV, "pip", "install", "-q", "--python", python, *links, *asked])


def interpreter(python: str) -> str:
    """A Python of this machine that starts."""
    for name in (f"python{python}", *(str(p) for p in Path.home().glob(f".pyenv/versions/{python}*/bin/python"))):
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", "0"], capture_output=True).returncode == 0:
            return path
    raise subprocess.CalledProcessError(1, python, stderr=f"no Python {python} on this machine")


def resolve(asked: Sequence[str], python: str, folder: Path) -> str:
    """Whether versions agree that satisfy everything: from metadata alone."""
    (folder / "asked.txt").write_text("\n".join(asked), encoding="utf-8")
    said = run([*UV, "pip", "compile", "-q", "--python-version", python, str(folder / "asked.txt")])
    return f"{len(re.findall(r'^[a-z][^ ]*==', said, re.MULTILINE))} packages"


def start_without_torch(python: str, wheel: Path, folder: Path) -> str:
    """The wheel with click alone: its files compile, and its console command starts."""
    ours = environment(python, folder)
    uv_pip(ours, "click", "fire")
    uv_pip(ours, "--no-deps", str(wheel))
    site = next(folder.glob("venv/**/interslice/home.py")).parent
    run([ours, "-W", "error", "-m", "compileall", "-q", str(site)])
    for words in (["tasks"], ["run", "--help"]):
        run([ours, "-m", "interslice", *words], cwd=folder)
    return "console command, without torch"


def on_this_machine(torch: str, python: str) -> bool:
    """Whether pip finds a wheel of torch for this Python in a folder that it is told of, and need not fetch it."""
    folders = os.environ.get("PIP_FIND_LINKS", "").split()
    tag = f"-cp{python.replace('.', '')}-"
    return any(tag in p.name for folder in folders for p in Path(folder).glob(f"torch-{torch}*.whl"))


def run(words: Sequence[str], cwd: Path | None = None) -> str:
    """What a program prints; raises CalledProcessError."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(list(words), cwd=cwd, env=clean, check=True, capture_output=True, encoding="utf-8").stdout


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", default=PYTHONS, help="versions of Python")
    parser.add_argument("--no-install", action="store_true", help="resolve alone")
    parser.add_argument("--all", action="store_true", help="install every torch, though it be fetched")
    parser.add_argument(
        "--lowest", action="store_true", help="also the lower ends of the ranges, with the first Python"
    )
    parser.add_argument("--record", type=Path, default=RECORD, help="the file of results")
    args = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        tries = [(versions, []) for versions in combinations(args.python)]
        if args.lowest:
            tries.append((tries[0][0] | {"monai": LATEST["monai"][-1], "others": "lowest"}, lowest()))
        for versions, pins in tries:
            here = not args.no_install and on_this_machine(versions["torch"], versions["python"])
            with tempfile.TemporaryDirectory() as own:
                rows.append(attempt(versions, wheel, here or args.all, Path(own), pins))
            print(json.dumps(rows[-1]), flush=True)
    record = {"system": f"{platform.system()} {platform.machine()}", "combinations": rows,
              "not tried": ["Windows", "macOS", "Apple's GPUs (MPS)"]}  # fmt: skip
    with written_whole(args.record) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if failed := [row for row in rows if "failed" in row]:
        raise SystemExit(f"{len(failed)} of {len(rows)} combinations failed")


if __name__ == "__main__":
    with plain_endings():
        main()
