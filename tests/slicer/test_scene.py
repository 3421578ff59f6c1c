"""Volumes leave the scene whole, and results come back to where they belong."""

import json

import nibabel as nib
import numpy as np
import pytest

from tests.support.scans import THICK, thick_voxels


@pytest.fixture
def scene(slicer):
    from InterSliceReconstructionLib import scene

    return scene


def test_a_node_leaves_as_it_is(scene, slicer, tmp_path):
    node = slicer.add("3: T2 tra, $(rm)", thick_voxels(), THICK)
    node.transform = "a transform"  # is not applied: the result gets it, too
    path = scene.export(slicer, node, tmp_path)
    assert path.name == "3_T2_tra_rm.nii.gz" and list(tmp_path.glob("*.json")) == []
    image = nib.load(path)
    assert np.array_equal(image.get_fdata(), node.voxels)
    np.testing.assert_allclose(image.affine, THICK, atol=1e-6)


def test_what_dicom_said_goes_beside_it_where_the_reader_of_the_bundle_looks(scene, slicer, tmp_path):
    from interslice.files.read import LoadVolumed

    node = slicer.add("scan", thick_voxels(), THICK)
    node.attributes["DICOM.instanceUIDs"] = "1.2.3 1.2.4"
    slicer.database = {("1.2.3", "0018,0050"): "3.5", ("1.2.3", "0008,0060"): "MR"}
    path = scene.export(slicer, node, tmp_path)
    assert json.loads((tmp_path / "scan.json").read_text()) == {"SliceThickness": 3.5, "Modality": "MR"}
    assert LoadVolumed("image")({"image": str(path)})["image"].meta["slice_thickness"] == 3.5
    slicer.database = {("1.2.3", "0008,0060"): "PT"}
    assert scene.header(slicer, node) == {}  # no thickness, and a modality that is not written


def test_a_node_without_voxels_is_refused(scene, slicer, tmp_path):
    for node in (None, slicer.add("empty", None, np.eye(4))):
        with pytest.raises(RuntimeError, match="holds no voxels"):
            scene.export(slicer, node, tmp_path)
    slicer.util.exportNode = lambda *_: False
    with pytest.raises(RuntimeError, match="could not write"):
        scene.export(slicer, slicer.add("scan", thick_voxels(), THICK), tmp_path)


@pytest.mark.parametrize("name", ["", "...", "Größe", "a/b\\c", "x" * 300, "-rf"])
def test_names_of_nodes_are_names_of_files(name, scene):
    made = scene.file_name(name)
    assert made and len(made) <= 64 and not set(made) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-")
    assert not made.startswith("-")


@pytest.mark.parametrize("kept", [True, False])
def test_a_result_lies_under_the_transform_of_its_source(kept, scene, slicer, tmp_path):
    source = slicer.add("scan", thick_voxels(), THICK)
    source.transform = "a transform"
    path = scene.export(slicer, source, tmp_path)
    node = scene.load(slicer, path, "scan reconstructed", source, keep_file=kept)
    assert node.GetName() == "scan reconstructed" and node.transform == "a transform" and not node.shown
    assert (node.storage is not None) == kept  # a file that will be gone is forgotten, so that Slicer saves the volume
    assert scene.load(slicer, path, "another").transform is None


def test_the_window_is_taken_over(scene, slicer):
    source, result = (slicer.add(name, thick_voxels(), THICK) for name in "ab")
    source.display.window, source.display.level = 700.0, 350.0
    scene.take_window(source, result)
    assert (result.display.window, result.display.level, result.display.auto) == (700.0, 350.0, False)


def test_how_far_two_boxes_are_apart(scene, slicer):
    source = slicer.add("scan", thick_voxels(), THICK)
    fine = THICK @ nib.affines.from_matvec(np.diag([1, 1, 0.25]), [0, 0, -0.375])  # the same box, four times as many
    there = slicer.add("fine", np.zeros((20, 18, 24)), fine)
    assert scene.apart(slicer, source, there) < 1e-9
    flipped = fine @ nib.affines.from_matvec(np.diag([-1, 1, 1]), [19, 0, 0])
    assert scene.apart(slicer, source, slicer.add("flipped", np.zeros((20, 18, 24)), flipped)) < 1e-9
    moved = fine @ nib.affines.from_matvec(np.eye(3), [0, 0, 6])  # by one and a half thick slices
    assert scene.apart(slicer, source, slicer.add("moved", np.zeros((20, 18, 24)), moved)) == pytest.approx(1.5)
