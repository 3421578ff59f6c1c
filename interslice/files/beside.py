"""Data files that a header names: beside it or below its folder, as no header may read what lies elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from interslice.files.scan import Refusal


def check_beside(header: Path, data: str) -> None:
    """Raise Refusal where the data file that a header names, from its own folder, lies outside of that folder."""
    folder = os.path.abspath(header.parent)
    if os.path.commonpath([folder, os.path.abspath(os.path.join(folder, data))]) != folder:
        raise Refusal(f"its voxels are said to lie in {data}, outside of the header's folder: copy that file beside it")
