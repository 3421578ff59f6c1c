"""The grid that a measurement is reconstructed on: what follows from the scan, what is chosen, and what is refused."""

import math

import pytest

from interslice.physics.ct import Grid
from tests.physics.ct.test_scanner import BEAMS, projections, scan, tomography


@pytest.mark.parametrize("beam", BEAMS)
def test_the_grid_follows_from_the_field_of_view(beam):
    """Voxels of a detector element's size at the isocenter, in-plane a multiple of 8 of them; as high as the rows."""
    geometry = scan(beam)
    grid = tomography(beam).for_measurement(projections(geometry)).grid
    size = 2.0 if beam == "parallel" else 2.0 * 200 / 350
    assert grid.spacing[:2] == pytest.approx((size, size))
    assert grid.shape[0] == grid.shape[1] and grid.shape[0] % 8 == 0
    assert abs(grid.shape[0] * size / 2 - geometry.field_radius) <= 4 * size
    assert grid.shape[2] == geometry.num_rows
    assert grid.spacing[2] == pytest.approx(3.5 * 200 / 350 if beam == "cone" else 3.0)
    assert grid.center == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("beam", BEAMS)
def test_what_the_user_chooses_is_taken(beam):
    settings = {"shape": [20, 16, 6], "spacing": [1.5, 2.5, 3.0], "center": [4.0, -3.0, 0.0]}
    grid = tomography(beam, **settings).for_measurement(projections(scan(beam))).grid
    assert grid == Grid((20, 16, 6), (1.5, 2.5, 3.0), (4.0, -3.0, 0.0))


def test_one_number_makes_cubes_where_the_rows_are_free():
    grid = tomography("cone", spacing=2).for_measurement(projections(scan("cone"))).grid
    assert grid.spacing == (2.0, 2.0, 2.0)
    assert grid.shape[2] * 2 == pytest.approx(16 * 2, abs=2)  # as high as 16 rows of 2 mm at the isocenter


@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_the_slices_of_parallel_and_fan_beams_are_the_rows(beam):
    """One number is the size of the pixels; their distance, count and height are the detector's."""
    geometry = scan(beam, row_offset=12.0)
    operator = tomography(beam, spacing=4.0, center=(1.0, 2.0, 99.0)).for_measurement(projections(geometry))
    assert operator.grid.spacing == (4.0, 4.0, 3.0) and operator.grid.shape[2] == 6
    assert operator.grid.center == (1.0, 2.0, 12.0)


@pytest.mark.parametrize(
    ("change", "geometry"),
    [
        ({"spacing": (2.0, 2.0, 2.0)}, {}),
        ({"center": (0.0, 0.0, 3.0)}, {}),
        ({}, {"row_offset": 3.0}),
        ({}, {"row_offset": tuple(0.1 * i for i in range(8))}),
    ],
    ids=["another distance", "higher", "a moved detector", "a moving detector"],
)
@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_a_grid_whose_slices_are_not_the_rows_is_refused(beam, change, geometry):
    """It would be reconstructed as if they were, and lie at the wrong place."""
    grid = Grid(**{"shape": (24, 24, 6), "spacing": (2.0, 2.0, 3.0), "center": (0.0, 0.0, 0.0)} | change)
    with pytest.raises(ValueError, match=f"in a {beam} beam slices are detector rows"):
        tomography(beam).for_measurement(projections(scan(beam, **geometry), grid))


def test_spacing_alone_keeps_the_field_of_view():
    coarse, fine = (tomography(spacing=s).for_measurement(projections(scan())).grid for s in (6.0, 1.5))
    assert coarse.shape[:2] == (16, 16) and fine.shape[:2] == (64, 64)  # 96 mm each


def test_the_grid_of_the_simulated_volume_is_used_unless_the_user_chooses():
    known = Grid((24, 20, 6), (2.0, 2.5, 3.0))
    y = projections(scan(), known)
    assert tomography().for_measurement(y).grid == known
    chosen = tomography(shape=(16, 16, 6)).for_measurement(y).grid
    assert chosen.shape == (16, 16, 6) and chosen.spacing == (2.0, 2.0, 3.0)
    assert tomography(spacing=3.0).for_measurement(y).grid.spacing == (3.0, 3.0, 3.0)


def test_a_center_that_the_user_chooses_is_taken_with_a_known_grid_too():
    known = Grid((24, 20, 6), (2.0, 2.5, 3.0))
    grid = tomography(center=(6.0, 0.0, 0.0)).for_measurement(projections(scan(), known)).grid
    assert grid.center == (6.0, 0.0, 0.0)


@pytest.mark.parametrize("spacing", [0, 0.0, -1.0, math.nan, [2.0, 0.0, 3.0], [2.0, 2.0], "2"])
def test_voxel_sizes_that_are_none_are_refused_with_the_reason(spacing):
    with pytest.raises(ValueError, match="spacing|voxel size"):
        tomography("cone", spacing=spacing).for_measurement(projections(scan("cone")))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": [16, 16]}, "three positive whole numbers of voxels"),
        ({"shape": [16, 16, 0]}, "three positive whole numbers of voxels"),
        ({"shape": [16.0, 16.0, 6.0]}, "three positive whole numbers of voxels"),
        ({"shape": [16, 16, 5]}, "the volume has 5 slices, the projections have 6 rows"),
        ({"shape": [16, 16, 6], "center": [math.inf, 0, 0]}, r"center must be three coordinates in mm, got \[inf, 0"),
        ({"model": "exact"}, "model must be one of"),
    ],
)
def test_grids_that_are_none_are_refused_with_the_reason(settings, message):
    with pytest.raises(ValueError, match=message):
        tomography(**settings).for_measurement(projections(scan()))


def test_a_backend_that_is_none_is_refused():
    with pytest.raises(ValueError, match="backend must be one of"):
        tomography("cone", backend="opencl").for_measurement(projections(scan("cone")))
