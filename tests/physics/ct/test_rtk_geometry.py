"""Geometry files of the Reconstruction Toolkit: what they say is what is read, and RTK's own projections come back."""

from dataclasses import asdict

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from interslice.files.write import write_nifti
from interslice.physics import Measured, operator_of
from interslice.physics.baselines import LeastSquares, LinearReconstruction
from interslice.physics.ct import Tomography
from interslice.physics.ct.read import LoadProjectionsd, read_projections
from interslice.physics.ct.rtk_geometry import RAS_FROM_SCANNER, read_rtk_geometry
from interslice.physics.measurement import reconstructed

SIZE, SPACING = (40, 30), (2.0, 3.0)
CENTRED = (-39.0, -43.5)
"""Origin of an image of that size and spacing whose middle is at 0."""
MATRIX = "<Matrix>-500 0 0 1500 0 -500 0 -900 0 0 1 -300</Matrix>"


def values(**fields):
    return "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())


COMMON = {"SourceToIsocenterDistance": 300, "SourceToDetectorDistance": 500}
THREE = [{"GantryAngle": angle} for angle in (0, 90.5, 270)]


def write_xml(path, common=COMMON, views=THREE, root="RTKThreeDCircularGeometry"):
    """As RTK writes it: what all projections share first, then the projections with their matrices."""
    projections = "".join(f"<Projection>{values(**v)}{MATRIX}</Projection>" for v in views)
    head = '<?xml version="1.0"?>\n<!DOCTYPE RTKGEOMETRY>\n'
    path.write_text(f'{head}<{root} version="3">{values(**common)}{projections}</{root}>\n', encoding="utf-8")
    return path


def read(path, origin=CENTRED):
    return read_rtk_geometry(path, SIZE, SPACING, origin)


# -- the XML --------------------------------------------------------------------------------------
def test_a_plain_geometry(tmp_path):
    geometry = read(write_xml(tmp_path / "scan.xml"))
    expected = {
        "beam": "cone", "angles": (0.0, 90.5, 270.0), "num_columns": 40, "column_size": 2.0,
        "num_rows": 30, "row_size": 3.0,
        "source_to_isocenter": 300.0, "source_to_detector": 500.0, "column_offset": 0.0, "row_offset": 0.0,
        "source_column_offset": 0.0, "source_row_offset": 0.0, "world": RAS_FROM_SCANNER, "detector": "flat",
        "detector_radius": None, "out_of_plane_angle": 0.0, "in_plane_angle": 0.0,
    }  # fmt: skip
    assert asdict(geometry) == expected


def test_the_middle_of_the_image_is_the_middle_of_the_detector(tmp_path):
    """Element i lies at origin + i * spacing, whatever the origin."""
    geometry = read(write_xml(tmp_path / "scan.xml"), origin=(-30.0, 7.0))
    np.testing.assert_allclose(geometry.columns[0], -30.0 + 2.0 * np.arange(40))
    np.testing.assert_allclose(geometry.rows[0], 7.0 + 3.0 * np.arange(30))


def test_offsets_add_to_the_origin_and_those_of_the_source_do_not(tmp_path):
    offsets = {"ProjectionOffsetX": 5, "ProjectionOffsetY": -2.5, "SourceOffsetX": 1.5, "SourceOffsetY": -4}
    geometry = read(write_xml(tmp_path / "scan.xml", COMMON | offsets), origin=(-30.0, 7.0))
    np.testing.assert_allclose(geometry.columns[1], 5 - 30.0 + 2.0 * np.arange(40))
    np.testing.assert_allclose(geometry.rows[1], -2.5 + 7.0 + 3.0 * np.arange(30))
    assert (geometry.source_column_offset, geometry.source_row_offset) == (1.5, -4.0)


def test_values_of_a_projection_replace_the_common_ones(tmp_path):
    views = [{"GantryAngle": a, "ProjectionOffsetX": x} for a, x in ((10, 1), (20, 2), (30, -3))]
    views[1] |= {"SourceToIsocenterDistance": 310, "SourceOffsetY": 0.5}
    geometry = read(write_xml(tmp_path / "scan.xml", COMMON, views))
    assert geometry.column_offset == (1.0, 2.0, -3.0)
    assert geometry.source_to_isocenter == (300.0, 310.0, 300.0)
    assert geometry.source_row_offset == (0.0, 0.5, 0.0)
    assert geometry.source_to_detector == 500.0  # all alike: one number


def test_distances_may_be_given_for_each_projection_alone(tmp_path):
    views = [{"GantryAngle": a} | COMMON | {"SourceToDetectorDistance": 500 + a} for a in (0, 120, 240)]
    geometry = read(write_xml(tmp_path / "scan.xml", {}, views))
    assert geometry.source_to_isocenter == 300.0 and geometry.source_to_detector == (500.0, 620.0, 740.0)


def test_what_does_not_bear_on_the_rays_is_passed_over(tmp_path):
    """Collimation hides elements; it moves none."""
    assert read(write_xml(tmp_path / "a.xml", COMMON | {"CollimationUInf": 30})) == read(write_xml(tmp_path / "b.xml"))


def test_tilts_are_read_view_by_view(tmp_path):
    views = [v | {"InPlaneAngle": 3.0 * i} for i, v in enumerate(THREE)]
    geometry = read(write_xml(tmp_path / "scan.xml", COMMON | {"OutOfPlaneAngle": -2.5}, views))
    assert geometry.out_of_plane_angle == -2.5 and geometry.in_plane_angle == (0.0, 3.0, 6.0)
    assert geometry.tilted and geometry.detector == "flat"


def test_a_cylindrical_detector_is_read_with_its_radius(tmp_path):
    geometry = read(write_xml(tmp_path / "scan.xml", COMMON | {"RadiusCylindricalDetector": 450}))
    assert (geometry.detector, geometry.detector_radius) == ("curved", 450.0)
    views = [*THREE[:2], THREE[2] | {"RadiusCylindricalDetector": 450}]
    with pytest.raises(ValueError, match=r"scan.xml: RadiusCylindricalDetector is \[0.0, 450.0\]; a scan has one"):
        read(write_xml(tmp_path / "scan.xml", COMMON, views))


@pytest.mark.parametrize(
    ("common", "views", "message"),
    [
        (COMMON, [{"GantryAngle": 0}, {"ProjectionOffsetX": 1}], "projection 1 has no GantryAngle"),
        ({"SourceToDetectorDistance": 500}, THREE, "projection 0 has no SourceToIsocenterDistance"),
        ({"SourceToIsocenterDistance": 300}, THREE, "projection 0 has no SourceToDetectorDistance"),
        (COMMON, [], "scan.xml describes no projection"),
        (COMMON, THREE[:1], "a scan needs at least 2 angles"),
        (COMMON | {"SourceToIsocenterDistance": "far"}, THREE, "SourceToIsocenterDistance is 'far', not a number"),
        (COMMON, [*THREE, {"GantryAngle": ""}], "GantryAngle is None, not a number"),
        (COMMON, [*THREE, {"GantryAngle": "nan"}], r"angles\[3\] is nan, not a finite number"),
        (COMMON | {"SourceToDetectorDistance": 0}, THREE, "source_to_detector must be positive"),  # RTK's parallel beam
        (COMMON | {"SourceToDetectorDistance": 200}, THREE, "must lie behind the isocenter"),
        (COMMON | {"ProjectionOffsetX": "inf"}, THREE, "column_offset"),
    ],
)
def test_values_that_are_missing_or_none_are_refused_with_their_name(tmp_path, common, views, message):
    with pytest.raises(ValueError, match=message):
        read(write_xml(tmp_path / "scan.xml", common, views))


@pytest.mark.parametrize("text", ["", "{}", "<RTKThreeDCircularGeometry><Projection>", "\0\1\2"])
def test_what_is_not_xml_is_refused(tmp_path, text):
    (tmp_path / "scan.xml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="scan.xml is not XML: "):
        read(tmp_path / "scan.xml")


def test_another_xml_is_refused_with_its_root(tmp_path):
    with pytest.raises(ValueError, match="scan.xml is not an RTK geometry: its root is <svg>"):
        read(write_xml(tmp_path / "scan.xml", root="svg"))


# -- stacks of projections ------------------------------------------------------------------------
def write_stack(path, voxels, spacing=(*SPACING, 1.0), origin=(*CENTRED, 0.0), direction=None):
    """An image of (columns, rows, views), as RTK keeps projections."""
    itk = pytest.importorskip("itk")
    image = itk.image_from_array(np.ascontiguousarray(voxels.transpose(0, 2, 1)))  # from (views, columns, rows)
    image.SetSpacing([float(s) for s in spacing])
    image.SetOrigin([float(o) for o in origin])
    if direction is not None:
        image.SetDirection(itk.matrix_from_array(np.asarray(direction, dtype=float)))
    itk.imwrite(image, str(path))
    return path


@pytest.fixture
def stack_values():
    return np.random.default_rng(0).random((3, *SIZE)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd"])
def test_a_stack_is_read_with_the_place_that_its_header_states(tmp_path, stack_values, suffix):
    write_xml(tmp_path / "scan.xml")
    y = read_projections(write_stack(tmp_path / f"scan{suffix}", stack_values, origin=(-30.0, 7.0, 0.0)))
    np.testing.assert_array_equal(y.as_tensor()[0], stack_values)
    assert y.meta["geometry"] == read(tmp_path / "scan.xml", origin=(-30.0, 7.0))


def test_json_is_preferred_to_xml(tmp_path, stack_values):
    write_xml(tmp_path / "scan.xml")
    geometry = read(write_xml(tmp_path / "other.xml", COMMON | {"SourceToIsocenterDistance": 250}))
    (tmp_path / "scan.json").write_text(geometry.to_json(), encoding="utf-8")
    np.savez(tmp_path / "scan.npz", projections=stack_values)
    assert read_projections(tmp_path / "scan.npz").meta["geometry"] == geometry


def test_an_npz_has_no_header_for_an_rtk_geometry(tmp_path, stack_values):
    write_xml(tmp_path / "scan.xml")
    np.savez(tmp_path / "scan.npz", projections=stack_values)
    with pytest.raises(
        ValueError, match="scan.xml describes an image with spacing and origin, which an .npz lacks: use JSON"
    ):
        read_projections(tmp_path / "scan.npz")


def test_a_stack_of_another_count_than_the_geometry_is_refused(tmp_path, stack_values):
    write_xml(tmp_path / "scan.xml", views=THREE[:2])
    path = write_stack(tmp_path / "scan.mha", stack_values)
    with pytest.raises(ValueError, match=r"the projections are \(3, 40, 30\) .* the geometry says \(2, 40, 30\)"):
        read_projections(path)


def test_a_stack_with_turned_axes_is_refused(tmp_path, stack_values):
    write_xml(tmp_path / "scan.xml")
    path = write_stack(tmp_path / "scan.mha", stack_values, direction=np.diag([-1.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="the detector's axes are turned in the image header"):
        read_projections(path)


def test_a_single_image_is_no_stack(tmp_path):
    itk = pytest.importorskip("itk")
    write_xml(tmp_path / "scan.xml")
    itk.imwrite(itk.image_from_array(np.ones((30, 40), np.float32)), str(tmp_path / "scan.mha"))
    with pytest.raises(ValueError, match=r"an RTK projection stack has three axes, got \(30, 40\)"):
        read_projections(tmp_path / "scan.mha")


# -- against RTK itself ---------------------------------------------------------------------------
BALLS = (((14.0, -8.0, 6.0), 6.0, 0.02), ((-12.0, 5.0, -16.0), 5.0, 0.03), ((3.0, 15.0, 17.0), 4.5, 0.04))
"""Centre in RTK's world (mm), radius (mm) and attenuation (1/mm): three places and three values, no symmetry."""
VOXEL, VIEWS = 1.5, 30
GRID = {"shape": (48, 44, 44), "spacing": VOXEL}
"""In the scanner frame: about 66 mm each way."""


def ball_image(itk):
    """The balls on RTK's voxels, with soft edges, as an ITK image (X, Y, Z) of 44, 40, 46."""
    size = (44, 40, 46)
    axes = [(np.arange(n) - (n - 1) / 2) * VOXEL for n in size]
    position = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    volume = np.zeros(size, np.float32)
    for centre, radius, value in BALLS:
        distance = np.linalg.norm(position - centre, axis=-1)
        volume += value * np.clip((radius - distance) / VOXEL + 0.5, 0, 1)
    image = itk.image_from_array(np.ascontiguousarray(volume.T))
    image.SetSpacing([VOXEL] * 3)
    image.SetOrigin([float(a[0]) for a in axes])
    return image


def plain(i):
    return {"GantryAngle": 360 * i / VIEWS}


def moving(i):
    """Uneven angles, in another order, and every value of a view for itself."""
    turned = 360 * ((7 * i) % VIEWS) / VIEWS + 3 * np.sin(i)
    return {
        "GantryAngle": turned, "iso": 300 + 4 * np.sin(i), "det": 500 - 5 * np.cos(i),
        "ProjectionOffsetX": 3 * np.cos(2 * i),
        "ProjectionOffsetY": -2 * np.sin(i), "SourceOffsetX": 2 * np.sin(3 * i), "SourceOffsetY": 1.5 * np.cos(i),
    }  # fmt: skip


def tilted(i):
    """Source and detector swing up and down and turn about the central ray, too."""
    return moving(i) | {"OutOfPlaneAngle": 12 * np.sin(2 * i), "InPlaneAngle": 9 * np.cos(i)}


def cylindrical(i):
    return plain(i) | {"radius": 400.0, "ProjectionOffsetX": 4.0}


def tilted_cylinder(i):
    return tilted(i) | {"radius": 500.0}


SCANS = {
    "centred": (plain, (-63.0, -57.0)),
    "offset": (lambda i: plain(i) | {"ProjectionOffsetX": 6.0, "ProjectionOffsetY": -4.0}, (-63.0, -57.0)),
    "origin": (plain, (-58.0, -61.0)),
    "offset and origin": (lambda i: plain(i) | {"ProjectionOffsetX": 20.0}, (-80.0, -53.0)),
    "moving": (moving, (-60.0, -58.5)),
    "tilted": (tilted, (-60.0, -58.5)),
    "cylindrical": (cylindrical, (-63.0, -57.0)),
}
"""What each view is like, and the origin of the projections, of 64 x 58 elements of 2 mm."""


def toolkit():
    """ITK and RTK, where both are installed."""
    itk = pytest.importorskip("itk")
    rtk = getattr(itk, "RTK", None)  # a lazily loaded attribute, no module
    if rtk is None:
        pytest.skip("itk-rtk is not installed")
    return itk, rtk


def project_by_rtk(folder, view, origin):
    """scan.mha and scan.xml, both written by RTK and ITK."""
    itk, rtk = toolkit()
    image_type = itk.Image[itk.F, 3]
    geometry = rtk.ThreeDCircularProjectionGeometry.New()
    geometry.SetRadiusCylindricalDetector(view(0).get("radius", 0.0))
    for i in range(VIEWS):
        v = {"iso": 300.0, "det": 500.0} | view(i)
        offsets = [v.get(n, 0.0) for n in ("ProjectionOffsetX", "ProjectionOffsetY")]
        tilts = [v.get(n, 0.0) for n in ("OutOfPlaneAngle", "InPlaneAngle")]
        source = [v.get(n, 0.0) for n in ("SourceOffsetX", "SourceOffsetY")]
        geometry.AddProjection(v["iso"], v["det"], v["GantryAngle"], *offsets, *tilts, *source)
    empty = rtk.ConstantImageSource[image_type].New()
    empty.SetOrigin([*origin, 0.0])
    empty.SetSpacing([2.0, 2.0, 1.0])
    empty.SetSize([64, 58, VIEWS])
    empty.SetConstant(0.0)
    project = rtk.JosephForwardProjectionImageFilter[image_type, image_type].New()
    project.SetInput(0, empty.GetOutput())
    project.SetInput(1, ball_image(itk))
    project.SetGeometry(geometry)
    project.Update()
    itk.imwrite(project.GetOutput(), str(folder / "scan.mha"))
    writer = rtk.ThreeDCircularProjectionGeometryXMLFileWriter.New()
    writer.SetFilename(str(folder / "scan.xml"))
    writer.SetObject(geometry)
    writer.WriteFile()
    return folder / "scan.mha"


def check_balls(path):
    """Each ball is where RTK had it, in RAS+ world coordinates, with its attenuation."""
    image = nib.load(path)
    voxels = image.get_fdata()
    world = nib.affines.apply_affine(image.affine, np.stack(np.indices(voxels.shape), -1))
    for (x, y, z), radius, value in BALLS:
        centre = np.array([-x, -y, z])  # from LPS
        distance = np.linalg.norm(world - centre, axis=-1)
        near = distance < radius + 4
        found = (world[near] * voxels[near][:, None]).sum(0) / voxels[near].sum()
        np.testing.assert_allclose(found, centre, atol=VOXEL / 2)
        assert voxels[distance < radius - 2].mean() == pytest.approx(value, rel=0.08)
    outside = np.min([np.linalg.norm(world - (-x, -y, z), axis=-1) - r for (x, y, z), r, _ in BALLS], 0) > 3
    assert abs(voxels[outside].mean()) < 2e-4 and np.abs(voxels[outside]).mean() < 1.5e-3


@pytest.mark.slow
@pytest.mark.parametrize(("view", "origin"), SCANS.values(), ids=SCANS)
@pytest.mark.parametrize("reconstruct", [LinearReconstruction(), LeastSquares(6)], ids=["FDK", "least squares"])
def test_what_rtk_projects_is_reconstructed_at_its_place_with_its_values(tmp_path, view, origin, reconstruct):
    if isinstance(reconstruct, LeastSquares) and view is not moving:
        pytest.skip("one iterative reconstruction is enough: it takes seconds")
    path = project_by_rtk(tmp_path, view, origin)
    read = Compose([LoadProjectionsd("image"), Measured("image", Tomography(background=0.0, **GRID))])
    y = read({"image": str(path)})["image"]
    x = reconstruct(y.as_tensor()[0], operator_of(y))
    write_nifti(tmp_path / "recon.nii.gz", reconstructed(x, y))
    check_balls(tmp_path / "recon.nii.gz")


@pytest.mark.slow
@pytest.mark.parametrize("view", [moving, tilted, cylindrical, tilted_cylinder])
def test_our_projections_are_those_of_rtk(tmp_path, view):
    """Both after Joseph: the same volume on the same voxels gives the same line integrals, ray by ray."""
    itk, _ = toolkit()
    y = read_projections(project_by_rtk(tmp_path, view, (-60.0, -58.5)))
    # The scanner's (x, y, z) is RTK's (X, -Z, Y).
    volume = torch.from_numpy(itk.array_from_image(ball_image(itk)).T.copy()).permute(0, 2, 1).flip(1).contiguous()
    operator = Tomography(background=0.0, shape=tuple(volume.shape), spacing=VOXEL, center=(0, 0, 0)).for_measurement(y)
    ours = operator.forward(volume[None].float())
    theirs = y.as_tensor()
    assert float(theirs.max()) > 0.3
    # RTK clips the ends of a ray to the volume and so counts other shares of its border, where there is nothing.
    assert float((ours - theirs).abs().max()) < 0.002 * float(theirs.max())


def short(i):
    return {"GantryAngle": 10 + 220 * i / (VIEWS - 1)}


def shifted(i):
    return plain(i) | {"ProjectionOffsetX": 40.0}


def fdk_by_rtk(path, weights):
    """RTK's own direct reconstruction of scan.mha and scan.xml, on the balls' voxels, as an array (X, Y, Z)."""
    itk, rtk = toolkit()
    image_type = itk.Image[itk.F, 3]
    reader = rtk.ThreeDCircularProjectionGeometryXMLFileReader.New(Filename=str(path.with_suffix(".xml")))
    reader.GenerateOutputInformation()
    geometry = reader.GetOutputObject()
    weigh = getattr(rtk, weights)[image_type].New(Input=itk.imread(str(path), itk.F), Geometry=geometry)
    balls = ball_image(itk)
    empty = rtk.ConstantImageSource[image_type].New()
    empty.SetOrigin(balls.GetOrigin())
    empty.SetSpacing(balls.GetSpacing())
    empty.SetSize(list(itk.size(balls)))
    empty.SetConstant(0.0)
    fdk = rtk.FDKConeBeamReconstructionFilter[image_type].New()
    fdk.SetInput(0, empty.GetOutput())
    fdk.SetInput(1, weigh.GetOutput())
    fdk.SetGeometry(geometry)
    fdk.GetRampFilter().SetHannCutFrequency(1.0)
    fdk.Update()
    return itk.array_from_image(fdk.GetOutput()).T.copy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("view", "weights"), [(short, "ParkerShortScanImageFilter"), (shifted, "DisplacedDetectorImageFilter")]
)
def test_direct_reconstructions_are_those_of_rtk(tmp_path, view, weights):
    """Parker's and Wang's weights, each toolkit with its own."""
    path = project_by_rtk(tmp_path, view, (-63.0, -57.0))
    theirs = torch.from_numpy(fdk_by_rtk(path, weights)).permute(0, 2, 1).flip(1)
    y = read_projections(path)
    operator = Tomography(background=0.0, shape=tuple(theirs.shape), spacing=VOXEL, center=(0, 0, 0)).for_measurement(y)
    ours = operator.linear_reconstruction(y.as_tensor()[0])
    itk, _ = toolkit()
    balls = torch.from_numpy(itk.array_from_image(ball_image(itk)).T.copy()).permute(0, 2, 1).flip(1)
    for inside in (balls == value for _, _, value in BALLS):
        assert float(ours[inside].mean()) == pytest.approx(float(theirs[inside].mean()), rel=0.01)
    assert (ours - theirs).square().mean().sqrt() < 0.001 * theirs.max()
