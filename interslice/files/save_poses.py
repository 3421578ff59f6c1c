"""How the stacks of a case were found to lie, beside its result: `<case>_poses.json`, and a .tfm for each stack.

A .tfm is called by the number of its stack in the record (run.json) and in the poses: names of scans may be long, and
hold what no file name may.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from interslice.files.alignment import write_poses, write_tfm
from interslice.files.case_folder import Writer
from interslice.files.find import case_of


class SavePoses(Writer):
    """Writes the poses of measurements that are made of stacks (interslice.files.alignment); nothing of others."""

    def write(self, result: dict, folder: Path) -> None:
        stacks = result["image"].meta.get("stacks")
        if not stacks or len(stacks) < 2 and np.allclose(stacks[0].poses, np.eye(4)):
            return
        case = case_of(result["image"])
        write_poses(folder / f"{case}_poses.json", {stack.name: stack.poses for stack in stacks})
        for number, stack in enumerate(stacks[1:], 2):
            if np.allclose(stack.poses, stack.poses[0], atol=1e-12):
                write_tfm(folder / f"{case}_stack{number}.tfm", stack.poses[0])
