"""Stacks as Helix2Fan writes them: a phantom comes back at its place; what is no such stack is refused."""

import numpy as np
import pytest
import tifffile
import torch

from interslice.physics.ct import LoadProjectionsd, SparseRadon
from interslice.physics.ct.geometry import Grid
from interslice.physics.ct.raw.helix2fan import read_helix2fan
from tests.support.ct_pd import manual

PHI0, TURN, NU, DU, DSO, DSD, STEP = 1.2, 60, 80, 4.0, 500.0, 900.0, 2.0
Z = 300.0 + 0.5 * np.arange(150)
CYLINDER = np.array([40.0, -25.0]), 15.0
"""Centre (left, posterior) and radius of a cylinder that ends, feet first, at DICOM's z = -330 from above."""


def write_stack(path, edit=lambda about: None, values=None):
    """By the tool's own steps: angles -phi - 3 pi / 2, columns from the last, slices along z0."""
    phi = PHI0 + 2 * np.pi * np.arange(150) / TURN
    spot = manual(DSO, phi[:TURN], 0.0)[:, :2]
    right = np.stack([np.cos(phi[:TURN]), np.sin(phi[:TURN])], -1)
    a = -(np.arange(NU) - (NU - 1) / 2) * DU  # the last column of the scanner comes first
    element = -spot[:, None] * (DSD - DSO) / DSO + a[:, None] * right[:, None]
    way = element - spot[:, None]
    way /= np.linalg.norm(way, axis=-1, keepdims=True)
    q = spot[:, None] - CYLINDER[0] * [-1, -1]  # left and posterior, seen from the table, feet first
    gap = (q * way).sum(-1) ** 2 - (q * q).sum(-1) + CYLINDER[1] ** 2
    fan = 0.02 * 2 * np.sqrt(np.maximum(gap, 0))
    z = Z[0] + STEP * np.arange(int((Z[-1] - Z[0]) / STEP))
    stack = np.where(z >= 330.0, fan[..., None], 1e-6).astype(np.float32)
    stack[TURN // 2 :, :, :4] = 0  # as the tool leaves slices that not all views see
    about = {
        "scan_id": "Doe", "angles": (-phi - 1.5 * np.pi).tolist(), "rotview": TURN, "dso": DSO, "dsd": DSD,
        "ddo": DSD - DSO, "nu": NU, "nv": 8, "du": DU, "dv": 5.0, "dv_rebinned": STEP, "z_positions": Z.tolist(),
        "hu_factor": 0.0192 / 1.1, "nz_rebinned": len(z),
    }  # fmt: skip
    edit(about)
    tifffile.imwrite(path, stack if values is None else values, metadata=about)
    return stack


def test_a_phantom_comes_back_at_its_place(tmp_path):
    write_stack(tmp_path / "a_flat_fan_projections.tif")
    image = LoadProjectionsd("image", water=0.0192)({"image": str(tmp_path / "a_flat_fan_projections.tif")})["image"]
    geometry = image.meta["geometry"]
    assert geometry.num_rows == 37 - 4 and "4 slices at the ends" in image.meta["doubts"].said[1]
    rows = geometry.rows[0]
    grid = Grid((48, 48, len(rows)), (4.0, 4.0, STEP), (0.0, 0.0, float(rows.mean())))
    mu = SparseRadon(geometry, grid).linear_reconstruction(image.as_tensor()[0]).numpy()
    dense = np.argwhere(mu > 0.5 * mu.max())
    world = np.array(geometry.world) @ grid.affine.numpy() @ np.c_[dense, np.ones(len(dense))].T
    np.testing.assert_allclose(world[:2].mean(1), -CYLINDER[0], atol=1.0)  # left, posterior to right, anterior
    assert world[2].max() == pytest.approx(-330.0) and world[2].min() == pytest.approx(-(Z[0] + 36 * STEP))
    inside = np.median(mu[mu > 0.8 * mu.max()])
    assert inside == pytest.approx(0.02 * 1.1, rel=0.04)  # at the water of HU


@pytest.mark.parametrize(("edit", "values", "said"), [
    (lambda a: a.pop("dso"), None, "no metadata of Helix2Fan .*dso missing"),
    (lambda a: a.update(dso="far"), None, "dso of the TIFF's metadata must be finite and positive"),
    (lambda a: a.update(rotview=30), None, "name the file"),
    (lambda a: None, np.zeros((150, 8, NU), np.float32), "a helix, one of its intermediate files"),
    (lambda a: a.update(angles=[0.0]), None, "angles has 1 values"),
    (lambda a: None, np.zeros((TURN, NU, 37), np.float32), "no slice is seen by all views"),
])  # fmt: skip
def test_what_is_no_such_stack_is_refused(tmp_path, edit, values, said):
    write_stack(tmp_path / "a.tif", edit, values)
    with pytest.raises(ValueError, match=said):
        read_helix2fan(tmp_path / "a.tif")


def test_any_other_tiff_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((3, 4, 5), np.float32))
    with pytest.raises(ValueError, match=r"a\.tif: the TIFF has no metadata of Helix2Fan"):
        LoadProjectionsd("image")({"image": str(tmp_path / "a.tif")})
    (tmp_path / "b.tif").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"b\.tif: the file cannot be read"):
        LoadProjectionsd("image")({"image": str(tmp_path / "b.tif")})


def test_values_are_those_of_the_file(tmp_path):
    stack = write_stack(tmp_path / "a.tif")
    np.testing.assert_array_equal(
        torch.tensor(read_helix2fan(tmp_path / "a.tif").values), stack[:, :, 4:][..., ::-1].copy()
    )
