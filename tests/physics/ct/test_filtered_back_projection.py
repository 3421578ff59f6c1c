"""Filtered back-projection and FDK: known volumes come back from exact projections; views count for their angle."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.ct import ConeBeam, Grid, ScanGeometry, SparseRadon
from interslice.physics.ct.filtered_back_projection import (
    WINDOWS,
    angular_steps,
    filtered_back_projection,
    interpolate_rows,
    ramp_kernel,
)
from tests.physics.ct.test_sparse_radon import PHANTOM, line_integrals, phantom
from tests.support.helpers import normal, repeatable

BEAMS = ("parallel", "fan", "cone")
FLAT = Grid((48, 54, 1), (80 / 48, 84 / 54, 1.0), (2.0, -3.0, 0.0))
SOLID = Grid((28, 30, 24), (80 / 28, 84 / 30, 64 / 24), (2.0, -3.0, 1.0))


def half_or_full_turn(beam, views, start=3.0):
    turn = 180 if beam == "parallel" else 360
    return [start + turn * i / views for i in range(views)]


def scanner(beam, angles, **others):
    """A detector that sees all of the phantom, off-centre, from a source that is near."""
    near = {"fan": (110.0, 200.0), "cone": (150.0, 270.0)}.get(beam)
    distances = dict(zip(("source_to_isocenter", "source_to_detector"), near)) if near else {}
    size = 1.2 if beam == "parallel" else 2.2
    detector = {"num_columns": 100, "column_size": size, "num_rows": 1, "row_size": 1.0, "column_offset": 2.3}
    if beam == "cone":
        detector |= {"num_columns": 60, "column_size": 3.6, "num_rows": 44, "row_size": 3.6, "row_offset": -1.0}
        detector["source_row_offset"] = 1.5
    return ScanGeometry(beam, angles, **detector | distances | others)


def tomograph(geometry, grid=None, background=0.0):
    if geometry.beam == "cone":
        return ConeBeam(geometry, SOLID if grid is None else grid, background=background)
    return SparseRadon(geometry, FLAT if grid is None else grid, "joseph", background)


def tiny(beam, background=0.0, views=12):
    """An operator whose projections need not be those of a phantom."""
    small = {"num_columns": 15, "column_size": 2.0, "num_rows": 4, "row_size": 1.5}
    geometry = scanner(beam, half_or_full_turn(beam, views), **small)
    return tomograph(geometry, Grid((7, 6, 4), (1.5, 1.2, 1.5), (0.6, -0.8, 0.0)), background)


def squared_radius(grid, centre, radii, long):
    points = torch.stack(torch.meshgrid(*[grid.coordinates(a) for a in range(3)], indexing="ij"), -1)
    radii = torch.tensor([*radii[:2], math.inf if long else radii[2]])
    return ((points - torch.tensor(centre)) / radii).square().sum(-1)


def assert_is_the_phantom(volume, grid, long, rms=0.03, share=0.01):
    """The right values inside and outside, and the right centre of mass."""
    truth = phantom(grid, long=long)
    outside = torch.ones(grid.shape, dtype=torch.bool)
    for centre, radii, level in PHANTOM:
        q = squared_radius(grid, centre, radii, long)
        assert volume[q < 0.3].mean() == pytest.approx(level, rel=share)
        assert (volume[q < 0.3] - level).abs().max() < 2.5 * share
        outside &= q > 1.4
    assert abs(volume[outside].mean()) < 0.003
    for axis in range(3):
        positions = grid.coordinates(axis).view([-1 if a == axis else 1 for a in range(3)])
        centres = [float((positions * v).sum() / v.sum()) for v in (volume, truth)]
        assert centres[0] == pytest.approx(centres[1], abs=0.1 * grid.spacing[axis])
    assert (volume - truth).square().mean().sqrt() < rms


@pytest.mark.slow
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("beam", BEAMS)
def test_a_known_volume_comes_back_from_its_exact_projections(beam, window):
    geometry, long = scanner(beam, half_or_full_turn(beam, 90)), beam != "cone"
    operator = tomograph(geometry)
    volume = filtered_back_projection(line_integrals(geometry, long=long), operator, window)
    assert_is_the_phantom(volume, operator.grid, long)


@pytest.mark.parametrize("beam", ["fan", "cone"])
def test_distances_and_offsets_may_change_from_view_to_view(beam):
    views = 90
    wobble = [math.sin(7 * i) for i in range(views)]
    moving = {
        "source_to_isocenter": [150 + 5 * w for w in wobble],
        "source_to_detector": [270 - 8 * w for w in wobble],
        "column_offset": [3 * w for w in wobble[::-1]],
        "source_column_offset": [2 * w for w in wobble],
    }
    if beam == "cone":
        moving |= {"row_offset": [2 * w for w in wobble], "source_row_offset": [-3 * w for w in wobble]}
    geometry, long = scanner(beam, half_or_full_turn(beam, views), **moving), beam != "cone"
    operator = tomograph(geometry)
    volume = filtered_back_projection(line_integrals(geometry, long=long), operator)
    # The weights are those of a circle about the isocenter, which is not quite where the source runs.
    assert_is_the_phantom(volume, operator.grid, long, share=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_uneven_angles_in_any_order_recover_the_volume(beam):
    views = 90
    generator = random.Random(0)
    step = (180 if beam == "parallel" else 360) / views
    angles = [a + generator.uniform(-0.24, 0.24) * step for a in half_or_full_turn(beam, views)]
    generator.shuffle(angles)
    geometry = scanner(beam, angles)
    y = line_integrals(geometry, long=True)
    volume = filtered_back_projection(y, tomograph(geometry))
    assert_is_the_phantom(volume, FLAT, long=True)
    order = sorted(range(views), key=angles.__getitem__)
    ascending = tomograph(replace(geometry, angles=tuple(angles[i] for i in order)))
    torch.testing.assert_close(filtered_back_projection(y[order], ascending), volume, rtol=0, atol=1e-10)


def test_a_view_counts_by_the_angle_that_it_stands_for():
    # Half of the views in a quarter of the arc, in steps of 1.5 degrees; the others in steps of 2.
    dense, sparse = [1.5 * i for i in range(60)], [90 + 2.0 * i for i in range(45)]
    geometry = scanner("parallel", [*dense, *sparse])
    weights = torch.rad2deg(angular_steps(geometry))
    expected = torch.tensor([1.75] + [1.5] * 59 + [1.75] + [2.0] * 44, dtype=torch.float64)
    torch.testing.assert_close(weights, expected)
    volume = filtered_back_projection(line_integrals(geometry, long=True), tomograph(geometry))
    assert_is_the_phantom(volume, FLAT, long=True)


@pytest.mark.parametrize("arc", [216, 272])
def test_a_fan_that_sees_some_lines_twice_is_not_too_bright(arc):
    geometry = scanner("fan", [arc * i / 72 for i in range(72)])
    volume = filtered_back_projection(line_integrals(geometry, long=True), tomograph(geometry))
    centre, radii, level = PHANTOM[0]
    assert volume[squared_radius(FLAT, centre, radii, long=True) < 0.3].mean() == pytest.approx(level, rel=0.15)


def test_a_full_turn_of_parallel_views_equals_half_a_turn():
    half = scanner("parallel", [3.0 + 5 * i for i in range(36)], column_offset=0.0)
    full = scanner("parallel", [3.0 + 5 * i for i in range(72)], column_offset=0.0)
    one, two = (filtered_back_projection(line_integrals(g, long=True), tomograph(g)) for g in (half, full))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-10)


@pytest.mark.parametrize("beam", BEAMS)
def test_repeated_views_share_their_weight(beam):
    operator = tiny(beam)
    y = normal(*operator.range_shape, dtype=torch.float64)
    twice = replace(operator.geometry, angles=operator.geometry.angles * 2)
    repeated = filtered_back_projection(torch.cat([y, y]), tomograph(twice, operator.grid))
    torch.testing.assert_close(repeated, filtered_back_projection(y, operator), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("beam", BEAMS)
def test_constant_background_comes_back_exactly(beam):
    operator = tiny(beam, background=-1.0)
    air = torch.full(operator.domain_shape, -1.0)
    assert torch.equal(filtered_back_projection(operator.forward(air), operator), air)
    # Without knowing of it, the edge of the volume would be seen as an object.
    unaware = filtered_back_projection(operator.forward(air), tiny(beam))
    assert (unaware - air).abs().max() > 0.1


@pytest.mark.parametrize("beam", BEAMS)
def test_a_shift_of_all_values_together_with_the_background_shifts_the_result(beam):
    x = normal(7, 6, 4, dtype=torch.float64)
    plain, shifted = tiny(beam), tiny(beam, background=-1.0)
    result = filtered_back_projection(plain.forward(x), plain)
    torch.testing.assert_close(filtered_back_projection(shifted.forward(x - 1), shifted), result - 1, atol=1e-5, rtol=0)


@pytest.mark.parametrize("beam", BEAMS)
def test_reconstruction_is_linear(beam):
    operator = tiny(beam)
    one, two = (normal(*operator.range_shape, seed=s, dtype=torch.float64) for s in (1, 2))
    parts = filtered_back_projection(one, operator), filtered_back_projection(two, operator)
    torch.testing.assert_close(filtered_back_projection(3 * one - two, operator), 3 * parts[0] - parts[1])


@pytest.mark.parametrize("beam", BEAMS)
def test_a_part_of_the_grid_is_reconstructed_as_in_the_whole(beam):
    operator = tiny(beam)
    y = normal(*operator.range_shape, dtype=torch.float64)
    grid, kept = operator.grid, (slice(2, 5), slice(1, 3), slice(0, 4))
    corner = [float(grid.coordinates(a)[s].mean()) for a, s in enumerate(kept)]
    part = tomograph(operator.geometry, Grid((3, 2, 4), grid.spacing, tuple(corner)))
    torch.testing.assert_close(filtered_back_projection(y, part), filtered_back_projection(y, operator)[kept])


@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_slices_are_reconstructed_each_for_itself(beam):
    operator = tiny(beam)
    y = normal(*operator.range_shape, dtype=torch.float64)
    whole = filtered_back_projection(y, operator)
    single = tomograph(operator.geometry.one_row(), Grid((7, 6, 1), (1.5, 1.2, 1.5), (0.6, -0.8, 0.0)))
    for s in range(4):
        torch.testing.assert_close(filtered_back_projection(y[..., s : s + 1], single), whole[..., s : s + 1])


@pytest.mark.parametrize("beam", BEAMS)
def test_the_linear_reconstruction_of_an_operator_is_this_one_in_the_precision_of_the_data(beam):
    operator = tiny(beam, background=-1.0)
    for dtype in (torch.float32, torch.float64):
        y = normal(*operator.range_shape, dtype=dtype)
        result = operator.linear_reconstruction(y)
        assert torch.equal(result, filtered_back_projection(y, operator)) and result.dtype == dtype


def test_an_impulse_comes_back_as_the_ramp_however_far_away():
    """Voxels and columns coincide: nothing is interpolated, and nothing wraps around."""
    geometry = scanner("parallel", (0.0, 90.0), num_columns=21, column_size=0.5, column_offset=0.0)
    operator = tomograph(geometry, Grid((21, 1, 1), (0.5, 1.0, 1.0)))
    for column in (0, 7, 20):
        y = torch.zeros(operator.range_shape, dtype=torch.float64)
        y[0, column] = 1.0
        kernel = [1 / 4 if n == 0 else -1 / (math.pi * n) ** 2 if n % 2 else 0.0 for n in range(-column, 21 - column)]
        # Each of the two views stands for a quarter turn.
        expected = math.pi / 2 * torch.tensor(kernel, dtype=torch.float64) / 0.5
        torch.testing.assert_close(filtered_back_projection(y, operator, "ramp").flatten(), expected)


def test_the_plane_of_the_source_is_reconstructed_as_in_a_fan():
    angles, flat = half_or_full_turn("cone", 12), Grid((7, 6, 1), (1.5, 1.2, 1.5), (0.6, -0.8, 0.0))
    distances = {"source_to_isocenter": 150.0, "source_to_detector": 270.0}
    detector = {"num_columns": 15, "column_size": 2.0, "source_column_offset": 3.0} | distances
    cone = scanner("cone", angles, num_rows=5, row_size=2.0, row_offset=0.0, source_row_offset=0.0, **detector)
    y = normal(*cone.range_shape, dtype=torch.float64)
    fan = scanner("fan", angles, **detector)
    expected = filtered_back_projection(y[..., 2:3], tomograph(fan, flat))
    torch.testing.assert_close(filtered_back_projection(y, tomograph(cone, flat)), expected)


def test_lifting_scanner_and_volume_together_changes_nothing():
    low, lift = tiny("cone"), 35.0
    geometry = replace(low.geometry, row_offset=-1.0 + lift, source_row_offset=1.5 + lift)
    high = tomograph(geometry, replace(low.grid, center=(0.6, -0.8, lift)))
    y = normal(*low.range_shape, dtype=torch.float64)
    torch.testing.assert_close(filtered_back_projection(y, high), filtered_back_projection(y, low))


def test_past_the_last_row_the_cone_fades_to_zero_within_one_row():
    # On the rotation axis the depth is that of the isocenter: rows of 2 mm are 1 mm there.
    rows = {"num_rows": 2, "row_size": 2.0, "row_offset": 0.0, "source_row_offset": 0.0}
    distances = {"source_to_isocenter": 150.0, "source_to_detector": 300.0}
    geometry = scanner("cone", half_or_full_turn("cone", 8), num_columns=21, column_offset=0.0, **rows, **distances)
    axis = tomograph(geometry, Grid((1, 1, 17), (1.0, 1.0, 0.25)))
    values = filtered_back_projection(torch.ones(axis.range_shape, dtype=torch.float64), axis)[0, 0]
    fading = (1.5 - axis.grid.coordinates(2).abs()).clamp(0, 1)  # whole up to half a row from the centre
    torch.testing.assert_close(values / values[8], fading)


def test_smoother_windows_let_less_noise_through():
    operator = tiny("parallel", views=40)
    noise = normal(*operator.range_shape, dtype=torch.float64)
    ramp, cosine, hann = (float(filtered_back_projection(noise, operator, w).std()) for w in ("ramp", "cosine", "hann"))
    assert 0.9 * ramp > cosine > hann / 0.9


def test_unknown_windows_are_refused():
    operator = tiny("fan")
    with pytest.raises(ValueError, match="window must be one of .* got 'shepp'"):
        filtered_back_projection(torch.zeros(operator.range_shape), operator, "shepp")


@pytest.mark.parametrize("shape", [(12, 4, 15), (11, 15, 4), (1, 12, 15, 4)])
def test_projections_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected projections of shape \(12, 15, 4\), got \(1"):
        filtered_back_projection(torch.zeros(shape), tiny("cone"))


def weights_of(beam, angles, **others):
    return angular_steps(scanner(beam, angles, **others))


@repeatable
@given(
    beam=st.sampled_from(BEAMS),
    start=st.floats(-400, 400),
    shifts=st.lists(st.floats(-0.1, 0.1), min_size=2, max_size=40),
    turns=st.lists(st.integers(-2, 2), min_size=40, max_size=40),
)
def test_views_all_around_stand_for_the_turn_together(beam, start, shifts, turns):
    step = (180 if beam == "parallel" else 360) / len(shifts)
    angles = [start + (i + s) * step + 360 * t for i, (s, t) in enumerate(zip(shifts, turns))]
    weights = weights_of(beam, angles)
    assert float(weights.sum()) == pytest.approx(math.pi if beam == "parallel" else 2 * math.pi)
    assert (weights > 0).all()


@pytest.mark.parametrize("views", [10, 30, 60, 100])
def test_views_in_steps_of_the_golden_angle_leave_no_gap(views):
    golden = 180 / ((1 + math.sqrt(5)) / 2)
    assert float(weights_of("parallel", [golden * i for i in range(views)], column_offset=0.0).sum()) == pytest.approx(
        math.pi
    )


@pytest.mark.parametrize(("beam", "step"), [("parallel", 4.0), ("fan", 7.0), ("cone", 5.0)])
def test_views_next_to_a_missing_wedge_do_not_stand_for_it(beam, step):
    weights = torch.rad2deg(weights_of(beam, [20 + step * i for i in range(24)]))
    torch.testing.assert_close(weights[1:-1], torch.full((22,), step, dtype=torch.float64))
    assert weights[0] == pytest.approx(float(weights[-1]))
    assert step <= weights[0] + 1e-9 and weights[0] <= 1.5 * step


@repeatable
@given(beam=st.sampled_from(BEAMS), angles=st.permutations([0.0, 10.0, 25.0, 90.0, 90.0, 200.0, 300.0]))
def test_weights_follow_their_views(beam, angles):
    known = dict(zip([0.0, 10.0, 25.0, 200.0, 300.0], weights_of(beam, [0.0, 10.0, 25.0, 200.0, 300.0, 90.0, 90.0])))
    for angle, weight in zip(angles, weights_of(beam, angles).tolist()):
        if angle != 90:  # views at the same angle may share its weight in any way
            assert weight == pytest.approx(float(known[angle]))


def test_known_values_of_the_ramp():
    kernel = ramp_kernel(8, 0.5) * 0.5  # 1/4 and -1 / (pi n)^2 at odd n, over the spacing
    values = [1 / 4, -1 / math.pi**2, 0, -1 / (9 * math.pi**2), 0]
    assert kernel.tolist() == pytest.approx([*values, *values[-2:0:-1]])


@pytest.mark.parametrize("spacing", [0.5, 1.0, 3.0])
def test_the_spectrum_of_the_ramp_is_the_frequency(spacing):
    size = 1024
    response = torch.fft.rfft(ramp_kernel(size, spacing))
    frequency = torch.fft.rfftfreq(size, spacing, dtype=torch.float64)
    assert response.imag.abs().max() < 1e-12
    assert (response.real - frequency).abs().max() < 1 / (size * spacing)
    assert response.real[0] > 0  # the reason for making it in space: the mean is not lost


def test_interpolation_is_linear_and_fades_to_zero_outside():
    table = normal(5, 3, dtype=torch.float64)
    at = torch.tensor([-3.0, -1.0, -0.25, 0.0, 0.3, 2.0, 3.9, 4.0, 4.75, 5.0, 9.0], dtype=torch.float64)
    padded = np.vstack([np.zeros((1, 3)), table.numpy(), np.zeros((1, 3))])
    expected = [np.interp(at.numpy(), np.arange(-1, 6), padded[:, i]) for i in range(3)]
    np.testing.assert_allclose(interpolate_rows(table, at).numpy(), np.stack(expected, 1), atol=1e-12)
