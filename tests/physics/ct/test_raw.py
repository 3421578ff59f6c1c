"""Scanners' raw data: DICOM-CT-PD and Helix2Fan, made here from their descriptions, and helices rebinned."""

import struct
from dataclasses import replace

import nibabel as nib
import numpy as np
import pydicom
import pytest
import tifffile
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from bundle.files.cases import Cases
from bundle.files.fingerprint import fingerprint
from bundle.files.limits import Limits
from bundle.files.scan import Refusal
from bundle.physics.ct import Grid, LoadProjectionsd, ScanGeometry, SparseRadon
from bundle.physics.ct.ct_pd import RawScan, geometry_of, is_ct_pd, read_ct_pd, value_of, view_of
from bundle.physics.ct.helix2fan import read_helix2fan
from bundle.physics.ct.raw import RawData
from bundle.physics.ct.rebin import rebinned
from bundle.usage import UsageError
from tests.physics.ct.test_sparse_radon import line_integrals

RHO, DISTANCE, COLUMNS, ROWS, SIZE, HEIGHT = 300.0, 520.0, 64, 16, 2.4, 4.0
TURN, PITCH = 60, 24.0
CENTRAL = (32.8, 8.6)
SLOPE = 1e-4
BALL = (14.0, -9.0, 6.0)
"""x to the right, y up, z into the gantry, for who stands at the table: left-handed."""
ELLIPSOIDS = (((14.0, -9.0, -6.0), (7.0, 7.0, 7.0), 0.03), ((0.0, 0.0, 0.0), (40.0, 34.0, 90.0), 0.02))
"""The ball, and a body around it, in the right-handed frame."""


def trajectory(turns=3.0, **shifts):
    """phi, z, and shifts of the focal spot, of each view; the middle one at z = 0."""
    count = int(turns * TURN) + 1
    phi = 0.4 + 2 * np.pi * np.arange(count) / TURN
    z = PITCH * (np.arange(count) - (count - 1) / 2) / TURN
    alternate = np.arange(count) % 2
    return [{"phi": p, "z": h, **{k: v * a for k, v in shifts.items()}} for p, h, a in zip(phi, z, alternate)]


def write_view(path, view, pixels, number, stated=True, **others):
    """A projection as the format's description says; `pixels` are (columns, rows) as the file counts both."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.SOPClassUID, ds.Modality, ds.InstanceNumber, ds.PatientName = CTImageStorage, "CT", number, "Doe^Jane"
    ds.PatientPosition = others.pop("position", "HFS")
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    ds.RescaleSlope, ds.RescaleIntercept = SLOPE, -0.5
    ds.PixelData = np.round((pixels + 0.5) / SLOPE).astype("<u2").tobytes()
    elements = {
        0x70291010: ("US", ROWS), 0x70291011: ("US", COLUMNS), 0x70291002: ("FL", SIZE), 0x70291006: ("FL", HEIGHT),
        0x7029100B: ("CS", "CYLINDRICAL"), 0x70311001: ("FL", view["phi"]), 0x70311002: ("FL", view["z"]),
        0x70311003: ("FL", RHO), 0x70311031: ("FL", DISTANCE), 0x70311033: ("FL", list(CENTRAL)),
        0x7033100B: ("FL", view.get("d_phi", 0.0)), 0x7033100C: ("FL", view.get("d_z", 0.0)),
        0x7033100D: ("FL", view.get("d_rho", 0.0)), 0x70391009: ("CS", "YES"), 0x70411001: ("DS", "0.02"),
    } | others.pop("elements", {})  # fmt: skip
    for tag, (kind, value) in elements.items():
        if value is None:
            continue
        if stated:
            ds.add_new(tag, kind, value)
        else:  # as scanners' files hold them: bytes of no stated type
            numbers = value if isinstance(value, list) else [value]
            packed = {"US": "H", "FL": "f"}.get(kind)
            data = struct.pack(f"<{len(numbers)}{packed}", *numbers) if packed else str(value).encode()
            ds.add_new(tag, "UN", data + b" " * (len(data) % 2))
    ds.save_as(path, enforce_file_format=True)


def seen_by(view):
    """(columns, rows) numbers from 1 at which the middle of the ball is seen: vectors of the format's own frame."""
    phi, d_phi = view["phi"], view.get("d_phi", 0.0)
    radius = RHO + view.get("d_rho", 0.0)
    source = np.array([-radius * np.sin(phi + d_phi), radius * np.cos(phi + d_phi), view["z"] + view.get("d_z", 0.0)])
    focus = np.array([-RHO * np.sin(phi), RHO * np.cos(phi), view["z"]])
    middle = -np.array([-np.sin(phi), np.cos(phi), 0.0])  # from the focal centre to the isocenter
    right = np.array([np.cos(phi), np.sin(phi), 0.0])  # at six o'clock from left to right
    ray = np.array(BALL) - source
    # Where the ray meets the cylinder about the focal centre.
    offset = (source - focus)[:2]
    a, b, c = ray[:2] @ ray[:2], 2 * ray[:2] @ offset, offset @ offset - DISTANCE**2
    place = source + ray * (-b + np.sqrt(b * b - 4 * a * c)) / (2 * a) - focus
    gamma = np.arctan2(place @ right, place @ middle)
    # Row 1 is the farthest from the viewer, who looks along z.
    return CENTRAL[0] + gamma * DISTANCE / SIZE, CENTRAL[1] - place[2] / HEIGHT


def write_scan(folder, views, turned=False, **others):
    """Views of a ball: a Gaussian where its middle is seen."""
    folder.mkdir(parents=True)
    columns, rows = np.arange(1, COLUMNS + 1)[:, None], np.arange(1, ROWS + 1)
    for n, view in enumerate(views):
        x, y = seen_by(view)
        pixels = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 2)
        write_view(folder / f"{n:05d}.dcm", view, pixels.T if turned else pixels, n + 1, **others)
    return folder


def middles(values):
    """Where views (views, columns, rows) are bright, in elements."""
    i, j = np.arange(values.shape[1])[:, None], np.arange(values.shape[2])
    values = np.where(values > 0.02, values, 0.0)
    return np.stack([(values * i).sum((1, 2)), (values * j).sum((1, 2))]) / values.sum((1, 2))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shifts", [{}, {"d_z": 3.0}, {"d_phi": 0.01, "d_rho": 4.0, "d_z": -2.0}])
def test_rays_of_the_geometry_meet_what_the_views_show(shifts, turned, tmp_path):
    """The format's vectors, left-handed, against the projector's right-handed frame: nothing is mirrored or shifted."""
    views = [v for v in trajectory(1.0, **shifts) if 3 < seen_by(v)[1] < ROWS - 2]
    scan = read_ct_pd(write_scan(tmp_path / "scan", views, turned, stated=not turned))
    assert len(views) > 20 and scan.geometry.detector == "curved" and scan.geometry.beam == "cone"
    exact = line_integrals(scan.geometry, (((BALL[0], BALL[1], -BALL[2]), (3.0, 3.0, 3.0), 1.0),)).numpy()
    assert np.abs(middles(scan.values) - middles(exact)).max() < 0.2
    assert scan.water == 0.02 and scan.noise is None


@pytest.mark.parametrize("position, signs", [("HFS", (-1, 1, -1)), ("FFP", (-1, -1, 1))])
def test_the_result_lies_where_the_patient_lay(position, signs, tmp_path):
    scan = read_ct_pd(write_scan(tmp_path / "scan", trajectory(0.2), position=position))
    assert np.allclose(np.diag(scan.geometry.world)[:3], signs) and not scan.doubts
    assert np.linalg.det(scan.geometry.world) == pytest.approx(1)
    other = read_ct_pd(write_scan(tmp_path / "other", trajectory(0.2), position="SITTING"))
    assert "PatientPosition is SITTING" in other.doubts[0]


def test_a_part_of_the_views_is_taken(tmp_path):
    folder = write_scan(tmp_path / "scan", trajectory(2.0))
    every = read_ct_pd(folder, every=3)
    assert len(every.geometry.angles) == 41
    low = read_ct_pd(folder, heights=(-30.0, 0.0)).geometry.per_view("source_row_offset")
    assert low.min() >= 0 and low.max() <= 30  # the frame's z is against the header's
    with pytest.raises(Refusal, match="0 of its 121 views are taken, .* z from -24 to 24 mm"):
        read_ct_pd(folder, heights=(500.0, 600.0))
    with pytest.raises(Refusal, match="--raw#every"):
        read_ct_pd(folder, limits=Limits(max_gigabytes=1e-4))


BAD = {
    "lacks": ({"elements": {0x70311033: ("FL", None)}}, r"lacks \(7031,1033\)"),
    "shape": ({"elements": {0x7029100B: ("CS", "SPHERICAL")}}, "the shape SPHERICAL is not supported"),
    "log": ({"elements": {0x70391009: ("CS", "NO")}}, "no logarithm was taken"),
    "water": ({"elements": {0x70411001: ("DS", "3.0")}}, "the attenuation of water is 3"),
    "size": ({"elements": {0x70291011: ("US", COLUMNS - 1)}}, "a view has 64 x 16 values, and the detector 63 x 16"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_whole_scan_is_refused(case, tmp_path):
    others, words = BAD[case]
    with pytest.raises(Refusal, match=words):
        read_ct_pd(write_scan(tmp_path / "scan", trajectory(0.1), **others))


def test_a_damaged_view_is_named_and_two_scans_are_told_apart(tmp_path):
    folder = write_scan(tmp_path / "scan", trajectory(0.1))
    (folder / "00002.dcm").write_bytes((folder / "00002.dcm").read_bytes()[:900])
    with pytest.raises(Refusal, match="00002.dcm"):
        read_ct_pd(folder)
    folder = write_scan(tmp_path / "two", trajectory(0.1))
    write_view(folder / "9.dcm", trajectory(0.1)[0], np.zeros((COLUMNS, ROWS)), 99, elements={0x70331063: ("US", 2)})
    with pytest.raises(Refusal, match="spectrum"):
        read_ct_pd(folder)


def test_water_in_1_per_cm_and_numbers_as_text():
    ds = Dataset()
    ds.add_new(0x70411001, "UN", b"0.21 ")
    assert value_of(ds, 0x70411001, "f") == 0.21
    geometry = ScanGeometry("fan", (0.0, 90.0), 4, 1.0, 3, 1.0, 100.0, 200.0)
    scan = RawData(water=0.0192).calibrated(_scan(geometry, 0.0192 * 2))
    assert np.allclose(scan.values, 0.5)


def _scan(geometry, water):
    return RawScan(np.ones(geometry.range_shape, np.float32), geometry, water)


def test_a_folder_of_views_is_one_case_whose_noise_is_known(tmp_path):
    photons = list(np.linspace(1e4, 2e4, COLUMNS))
    write_scan(tmp_path / "in" / "doe", trajectory(0.2), elements={0x70331065: ("FL", photons)})
    read = LoadProjectionsd("image")
    cases = Cases(str(tmp_path / "in"), read, reader=read, output_dir=tmp_path / "out")
    (item,) = cases.usable
    assert item["case"] == "doe" and is_ct_pd(tmp_path / "in" / "doe")
    image = read(item)["image"]
    assert image.shape[1:] == (13, COLUMNS, ROWS)
    expected = np.exp(image[0].numpy() / (0.0192 / 0.02)) / np.array(photons)[::-1, None] * (0.0192 / 0.02) ** 2
    assert np.allclose(image.meta["noise"].variance, expected, rtol=1e-3)
    told = fingerprint(tmp_path / "in" / "doe")
    (tmp_path / "in" / "doe" / "00003.dcm").unlink()
    assert told is not None and fingerprint(tmp_path / "in" / "doe") != told


# -- rebinning ----------------------------------------------------------------------------------------------
def helix(detector="curved", turns=5.0, pitch=PITCH, rows=ROWS):
    count = int(turns * TURN)
    heights = pitch * (np.arange(count) - (count - 1) / 2) / TURN
    return ScanGeometry(
        "cone", tuple(np.degrees(2 * np.pi * np.arange(count) / TURN) + 17.0), COLUMNS, SIZE, rows, HEIGHT, RHO,
        DISTANCE, column_offset=1.1, row_offset=tuple(heights), source_row_offset=tuple(heights), detector=detector,
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
    middle = x[20:28, 20:28, fan.num_rows // 2]
    assert middle.mean() == pytest.approx(0.02, rel=0.03)


def test_what_cannot_be_rebinned_is_refused():
    geometry = helix()
    values = np.ones(geometry.range_shape, np.float32)
    for other, words in (
        (replace(geometry, source_column_offset=tuple(float(n % 2) for n in range(300))), "focal spot moves"),
        (replace(geometry, angles=tuple(a + n % 5 / 2 for n, a in enumerate(geometry.angles))), "not evenly spaced"),
        (replace(geometry, row_offset=0.0, source_row_offset=0.0), "takes a helix"),
        (helix(pitch=200.0), "the pitch is too large"),
    ):
        with pytest.raises(Refusal, match=words):
            rebinned(values, other)
    short = helix(turns=0.9)
    with pytest.raises(Refusal, match="more than a turn"):
        rebinned(np.ones(short.range_shape, np.float32), short)


def test_a_rebinned_scan_from_its_files(tmp_path):
    folder = write_scan(tmp_path / "scan", trajectory(3.0))
    image = LoadProjectionsd("image", raw=RawData(rebin="fan"))({"image": str(folder)})["image"]
    assert image.meta["geometry"].beam == "fan" and image.shape[1] == TURN


@pytest.mark.parametrize("options, words", [
    ({"every": 0}, "every"), ({"heights": [3, 1]}, "heights must be two rising"), ({"rebin": "cone"}, "rebin must be"),
    ({"slice_spacing": 0}, "slice_spacing"), ({"water": -1}, "water"),
])  # fmt: skip
def test_options_are_checked(options, words):
    with pytest.raises(UsageError, match=words):
        RawData(**options)


# -- Helix2Fan ----------------------------------------------------------------------------------------------
def write_stack(path, fan, lowest=-20.0, **others):
    """As the program writes it: of a scan whose source is at theta, alpha = -theta - 90 degrees."""
    values = line_integrals(fan, ELLIPSOIDS).float().numpy()[:, :, ::-1]
    alpha = -np.radians(np.array(fan.angles) + 90.0)
    fields = {
        "angles": [*alpha, *(alpha - 2 * np.pi)], "rotview": len(alpha), "dso": RHO, "ddo": DISTANCE - RHO, "du": SIZE,
        "dv_rebinned": fan.row_size, "z_positions": [lowest, lowest + 1], "hu_factor": 0.02, "scan_id": "Doe",
    } | others  # fmt: skip
    tifffile.imwrite(path, values, metadata={k: v for k, v in fields.items() if v is not None})
    return values


def fan_of(lowest=-20.0, slices=9, spacing=5.0):
    return ScanGeometry(
        "fan", tuple(np.arange(0.0, 360.0, 6.0)), COLUMNS, SIZE, slices, spacing, RHO, DISTANCE,
        row_offset=-(lowest + spacing * (slices - 1) / 2),
    )  # fmt: skip


def test_a_stack_of_helix2fan_is_the_fan_beam_that_it_was_made_from(tmp_path):
    fan = fan_of()
    write_stack(tmp_path / "scan_flat_fan_projections.tif", fan)
    scan = read_helix2fan(tmp_path / "scan_flat_fan_projections.tif")
    exact = line_integrals(scan.geometry, ELLIPSOIDS).numpy()
    assert np.abs(scan.values - exact).max() < 1e-4 * exact.max() and scan.water == 0.02
    image = LoadProjectionsd("image")({"image": str(tmp_path / "scan_flat_fan_projections.tif")})["image"]
    assert np.allclose(image[0].numpy(), scan.values * 0.0192 / 0.02, rtol=1e-5)


@pytest.mark.parametrize("others, words", [
    ({"dso": None}, "lacks dso"), ({"rotview": 12}, "is no fan beam of 12 views"),
    ({"du": "wide"}, "does not hold numbers"),
    ({"hu_factor": 5.0}, "attenuation of water"),
])  # fmt: skip
def test_other_stacks_are_refused(others, words, tmp_path):
    write_stack(tmp_path / "a.tif", fan_of(), **others)
    with pytest.raises(Refusal, match=words):
        read_helix2fan(tmp_path / "a.tif")


def test_pictures_and_damaged_files_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "picture.tif", np.zeros((4, 5, 6), np.float32))
    with pytest.raises(ValueError, match="picture.tif: no stack of Helix2Fan"):
        LoadProjectionsd("image")({"image": str(tmp_path / "picture.tif")})
    write_stack(tmp_path / "cut.tif", fan_of())
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:300])
    with pytest.raises(ValueError, match="cut.tif: "):
        LoadProjectionsd("image")({"image": str(tmp_path / "cut.tif")})


# -- whole runs ---------------------------------------------------------------------------------------------
def write_body(folder, views):
    """Views of ELLIPSOIDS, as a scanner would have seen them."""
    folder.mkdir(parents=True)
    write_view(folder / "0.dcm", views[0], np.zeros((COLUMNS, ROWS)), 1)
    write_view(folder / "1.dcm", views[1], np.zeros((COLUMNS, ROWS)), 2)
    headers = [view_of(pydicom.dcmread(folder / f"{n}.dcm"), "") for n in (0, 1)]
    geometry = geometry_of([headers[0] | view for view in views])
    values = line_integrals(geometry, ELLIPSOIDS).numpy()
    for n, view in enumerate(views):
        write_view(folder / f"{n}.dcm", view, values[n, ::-1], n + 1)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("rebin", ["none", "fan"])
def test_a_scanner_s_folder_becomes_a_volume_where_the_patient_lay(rebin, run_here, tiny_overrides, tmp_path):
    views = trajectory(3.0, d_z=1.5) if rebin == "none" else trajectory(3.0)
    write_body(tmp_path / "in" / "Doe", views)
    grid = {"operator#spacing": 3.0} if rebin == "none" else {}
    quick = {"num_steps": 1, "baselines#total_variation#iterations": 20, "raw#rebin": rebin, "deidentify": True, **grid}
    run_here(
        "inference", ["configs/inference.json", "configs/task_svct.json"], tiny_overrides(tmp_path / "in", **quick)
    )
    (path,) = (tmp_path / "results").glob("case_*/*_recon.nii.gz")
    assert not any(b"Doe" in p.read_bytes() for p in path.parent.iterdir())
    recon = nib.load(path)
    values = recon.get_fdata()
    places = nib.affines.apply_affine(recon.affine, np.stack(np.nonzero(values > 400), 1))
    # The ball lies to the right of who stands at the table, which is the left of who lies on the back, head first.
    assert np.abs(np.median(places, 0) - np.array([-BALL[0], BALL[1], BALL[2]])).max() < 3.0
