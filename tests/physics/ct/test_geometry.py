"""The scan's geometry and the volume's grid: what is refused, what is read back, and where things lie."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.ct import Grid, ScanGeometry
from interslice.physics.ct.geometry import PER_VIEW, centred
from tests.support.helpers import repeatable

PARALLEL = {
    "beam": "parallel",
    "angles": (0, 60, 120),
    "num_columns": 8,
    "column_size": 2.0,
    "num_rows": 3,
    "row_size": 4,
}
DISTANCES = {"source_to_isocenter": 500.0, "source_to_detector": 800.0}
CONE = PARALLEL | DISTANCES | {"beam": "cone"}
FLAT = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]

sizes = st.floats(0.1, 10)
offsets = st.floats(-20, 20)


@st.composite
def geometries(draw, beams=("parallel", "fan", "cone"), source_offsets=True):
    """Any scan, with numbers or one number per view."""
    angles = draw(st.lists(st.floats(-720, 720), min_size=2, max_size=5))

    def number(values):
        return draw(st.one_of(values, st.tuples(*[values] * len(angles))))

    beam = draw(st.sampled_from(beams))
    moving = {name: number(offsets) for name in PER_VIEW[2 : None if source_offsets else 4]}
    if beam != "parallel":
        moving["source_to_isocenter"] = number(st.floats(100, 600))
        moving["source_to_detector"] = number(st.floats(601, 1500))
    world = torch.eye(4, dtype=torch.float64)
    world[:3] += torch.tensor(draw(st.lists(st.floats(-0.3, 0.3), min_size=12, max_size=12))).reshape(3, 4)
    return ScanGeometry(
        beam=beam,
        angles=angles,
        num_columns=draw(st.integers(1, 50)),
        column_size=draw(sizes),
        num_rows=draw(st.integers(1, 50)),
        row_size=draw(sizes),
        world=tuple(map(tuple, world.tolist())),
        **moving,
    )


def every_view(geometry, name):
    """One number per view, however it was given."""
    value = getattr(geometry, name)
    return list(value) if isinstance(value, tuple) else [value] * len(geometry.angles)


REFUSED = {
    "unknown beam": ({"beam": "helical"}, "beam must be one of"),
    "no beam": ({"beam": None}, "beam must be one of"),
    "angle is not a number": ({"angles": (0, math.nan)}, r"angles\[1\] is nan, not a finite number"),
    "angle is infinite": ({"angles": (-math.inf, 0)}, r"angles\[0\] is -inf"),
    "angle is a word": ({"angles": (0, 1, "90")}, r"angles\[2\] is '90'"),
    "angle is a yes": ({"angles": (0, True)}, r"angles\[1\] is True"),
    "angle is missing": ({"angles": (0, None)}, r"angles\[1\] is None"),
    "angles are a word": ({"angles": "0 90"}, "angles must be a list of numbers, got '0 90'"),
    "angles are a number": ({"angles": 90.0}, "angles must be a list of numbers"),
    "angles are nothing": ({"angles": None}, "angles must be a list of numbers"),
    "one angle": ({"angles": (30,)}, r"at least 2 angles, got \[30.0\]"),
    "no angle": ({"angles": ()}, r"at least 2 angles, got \[\]"),
    "broken number of columns": ({"num_columns": 8.0}, "num_columns must be a positive whole number, got 8.0"),
    "no columns": ({"num_columns": 0}, "num_columns must be a positive whole number, got 0"),
    "columns are a word": ({"num_columns": "8"}, "num_columns must be a positive whole number, got '8'"),
    "negative number of rows": ({"num_rows": -1}, "num_rows must be a positive whole number, got -1"),
    "rows are a yes": ({"num_rows": True}, "num_rows must be a positive whole number, got True"),
    "column without a size": ({"column_size": 0.0}, "column_size must be a positive number of mm, got 0.0"),
    "column of no number": ({"column_size": math.nan}, "column_size must be a positive number of mm, got nan"),
    "row of negative size": ({"row_size": -1.0}, "row_size must be a positive number of mm, got -1.0"),
    "row of infinite size": ({"row_size": math.inf}, "row_size must be a positive number of mm, got inf"),
    "row of a word's size": ({"row_size": "1"}, "row_size must be a positive number of mm, got '1'"),
    "no distance": ({"source_to_isocenter": None}, "a cone beam needs source_to_isocenter"),
    "no detector": ({"source_to_detector": None}, "a cone beam needs source_to_detector"),
    "distance zero": ({"source_to_isocenter": 0.0}, "source_to_isocenter must be positive"),
    "distance negative": ({"source_to_isocenter": -500.0}, "source_to_isocenter must be positive"),
    "one distance negative": ({"source_to_isocenter": (500, -1, 500)}, "source_to_isocenter must be positive"),
    "detector negative": ({"source_to_detector": -800.0}, "source_to_detector must be positive"),
    "distances swapped": (
        {"source_to_isocenter": 800.0, "source_to_detector": 500.0},
        "must lie behind the isocenter .* swapped",
    ),
    "detector at the isocenter": ({"source_to_detector": 500.0}, "must lie behind the isocenter"),
    "swapped in one view": ({"source_to_detector": (800, 800, 400)}, "must lie behind the isocenter"),
    "distance of no number": ({"source_to_detector": (800, math.nan, 800)}, r"source_to_detector\[1\] is nan"),
    "offset of no number": ({"column_offset": math.nan}, "column_offset must be a list of numbers"),
    "offset is a word": ({"row_offset": "1"}, "row_offset must be a list of numbers, got '1'"),
    "offset is nothing": ({"row_offset": None}, "needs row_offset"),
    "world with three rows": ({"world": FLAT[:3]}, "world must be an invertible 4 x 4 matrix"),
    "world without depth": ({"world": FLAT}, "world must be an invertible 4 x 4 matrix"),
    "world of no numbers": (
        {"world": [[math.nan, 0, 0, 0], *torch.eye(4).tolist()[1:]]},
        "world must be an invertible 4 x 4 matrix",
    ),
    "world of unequal rows": ({"world": [[1, 0, 0, 0], [0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "world"),
    "world is a word": ({"world": "identity"}, "world"),
    "world of words": ({"world": [["1", "0", "0", "0"]] * 4}, "world"),
    "world is nothing": ({"world": None}, "world"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_scan_is_refused_with_the_reason(change, message):
    with pytest.raises(ValueError, match=message):
        ScanGeometry(**CONE | change)


@pytest.mark.parametrize("name", PER_VIEW)
@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_lists_must_have_one_value_per_view(name, count):
    values = [900.0 if name == "source_to_detector" else 10.0] * count
    with pytest.raises(ValueError, match=f"{name} has {count} values for 3 angles"):
        ScanGeometry(**CONE | {name: values})


@pytest.mark.parametrize("beam", ["fan", "cone"])
def test_a_diverging_beam_needs_its_distances_and_a_parallel_beam_ignores_them(beam):
    with pytest.raises(ValueError, match=f"a {beam} beam needs source_to_isocenter"):
        ScanGeometry(**PARALLEL | {"beam": beam})
    ignored = ScanGeometry(**PARALLEL | {"source_to_isocenter": -1, "source_to_detector": "far"})
    assert ignored == ScanGeometry(**PARALLEL)


def test_angles_may_be_unsorted_repeated_and_beyond_a_turn():
    angles = [370, 90, 90, -45.5, 0]
    assert ScanGeometry(**PARALLEL | {"angles": angles}).angles == (370.0, 90.0, 90.0, -45.5, 0.0)


GRID = {"shape": (4, 5, 6), "spacing": (1.0, 2.0, 3.0), "center": (0.0, 0.0, 0.0)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (4, 5)}, "three positive whole numbers of voxels"),
        ({"shape": (4, 5, 6, 1)}, "three positive whole numbers of voxels"),
        ({"shape": (4, 0, 6)}, "three positive whole numbers of voxels"),
        ({"shape": (4, -5, 6)}, "three positive whole numbers of voxels"),
        ({"shape": (4, 5.0, 6)}, "three positive whole numbers of voxels"),
        ({"spacing": (1.0, 1.0)}, "three positive voxel sizes"),
        ({"spacing": (1.0, 0.0, 1.0)}, "three positive voxel sizes"),
        ({"spacing": (1.0, 1.0, -1.0)}, "three positive voxel sizes"),
        ({"spacing": (1.0, math.nan, 1.0)}, r"spacing must be three positive voxel sizes in mm, got \(1.0, nan, 1.0\)"),
        ({"spacing": 1.0}, "spacing must be three positive voxel sizes in mm, got 1.0"),
        ({"center": (0.0, 0.0)}, "three coordinates"),
        ({"center": (0.0, 0.0, math.inf)}, r"center must be three coordinates in mm, got \(0.0, 0.0, inf\)"),
        ({"center": "middle"}, "center must be three coordinates in mm, got 'middle'"),
    ],
)
def test_what_is_no_grid_is_refused_with_the_reason(change, message):
    with pytest.raises(ValueError, match=message):
        Grid(**GRID | change)


@repeatable
@given(geometry=geometries())
def test_the_published_form_is_read_back_unchanged(geometry):
    text = geometry.to_json()
    again = ScanGeometry.from_json(text)
    assert again == geometry
    assert hash(again) == hash(geometry)  # matrices are kept by it
    assert None not in json.loads(text).values()


def test_defaults_may_be_left_out_of_the_published_form():
    assert ScanGeometry.from_json(json.dumps(CONE)) == ScanGeometry(**CONE)


@pytest.mark.parametrize("name", PARALLEL)
def test_a_missing_field_is_named(name):
    values = {k: v for k, v in CONE.items() if k != name}
    with pytest.raises(ValueError, match=f"lacks {name}$"):
        ScanGeometry.from_json(json.dumps(values))


def test_all_missing_fields_are_named():
    with pytest.raises(ValueError, match="lacks column_size, num_columns, num_rows, row_size"):
        ScanGeometry.from_json('{"beam": "cone", "angles": [0, 1]}')


def test_unknown_fields_are_named_and_the_known_ones_listed():
    with pytest.raises(ValueError, match=r"unknown fields pitch, tilt; known: angles, beam, .*, world$"):
        ScanGeometry.from_json(json.dumps(CONE | {"tilt": 0, "pitch": 1}))


@pytest.mark.parametrize("text", ["", "angles: 0", '{"beam": "cone"', "[1, 2"])
def test_text_that_is_not_json_is_refused(text):
    with pytest.raises(ValueError, match="not JSON"):
        ScanGeometry.from_json(text)


@pytest.mark.parametrize("text", ["[]", "1", '"cone"', "null"])
def test_json_that_is_no_object_is_refused(text):
    with pytest.raises(ValueError, match="the geometry lacks fields"):
        ScanGeometry.from_json(text)


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "1e999", "1" + 400 * "0"], ids=["NaN", "Infinity", "1e999", "10^400"]
)
def test_numbers_that_are_not_finite_are_refused_in_the_published_form(value):
    text = json.dumps(CONE).replace('"column_size": 2.0', f'"column_size": {value}')
    with pytest.raises(ValueError, match="column_size must be a positive number of mm"):
        ScanGeometry.from_json(text)


def test_a_scan_describes_itself():
    assert str(ScanGeometry(**PARALLEL | {"angles": (90, 12.5, 30)})) == "3 parallel-beam views from 12.5 to 90 degrees"


@repeatable
@given(geometry=geometries())
def test_detector_elements_lie_evenly_about_the_detectors_centre(geometry):
    for positions, count, size, name in (
        (geometry.columns, geometry.num_columns, geometry.column_size, "column_offset"),
        (geometry.rows, geometry.num_rows, geometry.row_size, "row_offset"),
    ):
        middle = torch.tensor(every_view(geometry, name), dtype=torch.float64)
        torch.testing.assert_close(positions.mean(1), middle, atol=1e-9, rtol=0)
        steps = positions.diff(dim=1)
        torch.testing.assert_close(steps, torch.full_like(steps, size))
        assert positions.shape == (len(geometry.angles), count)
    assert geometry.range_shape == (len(geometry.angles), geometry.num_columns, geometry.num_rows)


@repeatable
@given(geometry=geometries())
def test_magnification_is_the_ratio_of_distances(geometry):
    if geometry.beam == "parallel":
        assert geometry.magnification == 1
    else:
        pairs = zip(every_view(geometry, "source_to_detector"), every_view(geometry, "source_to_isocenter"))
        ratios = [detector / isocenter for detector, isocenter in pairs]
        assert geometry.magnification == pytest.approx(sum(ratios) / len(ratios))


def distance_of_edge_rays(geometry):
    """Signed distances from the isocenter of the rays to the detector's lower and upper edge, one pair per view."""
    half = geometry.num_columns * geometry.column_size / 2
    views = {name: every_view(geometry, name) for name in PER_VIEW}
    for i in range(len(geometry.angles)):
        edges = [views["column_offset"][i] + side * half for side in (-1, 1)]
        if geometry.beam != "parallel":  # in the turning frame, the source is at (offset, -D_iso)
            source, iso, det = (
                views[n][i] for n in ("source_column_offset", "source_to_isocenter", "source_to_detector")
            )
            # |source x direction| / |direction|
            edges = [(source * det + iso * (a - source)) / math.hypot(a - source, det) for a in edges]
        yield edges


@repeatable
@given(geometry=geometries(source_offsets=False) | geometries(beams=("fan", "cone")))
def test_the_field_of_view_ends_at_the_nearest_edge_ray(geometry):
    nearest = min(min(-low, high) for low, high in distance_of_edge_rays(geometry))
    assert geometry.field_radius == pytest.approx(max(0.0, nearest), abs=1e-9)


def test_field_of_view_by_hand():
    assert ScanGeometry(**PARALLEL).field_radius == 8.0
    assert ScanGeometry(**PARALLEL | {"column_offset": (1.0, -3.0, 2.0)}).field_radius == 5.0
    assert ScanGeometry(**PARALLEL | {"column_offset": 9.0}).field_radius == 0.0
    # Half a detector of 600 mm, 800 mm away, makes a 3-4-5 triangle: the sine is 0.6.
    wide = ScanGeometry(**CONE | {"num_columns": 300, "column_size": 4.0})
    assert wide.field_radius == pytest.approx(0.6 * 500)


def test_one_row_keeps_what_all_slices_share_and_forgets_the_rest():
    world = [[2, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    thick = ScanGeometry(**PARALLEL | {"row_offset": 3.0, "column_offset": 1.0, "world": world})
    thin = ScanGeometry(**PARALLEL | {"num_rows": 1, "row_size": 9.0, "column_offset": 1.0})
    assert thick.one_row() == thin.one_row()
    assert thick.one_row() != replace(thick, column_offset=0.0).one_row()


@st.composite
def grids(draw):
    shape = tuple(draw(st.integers(1, 40)) for _ in range(3))
    return Grid(shape, tuple(draw(sizes) for _ in range(3)), tuple(draw(offsets) for _ in range(3)))


@repeatable
@given(grid=grids())
def test_the_affine_puts_the_middle_voxel_at_the_centre_and_agrees_with_the_coordinates(grid):
    middle = torch.tensor([(n - 1) / 2 for n in grid.shape] + [1.0], dtype=torch.float64)
    torch.testing.assert_close(
        (grid.affine @ middle)[:3], torch.tensor(grid.center, dtype=torch.float64), atol=1e-9, rtol=0
    )
    last = torch.tensor([n - 1 for n in grid.shape] + [1.0], dtype=torch.float64)
    ends = torch.stack([grid.coordinates(a)[-1] for a in range(3)])
    torch.testing.assert_close((grid.affine @ last)[:3], ends, atol=1e-9, rtol=0)
    assert torch.equal(grid.affine[3], torch.tensor([0.0, 0, 0, 1], dtype=torch.float64))


@repeatable
@given(grid=grids())
def test_the_radius_reaches_the_farthest_corner(grid):
    x, y = ([grid.center[a] + side * grid.shape[a] * grid.spacing[a] / 2 for side in (-1, 1)] for a in (0, 1))
    assert grid.radius == pytest.approx(max(math.hypot(*corner) for corner in itertools.product(x, y)))


def test_centred_positions_by_hand():
    assert centred(4, 2.0).tolist() == [-3.0, -1.0, 1.0, 3.0]
    assert centred(3, 2.0).tolist() == [-2.0, 0.0, 2.0]
