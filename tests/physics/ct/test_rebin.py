"""Helices rebinned to fan beams, from their rays and from files; and what photons of a header are worth."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from interslice.files.limits import Limits
from interslice.files.scan import Refusal
from interslice.physics.ct import Grid, LoadProjectionsd, ScanGeometry, SparseRadon
from interslice.physics.ct.counting import RayNoise
from interslice.physics.ct.raw.ct_pd import RawOptions, read_ct_pd
from interslice.physics.ct.raw.rebin import rebinned
from interslice.usage import UsageError
from tests.physics.ct.test_sparse_radon import line_integrals
from tests.support.ct_pd import Ball, Helix, put, write_scan

COLUMNS, ROWS, SIZE, HEIGHT, ISO, DET, TURN, PITCH = 64, 16, 2.4, 4.0, 300.0, 520.0, 60, 24.0
ELLIPSOIDS = (((14.0, -9.0, -6.0), (7.0, 7.0, 7.0), 0.03), ((0.0, 0.0, 0.0), (40.0, 34.0, 90.0), 0.02))
"""A ball, and a body around it."""


def helix(detector="curved", turns=5.0, pitch=PITCH):
    count = int(turns * TURN)
    heights = tuple(pitch * (np.arange(count) - (count - 1) / 2) / TURN)
    angles = tuple(np.degrees(2 * np.pi * np.arange(count) / TURN) + 17.0)
    return ScanGeometry(
        "cone", angles, COLUMNS, SIZE, ROWS, HEIGHT, ISO, DET, column_offset=1.1, row_offset=heights,
        source_row_offset=heights, detector=detector,
    )  # fmt: skip


@pytest.mark.parametrize("detector", ["curved", "flat"])
@pytest.mark.parametrize("pitch", [PITCH, -PITCH])
def test_of_what_does_not_change_along_the_axis_rebinning_is_exact(detector, pitch):
    tall = (((6.0, -9.0, 0.0), (30.0, 24.0, 1e5), 0.02),)
    geometry = helix(detector, pitch=pitch)
    values, fan, _ = rebinned(line_integrals(geometry, tall).float().numpy(), geometry)
    exact = line_integrals(fan, tall).numpy()
    assert fan.beam == "fan" and fan.detector == detector and len(fan.angles) == TURN
    assert np.abs(values - exact).max() < 2e-3 * exact.max()


def test_rebinned_fan_beams_show_the_object_where_it_is():
    geometry = helix()
    values, fan, _ = rebinned(line_integrals(geometry, ELLIPSOIDS).float().numpy(), geometry)
    grid = Grid((48, 48, fan.num_rows), (2.0, 2.0, fan.row_size), (0.0, 0.0, fan.row_offset))
    operator = SparseRadon(fan, grid, background=0.0)
    x = operator.linear_reconstruction(torch.from_numpy(values)).numpy()
    points = np.stack(np.meshgrid(*[grid.coordinates(a).numpy() for a in range(3)], indexing="ij"), -1)
    bright = np.where(x > 0.035, x - 0.02, 0.0)
    found = (points * bright[..., None]).sum((0, 1, 2)) / bright.sum()
    assert np.abs(found - np.array(ELLIPSOIDS[0][0])).max() < 1.0
    assert x[20:28, 20:28, fan.num_rows // 2].mean() == pytest.approx(0.02, rel=0.03)


def test_noise_is_that_of_what_was_interpolated():
    geometry, random = helix(), np.random.default_rng(0)
    draws = random.normal(0, 0.1, (40, *geometry.range_shape)).astype(np.float32)
    found = np.stack([rebinned(draw, geometry)[0] for draw in draws])
    variance = rebinned(draws[0], geometry, RayNoise(np.full(geometry.range_shape, 0.01, np.float32)))[2].variance
    assert (found.var(0, ddof=1) / variance).mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("change, words", [
    (lambda g: replace(g, source_column_offset=tuple(float(n % 2) for n in range(300))), "focal spot moves"),
    (lambda g: replace(g, angles=tuple(a + n % 5 / 2 for n, a in enumerate(g.angles))), "not evenly spaced"),
    (lambda g: replace(g, row_offset=0.0, source_row_offset=0.0), "takes a helix"),
    (lambda g: replace(g, detector_radius=400.0), "curved about another place"),
    (lambda g: helix(pitch=200.0), "the pitch is too large"),
    (lambda g: helix(turns=0.9), "more than a turn"),
])  # fmt: skip
def test_what_cannot_be_rebinned_is_refused(change, words):
    geometry = change(helix())
    with pytest.raises(Refusal, match=words):
        rebinned(np.ones(geometry.range_shape, np.float32), geometry)


def test_more_slices_than_memory_has_are_refused():
    geometry = helix()
    with pytest.raises(Refusal, match="max_gigabytes"):
        rebinned(np.ones(geometry.range_shape, np.float32), geometry, spacing=0.01, limits=Limits(max_gigabytes=1e-3))


def test_options_of_one_format_are_not_passed_over_by_another(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"")
    with pytest.raises(ValueError, match="a.tif: raw#every.* are of DICOM-CT-PD"):
        LoadProjectionsd("image", raw=RawOptions(every=2))({"image": str(tmp_path / "a.tif")})


@pytest.mark.parametrize("options, words", [
    ({"rebin": "cone"}, "rebin must be"), ({"slice_spacing": 0}, "slice_spacing"), ({"every": 0}, "every"),
])  # fmt: skip
def test_options_are_checked(options, words):
    with pytest.raises(UsageError, match=words):
        RawOptions(**options)


def test_photons_of_the_header_are_the_noise_of_the_rays(tmp_path):
    photons = np.linspace(1e4, 2e4, 96)
    edit = {(0x7033, 0x1065): ("FL", list(photons))}
    write_scan(tmp_path, Helix(turns=0.1), [Ball((0, 0, 0), (60, 60, 60))], edit=lambda ds, i: put(ds, edit))
    scan = read_ct_pd(tmp_path)
    assert np.allclose(scan.noise.variance, np.exp(scan.values) / photons[::-1, None], rtol=1e-3)
    image = LoadProjectionsd("image", water=0.038)({"image": str(tmp_path)})["image"]  # twice that of the file
    assert np.allclose(image.meta["noise"].variance, 4 * scan.noise.variance, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("rebin", ["none", "fan"])
def test_a_scanner_s_folder_becomes_a_volume_where_the_patient_lay(rebin, run_here, tiny_overrides, tmp_path):
    scan = Helix(columns=64, column_size=6.0, rows=16, central=(31.75, 8.5), per_turn=45, turns=3.0, position="HFS")
    ball = Ball((40.0, -25.0, 24.0), (16, 16, 12), 0.03)
    write_scan(tmp_path / "in" / "Doe", scan, [ball, Ball((0.0, 0.0, 24.0), (80, 60, 90), 0.019)])
    ids = {"raw#rebin": rebin, "deidentify": True, "num_steps": 1, "baselines#total_variation#iterations": 20}
    ids |= {"operator#spacing": 6.0} if rebin == "none" else {}
    configs = ["configs/inference.json", "configs/task_svct.json"]
    run_here("inference", configs, tiny_overrides(tmp_path / "in", **ids))
    (path,) = (tmp_path / "results").glob("case_*/*_recon.nii.gz")
    assert not any(b"Doe" in p.read_bytes() for p in path.parent.iterdir())
    recon = nib.load(path)
    places = nib.affines.apply_affine(recon.affine, np.argwhere(recon.get_fdata() > 700))
    assert np.abs(np.median(places, 0) - np.array([-1, -1, 1]) * ball.center).max() < 6.0
