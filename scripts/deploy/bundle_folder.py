"""Where the bundle is: the folder that -m or HOLOSCAN_MODEL_PATH names, or the one folder with a bundle inside it."""

from __future__ import annotations

from pathlib import Path

MARK = "configs/metadata.json"


def find_bundle(model_path: str | Path) -> Path:
    """The bundle at `model_path`, or directly inside it, as packages of the App SDK hold models.

    Raises:
        ValueError: there is none, or several.
    """
    path = Path(model_path).resolve()
    inside = sorted(path.iterdir()) if path.is_dir() else []
    found = [p for p in (path, *inside) if (p / MARK).is_file()]
    if path in found:
        return path
    if len(found) != 1:
        what = f"{len(found)} bundles: " + ", ".join(p.name for p in found) if found else f"no bundle ({MARK})"
        raise ValueError(f"{path} holds {what}; name the folder of one by -m, or in HOLOSCAN_MODEL_PATH")
    return found[0]
