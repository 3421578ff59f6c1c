"""Tiny BIDS data sets, and the official validator's word on one."""

import json

import pytest

from interslice.bids.validator import errors_in, find_validator
from tests.support.scans import head_voxels, thick_voxels, write_volume


def write_dataset(root, description=None, **scans):
    """A raw data set of thick scans: `write_dataset(root, **{"sub-01_T2w": 0})`, by name and seed. Returns its folder.

    A seed of None makes a scan of thin slices.
    """
    root.mkdir(parents=True, exist_ok=True)
    described = {"Name": "tiny", "BIDSVersion": "1.10.0", "DatasetType": "raw"} if description is None else description
    (root / "dataset_description.json").write_text(json.dumps(described))
    (root / "README.md").write_text("A data set that a test made.\n")
    for name, seed in scans.items():
        write_scan(root, name, seed)
    return root


def write_scan(root, name, seed=0, voxels=None, spacing=(1, 1, 4)):
    """One scan in its folder; its path."""
    thin = seed is None
    if voxels is None:
        voxels = head_voxels((20, 18, 24)) if thin else thick_voxels(seed)
    folders = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
    path = root.joinpath(*folders, "anat", f"{name}.nii.gz")
    return write_volume(path, voxels, spacing=(1, 1, 1) if thin else spacing)


def validate(root):
    """What the official validator finds wrong with a data set, []; skips where it is not installed."""
    command = find_validator()
    if command is None:
        pytest.skip("the BIDS validator is not installed: pip install bids-validator-deno==3.0.2")
    return errors_in(root, command)
