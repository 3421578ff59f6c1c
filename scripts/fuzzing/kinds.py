"""The kinds of inputs: how each is written well, damaged, and run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.fuzzing import scans
from scripts.fuzzing.damage.dicom import damage_dicom
from scripts.fuzzing.damage.hdf5 import damage_fastmri, damage_ismrmrd
from scripts.fuzzing.damage.odd import Damage
from scripts.fuzzing.damage.projections import damage_projections
from scripts.fuzzing.damage.texts import damage_json, damage_xml
from scripts.fuzzing.damage.volumes import (
    damage_metaimage,
    damage_mgh,
    damage_nifti,
    damage_nrrd,
)
from scripts.fuzzing.damage.weights import damage_weights

Writer = Callable[[Path, int], Path]
SCAN, PROJECTIONS, KSPACE = (("good.nii.gz", scans.write_nifti), ("good.npz", scans.write_projections),
                             ("good.h5", scans.write_fastmri))  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        configs: after configs/inference.json.
        good: name and writer of the case that lies beside.
        bad: names and writers of the one that is damaged, as many as there are formats.
        damage: changes what was written at a path.
        ways: of running (`WAYS`).
    """

    configs: tuple[str, ...]
    good: tuple[str, Writer]
    bad: tuple[tuple[str, Writer], ...]
    damage: Damage
    ways: tuple[str, ...] = ("plain",)


WAYS = {
    "plain": ((), ()),
    "torch": ((), ("--operator#backend", "torch")),  # or each child would compile the cone beam
    "report": ((), ("--report", "True")),
    "both": ((), ("--output_format", "both")),
    "evaluate": (("evaluate",), ("--operator#axis", "0")),
}
"""More configs and options."""
VOLUME_WAYS = ("plain",) * 15 + ("report", "both", "both", "evaluate", "evaluate")


def damage_sidecar(rng: np.random.Generator, path: Path) -> str:
    """The JSON file beside a volume."""
    return damage_json(rng, path.with_name("bad.json"))


def damage_rtk(rng: np.random.Generator, path: Path) -> str:
    """The geometry in XML, or the image of the projections."""
    return damage_xml(rng, path.with_suffix(".xml")) if rng.random() < 0.8 else damage_metaimage(rng, path)


KINDS = {
    "nifti": Kind((), SCAN, tuple((n, scans.write_nifti) for n in ("bad.nii.gz", "bad.nii.gz", "bad.nii", "bad.hdr")),
                  damage_nifti, VOLUME_WAYS),
    "mgh": Kind((), SCAN, tuple((n, scans.write_mgh) for n in ("bad.mgh", "bad.mgz")), damage_mgh, VOLUME_WAYS),
    "metaimage": Kind((), SCAN, tuple((n, scans.write_metaimage) for n in ("bad.mha", "bad.mhd")), damage_metaimage,
                      VOLUME_WAYS),
    "nrrd": Kind((), SCAN, tuple((n, scans.write_nrrd) for n in ("bad.nrrd", "bad.nhdr")), damage_nrrd, VOLUME_WAYS),
    "dicom": Kind((), SCAN, (("bad", scans.write_dicom), ("bad", scans.write_dicom), ("bad", scans.write_enhanced)),
                  damage_dicom, VOLUME_WAYS),
    "sidecar": Kind((), SCAN, (("bad.nii.gz", scans.write_sidecar),), damage_sidecar, VOLUME_WAYS),
    "projections": Kind(("task_svct",), PROJECTIONS, (("bad.npz", scans.write_projections),), damage_projections),
    "rtk": Kind(("task_svct",), PROJECTIONS, (("bad.mha", scans.write_rtk),), damage_rtk, ("torch",)),
    "fastmri": Kind(("task_csmri",), KSPACE, (("bad.h5", scans.write_fastmri),), damage_fastmri),
    "ismrmrd": Kind(("task_csmri",), KSPACE, (("bad.h5", scans.write_ismrmrd),), damage_ismrmrd),
}  # fmt: skip
"""Those that lie in a folder with a good case. Weights and options concern all cases of a run (`runs.py`)."""
WEIGHTS = (("bad.pt", scans.write_weights), ("bad.pt", scans.write_legacy_weights))
ALL = (*KINDS, "weights", "options")
__all__ = ["ALL", "KINDS", "WAYS", "WEIGHTS", "Kind", "damage_weights"]
