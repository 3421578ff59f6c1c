"""What data from elsewhere try does not happen: no code is run, no other file is read, no text grows to gigabytes."""

import json
import shutil
import time
from pathlib import Path
from xml.etree import ElementTree

import h5py
import itk
import nibabel as nib
import numpy as np
import pytest

from interslice.files.beside import check_beside
from interslice.files.read import LoadVolumed
from interslice.files.scan import Refusal
from interslice.files.sidecar import read_sidecar
from interslice.files.xml_text import parse_xml
from interslice.physics.ct.read import read_projections
from interslice.physics.ct.rtk_geometry import read_rtk_geometry
from interslice.physics.kspace.ismrmrd import read_header
from interslice.physics.kspace.read import read_kspace
from tests.physics.kspace.test_kspace import header, random_kspace, write_fastmri
from tests.support.scans import Marker, thick_voxels


def read_volume(path):
    return LoadVolumed("image")({"image": str(path)})["image"]


SECRET = "what no image should hold"
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
BOMB = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "lol">{LAUGHS}]><a>&l11;</a>'
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "{}">]><a>&x;</a>'


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "elsewhere" / "secret"
    path.parent.mkdir()
    path.write_text((SECRET * 99)[: 20 * 18 * 6])
    return path


# -- XML --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text", [BOMB, BOMB.encode(), BOMB.encode("utf-16"), OUTSIDE, OUTSIDE.replace("ENTITY", "ENTITY %")]
)
def test_no_entity_is_taken(text, secret):
    text = text.replace("{}", secret.as_uri()) if isinstance(text, str) else text
    start = time.monotonic()
    with pytest.raises(Refusal, match="it declares an XML entity, '(l0|x)', and none is taken"):
        parse_xml(text)
    assert time.monotonic() - start < 1


def test_a_document_type_without_entities_is_taken_and_nothing_is_fetched(secret):
    """RTK writes the first; the second names a file that would hold declarations."""
    assert parse_xml("<!DOCTYPE RTKGEOMETRY><a><b>1</b></a>").findtext("b") == "1"
    assert parse_xml(f'<!DOCTYPE a SYSTEM "{secret.as_uri()}"><a>1</a>').text == "1"
    with pytest.raises(ElementTree.ParseError):
        parse_xml(f'<!DOCTYPE a SYSTEM "{secret.as_uri()}"><a>&x;</a>')
    with pytest.raises(ElementTree.ParseError):
        parse_xml("<a>")


def test_geometries_and_headers_are_read_so(tmp_path):
    (tmp_path / "scan.xml").write_text(BOMB)
    with pytest.raises(ValueError, match="declares an XML entity"):
        read_rtk_geometry(tmp_path / "scan.xml", (4, 4), (1.0, 1.0), (0.0, 0.0))
    with pytest.raises(ValueError, match="declares an XML entity"):
        read_header(BOMB)


# -- HDF5 -------------------------------------------------------------------------------------------
def linked(path, other):
    with h5py.File(path, "w") as file:
        file["kspace"] = h5py.ExternalLink(str(other), "/kspace")


def linked_deep(path, other):
    write_fastmri(path, random_kspace(2, 12, 10))
    with h5py.File(path, "a") as file:
        file["a/b/c"] = h5py.ExternalLink(str(other), "/kspace")
        file["a/b/a"] = file["a"]  # in a circle


def linked_by_a_name(path, other):
    with h5py.File(path, "w") as file:
        file["inner"] = h5py.ExternalLink(str(other), "/")
        file["kspace"] = h5py.SoftLink("/inner/kspace")


def stored_elsewhere(path, other):
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", (2, 12, 10), np.complex64, external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def virtual(path, other):
    layout = h5py.VirtualLayout((2, 12, 10), np.complex64)
    layout[:] = h5py.VirtualSource(str(other), "kspace", (2, 12, 10))
    with h5py.File(path, "w", libver="latest") as file:
        file.create_virtual_dataset("kspace", layout)


@pytest.mark.parametrize("trick", [linked, linked_deep, linked_by_a_name, stored_elsewhere, virtual])
def test_hdf5_that_reads_other_files_is_refused(trick, tmp_path):
    other = write_fastmri(tmp_path / "other.h5", random_kspace(2, 12, 10), ismrmrd_header=header())
    trick(tmp_path / "scan.h5", other)
    with pytest.raises(ValueError, match="scan.h5: (.* lies in another file|kspace is read from other files)"):
        read_kspace(tmp_path / "scan.h5")
    assert read_kspace(other).shape == (1, 1, 2, 12, 10, 2)


def test_links_within_a_file_are_followed(tmp_path):
    path = write_fastmri(tmp_path / "scan.h5", random_kspace(2, 12, 10), ismrmrd_header=header())
    with h5py.File(path, "a") as file:
        file.move("kspace", "stored")
        file["kspace"] = h5py.SoftLink("/stored")
    assert read_kspace(path).shape == (1, 1, 2, 12, 10, 2)


GEOMETRY = {
    "beam": "parallel", "angles": [0, 90], "num_columns": 4, "column_size": 1.0, "num_rows": 1, "row_size": 1.0,
}  # fmt: skip


# -- arrays, JSON -----------------------------------------------------------------------------------
def test_a_pickle_in_an_array_is_not_loaded(tmp_path):
    marker = tmp_path / "marker"
    np.savez(tmp_path / "scan.npz", projections=np.array([Marker(marker)], dtype=object))
    (tmp_path / "scan.json").write_text(json.dumps(GEOMETRY))
    with pytest.raises(ValueError, match="scan.npz"):
        read_projections(tmp_path / "scan.npz")
    assert not marker.exists()
    np.load(tmp_path / "scan.npz", allow_pickle=True)["projections"]
    assert marker.exists()  # what another reader would have done


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 100_000])
def test_json_that_is_too_deep_is_refused(text, tmp_path):
    (tmp_path / "scan.json").write_text(text)
    np.savez(tmp_path / "scan.npz", projections=np.zeros((2, 4, 1)))
    with pytest.raises(ValueError, match="scan.json is not JSON"):
        read_projections(tmp_path / "scan.npz")
    assert "left aside" in read_sidecar(tmp_path / "scan.nii", np.ones(3)).doubts[0]


# -- headers that name other files ------------------------------------------------------------------
META = """ObjectType = Image
NDims = 3
DimSize = 20 18 6
ElementType = MET_UCHAR
BinaryData = True
ElementSpacing = 1 1 4
ElementDataFile = {}
"""
NRRD = """NRRD0004
type: uint8
dimension: 3
space: left-posterior-superior
sizes: 20 18 6
space directions: (1,0,0) (0,1,0) (0,0,4)
encoding: raw
space origin: (0,0,0)
data file: {}
"""


@pytest.mark.parametrize(
    ("name", "text"), [("scan.mhd", META), ("scan.mha", META), ("scan.nhdr", NRRD), ("scan.nrrd", NRRD)]
)
@pytest.mark.parametrize("way", ["absolute", "relative"])
def test_a_header_reads_nothing_outside_of_its_folder(name, text, way, secret, tmp_path):
    path = tmp_path / "in" / name
    path.parent.mkdir()
    path.write_text(text.format(secret if way == "absolute" else "../elsewhere/secret"))
    with pytest.raises(ValueError, match="outside of the header's folder: copy that file beside it"):
        read_volume(path)
    if name != "scan.nhdr":
        (tmp_path / "in" / "scan.json").write_text(json.dumps(GEOMETRY))
        with pytest.raises(ValueError, match="outside of the header's folder"):
            read_projections(path)
    (tmp_path / "in" / "raw").mkdir()
    shutil.copy(secret, tmp_path / "in" / "raw" / "secret")
    path.write_text(text.format("raw/secret"))
    assert read_volume(path).shape == (1, 20, 18, 6)


@pytest.mark.parametrize(
    ("data", "inside"),
    [("a.raw", True), ("deep/a.raw", True), ("./a", True), ("deep/../a", True), ("..a", True), ("../a", False),
     ("/etc/passwd", False), ("deep/../../a", False), ("../in_too/a", False)],
)  # fmt: skip
def test_what_lies_beside_a_header(data, inside):
    if inside:
        return check_beside(Path("/data/in/scan.mhd"), data)
    with pytest.raises(Refusal, match="outside of the header's folder"):
        check_beside(Path("/data/in/scan.mhd"), data)


def test_detached_voxels_beside_a_header_are_read(tmp_path):
    voxels = thick_voxels()
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(voxels.T)), str(tmp_path / "scan.mhd"))
    assert (tmp_path / "scan.raw").exists() or (tmp_path / "scan.zraw").exists()
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "scan.nii")
    one, other = (read_volume(tmp_path / name) for name in ("scan.mhd", "scan.nii"))
    assert np.array_equal(one.numpy(), other.numpy())
