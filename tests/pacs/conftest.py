"""A small archive, how to ask it, and a scan with a derived series."""

from types import SimpleNamespace

import pytest
import torch
from monai.data import MetaTensor

from interslice.files.dicom_read import find_stack
from interslice.files.dicom_write import save_series
from interslice.pacs.archive import Archive
from tests.support.dicom_files import AFFINE, VOXELS, write_series
from tests.support.dicomweb_server import archive


@pytest.fixture
def server():
    with archive() as running:
        yield running


@pytest.fixture
def ask(server):
    """Asks the server: `ask(tries=2)`; what it says and how long it pauses are kept in `said` and `pauses`."""

    def make(**options):
        said, pauses = [], []
        made = Archive(server.url, **{"environ": {}, "say": said.append, "wait": pauses.append} | options)
        made.said, made.pauses = said, pauses
        return made

    return make


@pytest.fixture
def scan(tmp_path):
    """A thick scan: its folder, headers, study and series."""
    headers = write_series(tmp_path / "scan", VOXELS, AFFINE)
    return SimpleNamespace(
        folder=tmp_path / "scan",
        headers=headers,
        study=headers[0].StudyInstanceUID,
        series=headers[0].SeriesInstanceUID,
        uids={str(h.SOPInstanceUID) for h in headers},
    )


@pytest.fixture
def made(scan, tmp_path):
    """Folder of a series of five images that is derived from the scan."""
    stack = find_stack(scan.folder)
    volume = MetaTensor(torch.arange(8.0 * 7 * 5).reshape(1, 8, 7, 5), affine=stack.affine)
    save_series(volume, tmp_path / "results" / "scan" / "scan_recon", stack)
    return tmp_path / "results" / "scan" / "scan_recon"
