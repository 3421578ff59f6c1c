"""Files of poses: how the stacks of a case lie to each other.

    {"convention": CONVENTION, "stacks": {name: [[4 x 4], ...], ...}}

One matrix where a stack moved as a whole, one for each of its slices where they moved by themselves.

For other programs a transform file of ITK (.tfm) for each stack that moved as a whole. Its places are LPS, and as ITK
resamples it maps the other way: place in the frame of the first stack -> place by the stack's header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from interslice.files.scan import LPS_TO_RAS
from interslice.files.whole import written_whole
from interslice.files.write import write_json

CONVENTION = "mm, RAS+: place by the header -> place in the frame of the first stack"
MOST_BYTES = 64_000_000


def write_poses(path: Path, poses: Mapping[str, Sequence]) -> None:
    """Write matrices (K, 4, 4) by the name of their stack; equal ones are written once."""
    stacks = {}
    for name, matrices in poses.items():
        matrices = np.asarray(matrices, np.float64)
        stacks[name] = (matrices[:1] if np.allclose(matrices, matrices[0], atol=1e-12) else matrices).tolist()
    write_json(path, {"convention": CONVENTION, "stacks": stacks})


def read_poses(path: str | Path) -> dict[str, list]:
    """Matrices by the name of their stack.

    Raises:
        ValueError: the file cannot be read, or is no file of poses.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("larger than a file of poses can be")
        content = json.loads(path.read_text(encoding="utf-8"))
        stacks = {str(name): np.asarray(matrices, np.float64) for name, matrices in content["stacks"].items()}
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}: --poses names a file of poses") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError(f'{path} is no file of poses: expected {{"stacks": {{name: [[4 x 4], ...]}}}}') from None
    for name, matrices in stacks.items():
        if matrices.ndim != 3 or matrices.shape[1:] != (4, 4) or not np.isfinite(matrices).all() or not len(matrices):
            raise ValueError(f"{path}: the poses of {name} have shape {matrices.shape}, expected (1 or more, 4, 4)")
    return {name: matrices.tolist() for name, matrices in stacks.items()}


def write_tfm(path: Path, pose: Sequence) -> None:
    """Write a rigid motion (4, 4) of RAS places as ITK's transform file: LPS, and the other way (above)."""
    matrix = LPS_TO_RAS @ np.linalg.inv(np.asarray(pose, np.float64)) @ LPS_TO_RAS
    numbers = " ".join(f"{v:.17g}" for v in (*matrix[:3, :3].flatten(), *matrix[:3, 3]))
    text = (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n"
    )
    with written_whole(path) as partial:
        Path(partial).write_text(text, encoding="ascii")
