"""Volumes between Slicer's scene and files: a node out, with what its header does not say, and results in, in place."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import numpy as np

THICKNESS, MODALITY = "0018,0050", "0008,0060"
"""Tags that a volume node does not carry, and Slicer's DICOM database knows."""
CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)


def export(slicer, node, folder: Path) -> Path:
    """Write a volume node as NIfTI, in its own coordinates, with a JSON file beside it; returns the file.

    Raises:
        RuntimeError: Slicer could not write it, or the node holds no voxels.
    """
    if node is None or node.GetImageData() is None:
        raise RuntimeError("the input volume holds no voxels")
    path = Path(folder) / f"{file_name(node.GetName())}.nii.gz"
    if not slicer.util.exportNode(node, str(path)) or not path.is_file():
        raise RuntimeError(f"Slicer could not write {path}")
    about = header(slicer, node)
    if about:
        (path.parent / f"{file_name(node.GetName())}.json").write_text(json.dumps(about), encoding="utf-8")
    return path


def file_name(name: str) -> str:
    """A node's name as that of a file, and so of the case: letters, digits and lines alone."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:64] or "volume"


def header(slicer, node) -> dict:
    """Slice thickness (mm) and modality of a node that was loaded from DICOM, as dcm2niix names them."""
    uids = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    if not uids or database is None:
        return {}
    about = {}
    with suppress(ValueError):  # empty, or no longer in the database
        about["SliceThickness"] = float(database.instanceValue(uids[0], THICKNESS))
    modality = database.instanceValue(uids[0], MODALITY)
    return about | {"Modality": modality} if modality in ("MR", "CT") else about


def load(slicer, file: Path, name: str, source=None, keep_file: bool = True):
    """A result as a new volume node: under the transform of its source, if it has one, and in no view yet.

    Args:
        keep_file: whether the file stays; else the node forgets it, so that Slicer asks to save the volume.
    """
    node = slicer.util.loadVolume(str(file), properties={"name": name, "show": False})
    if source is not None and source.GetTransformNodeID():
        node.SetAndObserveTransformNodeID(source.GetTransformNodeID())
    storage = node.GetStorageNode()
    if not keep_file and storage is not None:
        node.SetAndObserveStorageNodeID(None)
        slicer.mrmlScene.RemoveNode(storage)
    return node


def take_window(source, target) -> None:
    """Show one volume with the window of another, which has its intensities."""
    given, display = source.GetDisplayNode(), target.GetDisplayNode()
    if given is not None and display is not None:
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(given.GetWindow(), given.GetLevel())


def affine_of(slicer, node) -> np.ndarray:
    """(4, 4) from voxels to RAS, mm."""
    import vtk  # which is there wherever Slicer is

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def apart(slicer, source, target) -> float:
    """How far the boxes of two volumes differ at most, in voxels of the source along each of its axes.

    The box reaches from the outer side of the first voxel to that of the last, so that it does not depend on how many
    voxels there are; corners are compared as sets, since axes may be flipped.
    """
    boxes = []
    for node in (source, target):
        affine = affine_of(slicer, node)
        corners = CORNERS * np.array(node.GetImageData().GetDimensions()) - 0.5
        boxes.append(corners @ affine[:3, :3].T + affine[:3, 3])
        if node is source:
            inverse = np.linalg.inv(affine[:3, :3])
    nearest = [min(boxes[0], key=lambda corner, mine=mine: np.linalg.norm(corner - mine)) for mine in boxes[1]]
    return float(np.abs((boxes[1] - np.array(nearest)) @ inverse.T).max())
