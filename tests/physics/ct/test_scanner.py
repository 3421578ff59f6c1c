"""From settings and headers to CT operators: views, detector and grid by default, what is warned of and refused."""

import math
import sys
import warnings

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from interslice.physics.ct import ConeBeam, ScanGeometry, SparseRadon, Tomography
from interslice.physics.ct.scanner import shortfall
from tests.support.helpers import repeatable
from tests.support.scans import OBLIQUE

DISTANCES = {"source_to_isocenter": 200.0, "source_to_detector": 350.0}
BEAMS = ("parallel", "fan", "cone")


def volume(shape=(24, 20, 6), spacing=(2.0, 2.0, 3.0), affine=None):
    if affine is None:
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = (40.0, -30.0, 200.0)
    return MetaTensor(torch.zeros(1, *shape), affine=torch.as_tensor(affine, dtype=torch.float64))


def scan(beam="parallel", **others):
    """A geometry of 8 views."""
    rows = {"num_rows": 6, "row_size": 3.0} if beam != "cone" else {"num_rows": 16, "row_size": 3.5}
    plain = {"beam": beam, "angles": tuple(range(0, 360, 45)), "num_columns": 48, "column_size": 2.0, **rows}
    return ScanGeometry(**plain | (DISTANCES if beam != "parallel" else {}) | others)


def projections(geometry, grid=None):
    meta = {"geometry": geometry} | ({"grid": grid} if grid else {})
    return MetaTensor(torch.zeros(1, *geometry.range_shape), meta=meta)


def tomography(beam="parallel", **others):
    return Tomography(beam=beam, **DISTANCES | {"num_views": 6} | others)


# -- views ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("beam", "arc"), [("parallel", 180), ("fan", 360), ("cone", 360)])
@pytest.mark.parametrize("start", [0.0, 15.0])
def test_views_are_spaced_evenly_over_half_a_turn_or_a_whole_one(beam, arc, start):
    """The last view is one step short of the end, where the first would come again."""
    angles = tomography(beam, num_views=4, start_angle=start).for_volume(volume()).geometry.angles
    assert angles == pytest.approx([start + arc * share for share in (0, 0.25, 0.5, 0.75)])


def test_an_arc_is_covered_as_far_as_it_is_told():
    angles = tomography(num_views=100, arc=100.0).for_volume(volume()).geometry.angles
    assert angles == pytest.approx(list(range(100)))


def test_explicit_angles_replace_the_spacing_and_keep_their_order():
    angles = [30, -10.5, 400, 30]
    operator = tomography("fan", angles=angles, num_views=3, arc=-5).for_volume(volume())
    assert operator.geometry.angles == (30.0, -10.5, 400.0, 30.0)
    assert operator.range_shape[0] == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam": "helical"}, "beam must be one of .*, got 'helical'"),
        ({"num_views": 1}, "num_views must be a whole number from 2, got 1"),
        ({"num_views": 0}, "num_views must be a whole number from 2, got 0"),
        ({"num_views": 12.5}, "num_views must be a whole number from 2, got 12.5"),
        ({"num_views": "30"}, "num_views must be a whole number from 2, got '30'"),
        ({"num_views": None}, "num_views must be a whole number from 2, got None"),
        ({"arc": 0}, "arc must be a number of degrees above 0, up to 360, got 0"),
        ({"arc": -90.0}, "arc must be a number of degrees above 0, up to 360, got -90"),
        ({"arc": 361.0}, "arc must be a number of degrees above 0, up to 360, got 361"),
        ({"arc": math.nan}, "arc must be a number of degrees above 0, up to 360, got nan"),
    ],
)
def test_views_that_are_none_are_refused_when_the_settings_are_read(settings, message):
    with pytest.raises(ValueError, match=message):
        Tomography(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"angles": [0]}, "a scan needs at least 2 angles"),
        ({"angles": []}, "a scan needs at least 2 angles"),
        ({"angles": [0, math.nan]}, r"angles\[1\] is nan"),
        ({"angles": [0, "90"]}, r"angles\[1\] is '90'"),
        ({"column_size": -1.0, "num_columns": 30}, "column_size must be a positive number of mm, got -1.0"),
        ({"num_columns": -3}, "num_columns must be a whole number from 1, got -3"),
        ({"source_to_isocenter": 30.0}, "the volume reaches 31 mm .* source is 30 mm away: set a larger"),
        ({"source_to_detector": 150.0}, "must lie behind the isocenter"),
    ],
)
def test_scans_that_are_none_are_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        tomography("fan", **settings).for_volume(volume())


SIZES = ("column_size", "row_size", "num_columns", "num_rows", "source_to_isocenter", "source_to_detector")


@pytest.mark.parametrize("value", [0, -1.0, math.nan])
@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_is_none_is_refused_by_its_name(name, value):
    """Zero is no wish for the default, and another setting is not to blame."""
    with pytest.raises(ValueError, match=name):
        tomography("cone", **{name: value}).for_volume(volume())


# -- the detector of a simulated scan -------------------------------------------------------------
volumes = st.builds(
    lambda shape, in_plane, thickness: volume(tuple(shape), (*in_plane, thickness)),
    st.tuples(*[st.integers(4, 20)] * 2, st.integers(2, 10)),
    st.tuples(*[st.floats(0.5, 4)] * 2),
    st.floats(0.5, 5),
)


@repeatable
@given(volume=volumes, beam=st.sampled_from(BEAMS), offset=st.sampled_from([0.0, 7.5, -20.0]))
def test_by_default_every_view_sees_the_whole_volume(volume, beam, offset):
    """No ray through any voxel passes the detector by; and there is no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings = {"column_offset": offset, "source_to_detector": 500.0}
        operator = tomography(beam, num_views=7, start_angle=11.0, **settings).for_volume(volume)
    geometry, grid = operator.geometry, operator.grid
    assert geometry.field_radius >= grid.radius * (1 - 1e-9)
    if beam == "cone":
        near = 200.0 - grid.radius  # where a slice's shadow is largest
        assert grid.shape[2] * grid.spacing[2] / 2 / near * 500.0 <= geometry.num_rows * geometry.row_size / 2 + 1e-6
    else:
        assert (geometry.num_rows, geometry.row_size) == (grid.shape[2], grid.spacing[2])


def test_by_default_a_detector_element_is_a_voxel_magnified():
    parallel, cone = (tomography(b).for_volume(volume()).geometry for b in ("parallel", "cone"))
    assert (parallel.column_size, parallel.row_size) == (2.0, 3.0)
    assert (cone.column_size, cone.row_size) == pytest.approx((2.0 * 1.75, 3.0 * 1.75))


def test_detector_settings_are_taken_as_they_are():
    settings = {
        "num_columns": 90,
        "column_size": 1.5,
        "num_rows": 31,
        "row_size": 2.5,
        "column_offset": 4.0,
        "row_offset": -6.0,
    }
    geometry = tomography("cone", **settings).for_volume(volume()).geometry
    assert {k: getattr(geometry, k) for k in settings} == settings
    slices = tomography("parallel", **settings).for_volume(volume()).geometry
    assert (slices.num_rows, slices.row_size, slices.row_offset) == (6, 3.0, 0.0)  # the rows are the slices


# -- warnings -------------------------------------------------------------------------------------
@pytest.mark.parametrize("beam", BEAMS)
def test_a_detector_that_is_too_narrow_is_warned_of_in_mm(beam):
    size = 2.0 if beam == "parallel" else 3.5
    with pytest.warns(
        UserWarning, match=r"the detector does not cover the volume: it misses (\d+) mm at the sides"
    ) as seen:
        operator = tomography(beam, num_columns=8, column_size=size).for_volume(volume())
    (message,) = [str(w.message) for w in seen]
    stated = float(message.split("misses ")[1].split(" mm")[0])
    missed = 24 - operator.geometry.field_radius  # half the volume's width, less what is seen
    assert (
        missed - 4 * 2.0 - 0.5 <= stated <= missed + 0.5
    )  # the 4 voxels to which a derived grid is rounded may be left out
    assert "and 0 mm at the ends; what lies there is not measured, and streaks come from it" in message


def test_a_detector_that_is_too_low_is_warned_of_in_mm():
    with pytest.warns(UserWarning, match="misses 0 mm at the sides and 5 mm at the ends"):
        # 2 rows of 3.85 mm see 2.2 mm to either side at the isocenter; the volume has 9 mm.
        tomography("cone", num_rows=2, row_size=3.85).for_volume(volume())


@pytest.mark.parametrize("beam", BEAMS)
def test_a_chosen_grid_that_is_too_large_is_warned_of_in_mm(beam):
    geometry = scan(beam)
    with pytest.warns(UserWarning, match="the detector does not cover the volume: it misses"):
        operator = tomography(beam, shape=(100, 24, 6), spacing=2.0).for_measurement(projections(geometry))
    across, along = shortfall(operator.geometry, operator.grid)
    assert 0 <= 100 - geometry.field_radius - across <= 8 and along == 0


def test_a_grid_beside_the_field_of_view_is_warned_of():
    with pytest.warns(UserWarning, match="it misses 56 mm at the sides"):  # 100 + 12 mm, 48 mm are seen, 8 are rounding
        tomography(shape=(12, 12, 6), spacing=2.0, center=(100.0, 0.0, 0.0)).for_measurement(projections(scan()))


@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize("columns", [9, 25, 48, 60, 101])
def test_a_derived_grid_is_no_reason_to_warn(beam, columns):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tomography(beam).for_measurement(projections(scan(beam, num_columns=columns)))


@pytest.mark.parametrize("offset", [12.0, -30.0])
def test_the_derived_grid_of_a_detector_that_was_moved_up_or_down_is_no_reason_to_warn(offset):
    """It lies where the rows look."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        operator = tomography("cone").for_measurement(projections(scan("cone", row_offset=offset)))
    assert operator.grid.center == pytest.approx((0, 0, offset * 200 / 350))


def test_a_grid_above_the_rows_is_warned_of():
    geometry = scan("cone", row_offset=28.0)  # 56 mm of rows see 0 to 32 mm at the isocenter
    with pytest.warns(UserWarning, match="it misses 0 mm at the sides and 15 mm at the ends"):
        tomography("cone", shape=(24, 24, 16), spacing=2.0, center=(0, 0, 0)).for_measurement(projections(geometry))


def test_a_run_says_once_of_each_scan_what_it_does_not_cover(capfd):
    """By Python's own rule for warnings, whichever way the operator is asked for."""
    settings = tomography(num_columns=8)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *_: print(message, file=sys.stderr)
        operator = settings.for_volume(volume())
        for name in ("the scan", "b.npz", "a.npz", "b.npz"):
            measured = projections(operator.geometry, operator.grid)
            measured.meta |= {} if name == "the scan" else {"filename_or_obj": name}
            settings.for_measurement(measured)
    said = [line.split(":")[0] for line in capfd.readouterr().err.splitlines() if "does not cover" in line]
    assert said == ["the scan", "b.npz", "a.npz"]


# -- places ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("beam", BEAMS)
@pytest.mark.parametrize(
    "affine", [np.diag([2.0, 2.0, 3.0, 1.0]), OBLIQUE @ np.diag([2.0, 1.5, 3.0, 1.0])], ids=["straight", "oblique"]
)
def test_a_reconstruction_lies_where_the_simulated_volume_lay(beam, affine):
    operator = tomography(beam).for_volume(volume(affine=affine))
    np.testing.assert_allclose(operator.domain_affine(), affine, atol=1e-6)
    again = tomography(beam).for_measurement(projections(operator.geometry, operator.grid))
    np.testing.assert_allclose(again.domain_affine(), affine, atol=1e-6)


def test_the_isocenter_is_the_middle_of_the_volume():
    operator = tomography().for_volume(volume(affine=OBLIQUE))
    middle = OBLIQUE @ [(24 - 1) / 2, (20 - 1) / 2, (6 - 1) / 2, 1]
    np.testing.assert_allclose(np.array(operator.geometry.world) @ [0, 0, 0, 1], middle, atol=1e-6)


def test_a_chosen_grid_puts_every_point_where_it_was():
    """A volume with a turned and shifted affine, measured; then reconstructed on another grid: a ball stays."""
    affine = OBLIQUE @ np.diag([2.0, 2.0, 3.0, 1.0])
    source = volume((24, 20, 6), affine=affine)
    where = np.array([7.0, 12.0, 2.0])
    index = np.stack(np.indices((24, 20, 6)), -1)
    radius = np.linalg.norm((index - where) * [2, 2, 3], axis=-1)
    settings = tomography(num_views=40)
    measured = settings.for_volume(source)
    y = measured.forward(torch.from_numpy((radius < 5).astype(np.float32))[None])
    y = MetaTensor(y, meta={"geometry": measured.geometry, "grid": measured.grid})
    finer = Tomography(shape=(40, 48, 6), spacing=1.2, center=(-1.0, 2.0, 0.0), background=0.0).for_measurement(y)
    x = finer.linear_reconstruction(y.as_tensor()[0]).clamp_min(0).numpy()
    x[x < 0.3 * x.max()] = 0
    voxel = np.array([(np.indices(x.shape)[a] * x).sum() / x.sum() for a in range(3)])
    found = nib.affines.apply_affine(finer.domain_affine().numpy(), voxel)
    np.testing.assert_allclose(found, nib.affines.apply_affine(affine, where), atol=0.3)
    assert nib.affines.voxel_sizes(finer.domain_affine().numpy()) == pytest.approx([1.2, 1.2, 3.0])


# -- measurements ---------------------------------------------------------------------------------
def test_projections_without_a_geometry_are_refused():
    with pytest.raises(ValueError, match="no scan geometry: this task takes projections, with their geometry beside"):
        tomography().for_measurement(volume())


@pytest.mark.parametrize("shape", [(8, 48, 5), (7, 48, 6), (8, 47, 6)])
def test_projections_of_another_size_than_the_geometry_says_are_refused(shape):
    y = projections(scan())
    other = MetaTensor(torch.zeros(1, *shape), meta=y.meta)
    numbers = rf"\({shape[0]}, {shape[1]}, {shape[2]}\)"
    with pytest.raises(
        ValueError, match=rf"projections are {numbers} .* geometry says \(8, 48, 6\): correct one of them"
    ):
        tomography().for_measurement(other)


@pytest.mark.parametrize(("beam", "kind"), [("parallel", SparseRadon), ("fan", SparseRadon), ("cone", ConeBeam)])
def test_the_beam_of_a_measurement_is_its_own(beam, kind):
    """Whatever the settings say of the simulated scan."""
    operator = Tomography(beam="parallel", num_views=99, background=-0.7).for_measurement(projections(scan(beam)))
    assert type(operator) is kind
    assert operator.geometry == scan(beam) and operator.background == -0.7


@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_operators_of_one_scan_share_their_matrix(beam):
    """Each reading of a file builds its operator; the matrix, which takes long, is built once."""
    y = projections(scan(beam))
    first, second = tomography(beam).for_measurement(y), tomography(beam).for_measurement(y)
    assert first is not second and first._rows is second._rows and first._transposed is second._transposed
    assert tomography(beam).for_measurement(projections(scan(beam, column_offset=0.5)))._rows is not first._rows


def test_the_operator_of_a_volume_and_of_its_measurement_are_one():
    settings = tomography()
    measured = settings.for_volume(volume())
    again = settings.for_measurement(projections(measured.geometry, measured.grid))
    assert (again.geometry, again.grid) == (measured.geometry, measured.grid) and again._rows is measured._rows


def test_model_and_background_reach_the_operator():
    settings = {"model": "strip", "background": -0.5}
    operator = tomography(**settings).for_volume(volume())
    assert operator.model == "strip" and operator.background == -0.5
    assert tomography("cone", backend="torch").for_volume(volume()).backend == "torch"
