"""DICOM-CT-PD: rays by the manual, phantoms at their place and not mirrored, headers that contradict refused."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from interslice.files.cases import Cases
from interslice.files.find import find_volumes
from interslice.physics.baselines import LeastSquares
from interslice.physics.ct import ConeBeam, Grid, LoadProjectionsd
from interslice.physics.ct.raw.ct_pd import RawOptions, holds_ct_pd, read_ct_pd
from interslice.usage import UsageError
from tests.support.ct_pd import Ball, Helix, manual, put, write_scan

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
SMALL = Helix(columns=24, rows=4, column_size=16.0, row_size=10.0, central=(12.25, 2.5), per_turn=20, turns=1.5)
SPOTS = ((3e-4, -0.66, 5.45), (-8e-4, 0.0, 0.0))


@pytest.mark.parametrize("shifts", [((0.0, 0.0, 0.0),), SPOTS])
def test_rays_run_where_the_manual_says(tmp_path, shifts):
    scan = replace(SMALL, shifts=shifts)
    write_scan(tmp_path, scan, [Ball((0, 0, 0), (50, 50, 50))])
    geometry = read_ct_pd(tmp_path).geometry
    phi, z0 = scan.views
    shift = np.array([shifts[i % len(shifts)] for i in range(len(phi))])
    spot = -manual(scan.rho + shift[:, 2], phi + shift[:, 0], z0 + shift[:, 1])  # right, up, in: all turned
    u, v, d = (geometry.frames[:, i].numpy() for i in range(3))
    one = {n: geometry.per_view(n).numpy()[:, None] for n in (
        "source_to_isocenter", "source_column_offset", "source_row_offset")}  # fmt: skip
    source = -one["source_to_isocenter"] * d + one["source_column_offset"] * u + one["source_row_offset"] * v
    np.testing.assert_allclose(source, spot, atol=1e-3)
    # The last column of the file is our first, row 1 the farthest into the gantry.
    across, depth = (t.numpy() for t in geometry.in_plane(geometry.columns))
    element = (depth - one["source_to_isocenter"])[:, 0, None] * d + across[:, 0, None] * u
    gamma = (scan.columns - scan.central[0]) * scan.column_size / scan.distance
    right = np.stack([np.cos(phi), np.sin(phi)], -1)
    theirs = manual(scan.rho, phi, z0)[:, :2] * (1 - scan.distance / scan.rho * np.cos(gamma))
    theirs = theirs + scan.distance * np.sin(gamma) * right
    np.testing.assert_allclose(element[:, :2], -theirs, atol=1e-3)
    farthest = z0 + (scan.central[1] - 1) * scan.row_size
    np.testing.assert_allclose(geometry.rows[:, 0], -farthest, atol=1e-4)


@pytest.mark.parametrize("position", ["FFS", "HFS", "FFP", "HFP"])
def test_a_phantom_is_reconstructed_at_its_place_in_the_patient(tmp_path, position):
    sign = {"FFS": -1, "FFP": -1, "HFS": 1, "HFP": 1}[position]
    balls = [Ball((40.0, -25.0, sign * 32.0), (12, 12, 9), 0.04), Ball((0.0, 0.0, sign * 32.0), (80, 60, 60), 0.004)]
    write_scan(tmp_path, Helix(per_turn=30, position=position), balls)
    scan = read_ct_pd(tmp_path)
    assert scan.geometry.helical
    grid = Grid((28, 28, 10), (7.0, 7.0, 6.0), (0.0, 0.0, -32.0))
    mu = LeastSquares(iterations=12)(torch.from_numpy(scan.values.copy()), ConeBeam(scan.geometry, grid)).numpy()
    found = np.argwhere(mu > 0.6 * mu.max()).mean(0)
    world = np.array(scan.geometry.world) @ grid.affine.numpy() @ [*found, 1.0]
    np.testing.assert_allclose(world[:3], LPS_TO_RAS * balls[0].center, atol=4.0)
    assert np.linalg.det(np.array(scan.geometry.world)[:3, :3]) > 0


def test_projections_of_another_kind_beside_a_scan_are_left_out_and_said(tmp_path):
    write_scan(tmp_path / "a", SMALL, [Ball((0, 0, 0), (50, 50, 50))])
    (tmp_path / "a" / "other.npz").write_bytes(b"")
    found = find_volumes(tmp_path, LoadProjectionsd.suffixes, dicom=False, holds=LoadProjectionsd.holds)
    assert [item["image"] for item in found.items] == [str(tmp_path / "a")]
    assert found.left_out == {str(tmp_path / "a/other.npz"): "beside the files of one scan: name it to read it"}


def test_layouts_and_types_of_files_say_the_same(tmp_path):
    balls = [Ball((30, 10, 5), (40, 30, 20))]
    for name, how in (("a", {}), ("b", {"implicit": True}), ("c", {"transposed": False})):
        values = write_scan(tmp_path / name, SMALL, balls, **how)
        scan = read_ct_pd(tmp_path / name)
        np.testing.assert_allclose(scan.values, values.transpose(0, 2, 1)[:, ::-1], atol=2e-4)
        assert (scan.water, scan.said) == (0.019, ())


def test_views_are_chosen(tmp_path):
    write_scan(tmp_path, SMALL, [Ball((0, 0, 0), (50, 50, 50))])
    whole = read_ct_pd(tmp_path)
    some = read_ct_pd(tmp_path, RawOptions(every=3, z_range=(4.0, 12.0)))
    heights = -np.array(whole.geometry.source_row_offset)
    kept = np.flatnonzero((heights >= 4.0) & (heights <= 12.0))[::3]
    np.testing.assert_array_equal(some.values, whole.values[kept])
    assert some.geometry.angles == tuple(whole.geometry.angles[i] for i in kept)


@pytest.mark.parametrize(("edit", "said"), [
    (lambda ds, i: i == 3 and setattr(ds, "InstanceNumber", 3), "both have InstanceNumber 3"),
    (lambda ds, i: i == 3 and delattr(ds, "InstanceNumber"), "InstanceNumber is missing"),
    (lambda ds, i: ds.__delitem__((0x7031, 0x1001)) if i == 5 else None, "is no projection"),
    (lambda ds, i: ds.__delitem__((0x7031, 0x1003)) if i == 5 else None, r"RadialDistance \(7031,1003\) is missing"),
    (lambda ds, i: put(ds, {(0x7031, 0x1033): ("FL", [99.0, 2.5])}), "column 99 of 24: it lies off"),
    (lambda ds, i: i == 4 and put(ds, {(0x7029, 0x1002): ("FL", 3.0)}), "keep one scan in a folder"),
    (lambda ds, i: put(ds, {(0x7039, 0x1009): ("CS", "NO")}), "LogFlag is NO"),
    (lambda ds, i: put(ds, {(0x7029, 0x100B): ("CS", "SPHERICAL")}), "DetectorShape .* is SPHERICAL"),
    (lambda ds, i: put(ds, {(0x7033, 0x1063): ("US", 1 + i % 2)}), "SpectrumIndex"),
    (lambda ds, i: put(ds, {(0x7031, 0x1031): ("FL", -1.0)}), "ConstantRadialDistance .* is -1"),
])  # fmt: skip
def test_headers_that_contradict_are_refused(tmp_path, edit, said):
    write_scan(tmp_path, SMALL, [Ball((0, 0, 0), (50, 50, 50))], edit=edit)
    with pytest.raises(ValueError, match=said):
        read_ct_pd(tmp_path)


def test_doubts_are_said(tmp_path):
    write_scan(tmp_path, SMALL, [Ball((0, 0, 0), (50, 50, 50))], edit=lambda ds, i: delattr(ds, "PatientPosition"))
    next(p for p in tmp_path.iterdir() if p.name == "0370.dcm").unlink()  # view 10
    said = read_ct_pd(tmp_path).said
    assert "views are missing at 1 places, first after number 10" in said[0]
    assert "taken to lie FFS" in said[1]
    assert holds_ct_pd(tmp_path) and not any("Doe" in s or "4711" in s for s in said)


@pytest.mark.parametrize("options", [{"every": 0}, {"z_range": [3.0]}, {"z_range": [3.0, 1.0]}, {"z_range": "all"}])
def test_options_are_checked(options):
    with pytest.raises(UsageError):
        RawOptions(**options)


def test_a_folder_of_scans_becomes_cases_that_name_nobody(tmp_path, capsys):
    for name in ("Doe^Jane", "Roe^Richard"):
        write_scan(tmp_path / name, replace(SMALL, turns=1.0), [Ball((0, 0, 0), (50, 50, 50))])
    reader = LoadProjectionsd("image", water=0.0192)
    plain = Cases(str(tmp_path), reader, reader=reader, output_dir=str(tmp_path / "out"))
    assert [item["case"] for item in plain.usable] == ["Doe^Jane", "Roe^Richard"]
    hidden = Cases(str(tmp_path), reader, reader=reader, output_dir=str(tmp_path / "out"), deidentify=True)
    assert all(re.fullmatch(r"case_[0-9a-f]{16}", item["case"]) for item in hidden.usable)
    image = reader(hidden.usable[0])["image"]
    told = {k: v for k, v in image.meta.items() if k != "filename_or_obj"}
    assert "Doe" not in str(told) and "4711" not in str(told)
    np.testing.assert_allclose(image[0], read_ct_pd(tmp_path / "Doe^Jane").values * (0.0192 / 0.019), rtol=1e-5)
