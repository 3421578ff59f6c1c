"""Where through-plane sampling puts its voxels: affines, grids of scans and of volumes, and refusals."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from monai.data import MetaTensor

from interslice.physics import Measured, operator_of
from interslice.physics.thick import SimulateMeasurementd, ThroughPlane, ThroughPlaneSampling
from interslice.physics.thick.through_plane import slice_weights
from tests.support.helpers import repeatable

SPACING = (0.9, 1.0, 1.1)
SHAPE = (44, 42, 40)


def oblique(spacing=SPACING, origin=(-31.0, 12.0, 55.0)):
    """An affine with rotations about all three axes and a flip."""

    def turn(i, j, angle):
        m = np.eye(3)
        m[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        return m

    affine = np.eye(4)
    affine[:3, :3] = turn(0, 1, 0.4) @ turn(1, 2, -0.3) @ turn(0, 2, 0.2) @ np.diag([-1, 1, 1]) @ np.diag(spacing)
    affine[:3, 3] = origin
    return torch.from_numpy(affine)


def world_positions(shape, affine):
    grid = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in shape], indexing="ij"), -1)
    return grid @ affine[:3, :3].T + affine[:3, 3]


def centre_of_mass(volume, affine):
    return (volume[..., None] * world_positions(volume.shape, affine)).sum((0, 1, 2)) / volume.sum()


SAMPLINGS = {
    "whole": {"ratio": 4.0},
    "fractional": {"ratio": 3.7},
    "gap": {"ratio": 4.0, "gap": 1.0},
    "overlap": {"ratio": 3.0, "gap": -1.0},
    "gaussian": {"ratio": 4.0, "profile": "gaussian"},
}
every_sampling = pytest.mark.parametrize("arguments", SAMPLINGS.values(), ids=SAMPLINGS.keys())
every_axis = pytest.mark.parametrize("axis", [0, 1, 2])


@every_sampling
@every_axis
def test_affines_are_each_others_inverse(arguments, axis):
    operator = ThroughPlaneSampling(axis=axis, **arguments).for_grid(SHAPE, SPACING)
    affine = oblique()
    assert torch.allclose(operator.domain_affine(operator.range_affine(affine)), affine, atol=1e-10)
    assert torch.allclose(operator.range_affine(operator.domain_affine(affine)), affine, atol=1e-10)


@every_sampling
@every_axis
def test_a_blob_stays_where_it_is_in_the_world(arguments, axis):
    operator = ThroughPlaneSampling(axis=axis, **arguments).for_grid(SHAPE, SPACING)
    affine = oblique()
    position = affine[:3, :3] @ torch.tensor([21.3, 19.6, 18.9], dtype=torch.float64) + affine[:3, 3]
    distance = (world_positions(operator.domain_shape, affine) - position).norm(dim=-1)
    blob = torch.exp(-((distance / 4.0) ** 2) / 2)

    thick = operator.forward(blob)
    thick_affine = operator.range_affine(affine)
    assert torch.linalg.inv(affine)[:3, :3].norm() < 2  # a tenth of a voxel is a tenth of a millimetre or so
    assert (centre_of_mass(thick, thick_affine) - position).norm() < 0.1 * min(SPACING)

    fine = operator.linear_reconstruction(thick)
    assert (centre_of_mass(fine, operator.domain_affine(thick_affine)) - position).norm() < 0.1 * min(SPACING)


@every_sampling
@every_axis
def test_thick_voxels_lie_at_the_mean_position_of_their_fine_voxels(arguments, axis):
    operator = ThroughPlaneSampling(axis=axis, **arguments).for_grid(SHAPE, SPACING)
    affine = oblique()
    fine = world_positions(operator.domain_shape, affine)
    seen = torch.stack([operator.forward(fine[..., i]) for i in range(3)], -1)
    stated = world_positions(operator.range_shape, operator.range_affine(affine))
    inside = [slice(None)] * 3
    inside[axis] = slice(2, -2) if arguments.get("profile") == "gaussian" else slice(None)
    cut_voxel = operator.spacing**2 / (8 * operator.thickness)  # the part f of a voxel counts at its centre
    error = (seen - stated)[tuple(inside)].norm(dim=-1).max()
    assert error < cut_voxel + 1e-3


@every_sampling
def test_centres_stay_the_ratio_apart(arguments):
    operator = ThroughPlaneSampling(axis=1, **arguments).for_grid(SHAPE, SPACING)
    columns = operator.range_affine(oblique())[:3, :3].norm(dim=0)
    assert torch.allclose(columns, torch.tensor([0.9, arguments["ratio"], 1.1], dtype=torch.float64))
    assert operator.pitch == pytest.approx(operator.thickness + arguments.get("gap", 0.0))


@repeatable
@given(ratio=st.one_of(st.integers(2, 10), st.floats(1.5, 10)), length=st.integers(12, 80),
       fine=st.sampled_from([0.5, 0.8, 1.0, 1.25]), axis=st.integers(0, 2))  # fmt: skip
def test_a_scan_of_a_volume_is_reconstructed_on_its_grid(ratio, length, fine, axis):
    shape = [5, 6, 7]
    shape[axis] = length
    assume(2 * ratio <= length)
    sampling = ThroughPlaneSampling(axis=axis, ratio=ratio)
    simulated = sampling.for_grid(tuple(shape), (fine, fine, fine))
    header = [fine] * 3
    header[axis] = float(np.float32(ratio * fine))  # headers hold float32
    scanned = sampling.for_scan(simulated.range_shape, tuple(header))
    assert scanned.domain_shape == simulated.domain_shape
    assert scanned.range_shape == simulated.range_shape
    assert torch.allclose(scanned.weights, simulated.weights, atol=1e-5)
    affine = oblique((fine, fine, fine))
    assert torch.allclose(scanned.domain_affine(simulated.range_affine(affine)), affine, atol=1e-5)


@repeatable
@given(ratio=st.floats(1.5, 10), length=st.integers(12, 80), width=st.floats(0.3, 1.5))
@example(ratio=3.334, length=10, width=0.9995)  # three slices are 10.002 voxels thick
@example(ratio=10.0, length=25, width=0.5005)
def test_the_sampled_domain_lies_within_the_volume_and_wastes_no_slice(ratio, length, width):
    sampling = ThroughPlaneSampling(axis=2, ratio=ratio, thickness=width * ratio)
    assume((1 + width) * ratio <= length)
    operator = sampling.for_grid((2, 2, length), (1.0, 1.0, 1.0))
    num_fine, num_thick = operator.domain_shape[2], operator.range_shape[2]
    assert num_fine <= length
    assert (num_thick - 1) * ratio + width * ratio <= num_fine + 0.01
    assert num_thick * ratio + width * ratio > length - 0.01


@pytest.mark.parametrize(
    ("spacing", "axis", "fine", "ratio"),
    [((1, 1, 5), 2, 1, 5), ((4, 0.8, 0.8), 0, 0.8, 5), ((0.5, 3, 0.6), 1, 0.5, 6), ((0.9, 0.5, 1.35), 2, 0.5, 2.7)],
)
def test_auto_takes_the_thickest_axis_and_the_finest_spacing(spacing, axis, fine, ratio):
    operator = ThroughPlaneSampling().for_scan((6, 6, 6), spacing)
    assert (operator.axis, operator.spacing) == (axis, fine)
    assert operator.domain_shape[axis] == math.ceil(6 * ratio - 1e-3)


def test_spacing_and_thickness_can_be_set():
    operator = ThroughPlaneSampling(spacing=2.0, thickness=4.0).for_scan((6, 6, 6), (1.0, 1.0, 5.0))
    assert operator.domain_shape == (6, 6, math.ceil((5 * 5 + 4) / 2))
    assert operator.pitch == 5.0
    assert operator.domain_affine(torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0])))[2, 2] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 1.4}, "ratio 1.4 is outside 1.5 to 10"),
        ({"ratio": 10.5}, "ratio 10.5 is outside"),
        ({"axis": 3}, "axis must be"),
        ({"axis": "z"}, "axis must be"),
        ({"profile": "triangle"}, "profile must be one of"),
        ({"thickness": 0.0}, "thickness must be a number of mm above 0, got"),
        ({"spacing": -1.0}, "spacing must be a number of mm above 0, got"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ThroughPlaneSampling(**arguments)


@pytest.mark.parametrize(
    ("arguments", "spacing", "message"),
    [
        ({}, (1.0, 1.0, 1.2), "no thick axis found"),
        ({}, (1.0, 5.0, 5.0), "no thick axis found"),
        ({"axis": 2}, (1.0, 1.0, 1.2), "outside 1.5 to 10"),
        ({"spacing": 0.4}, (0.4, 0.4, 5.0), "ratio 12.5 is outside .* set the spacing to reconstruct at"),
        ({"spacing": 4.0}, (1.0, 1.0, 5.0), "ratio 1.25 is outside"),
        ({"gap": 5.0}, (1.0, 1.0, 5.0), "lower the gap"),
    ],
)
def test_scans_that_cannot_be_super_resolved_are_refused(arguments, spacing, message):
    with pytest.raises(ValueError, match=message):
        ThroughPlaneSampling(**arguments).for_scan((8, 8, 8), spacing)


@pytest.mark.parametrize("length", [2, 4, 8, 9])
def test_a_volume_thinner_than_two_slices_is_refused(length):
    with pytest.raises(ValueError, match=f"{length} mm thick along axis 0, less than two slices of 5 mm, .*ratio .5."):
        ThroughPlaneSampling(axis=0, ratio=5).for_grid((length, 30, 30), (1.0, 1.0, 1.0))


def test_a_simulated_scan_has_the_spacing_of_its_truth():
    assert ThroughPlaneSampling(spacing=0.9).for_grid((8, 8, 20), (1.0, 1.0, 0.9)).domain_shape == (8, 8, 20)
    with pytest.raises(ValueError, match="own grid, 0.9 mm along axis 2, and not at a spacing of 0.5 mm"):
        ThroughPlaneSampling(spacing=0.5).for_grid((8, 8, 20), (1.0, 1.0, 0.9))


@repeatable
@given(axis=st.integers(0, 2), spacing=st.tuples(*[st.floats(0.4, 6)] * 3), ratio=st.floats(1.5, 10) | st.none(),
       gap=st.none() | st.floats(0, 0.5))  # fmt: skip
@example(axis=2, spacing=(0.45, 0.45, 5.0), ratio=None, gap=None)
def test_result_and_truth_of_a_simulated_scan_share_one_grid_whatever_the_voxels(axis, spacing, ratio, gap):
    scanner = ThroughPlaneSampling(axis=axis, ratio=ratio, gap=gap)
    truth = MetaTensor(torch.rand(1, 24, 23, 22), affine=oblique(spacing))
    data = SimulateMeasurementd("image", scanner)({"image": truth})
    image, label = Measured("image", scanner)(data)["image"], data["label"]
    operator = operator_of(image)
    assert operator.domain_shape == tuple(label.shape[1:])
    torch.testing.assert_close(operator.domain_affine(image.affine), truth.affine.double())
    torch.testing.assert_close(operator.forward(label.as_tensor()[0]), image.as_tensor()[0])


def test_weights_must_fit_the_volume():
    with pytest.raises(ValueError, match="columns"):
        ThroughPlane((2, 3, 9), 2, slice_weights(8, 1.0, 2, 4.0, 4.0), 1.0, 4.0, 4.0)


def test_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="profile"):
        slice_weights(8, 1.0, 2, 4.0, 4.0, "triangle")


def test_a_ratio_sets_the_voxel_size_of_a_scan_and_excludes_a_spacing():
    operator = ThroughPlaneSampling(ratio=2.5).for_scan((8, 8, 6), (1.0, 1.0, 5.0))
    assert operator.spacing == 2.0 and operator.domain_shape == (8, 8, 15)
    with pytest.raises(ValueError, match=r"set the spacing \(1 mm\) or the ratio \(4\), not both"):
        ThroughPlaneSampling(spacing=1.0, ratio=4)
    with pytest.raises(ValueError, match="ratio must be a number from 1.5 to 10, got 'five'"):
        ThroughPlaneSampling(ratio="five")


@pytest.mark.parametrize(("spacing", "axis", "fine"), [
    ((0.45, 0.45, 5.0), 2, 0.5), ((0.43, 0.43, 6.5), 2, 0.65), ((7.0, 0.2, 0.3), 0, 0.7), ((0.5, 0.5, 5.0), 2, 0.5),
    ((0.9, 0.9, 5.0), 2, 0.9),
])  # fmt: skip
def test_the_finest_spacing_within_the_limit_is_taken_and_said(spacing, axis, fine):
    """Usual scans of 0.45 x 0.45 x 5 mm have a ratio of 11."""
    scan = MetaTensor(torch.zeros(1, 8, 9, 6), affine=torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64)))
    scan.meta["filename_or_obj"] = "head.nii"
    finest = min(spacing)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        operator = ThroughPlaneSampling().for_measurement(scan)
    assert operator.spacing == pytest.approx(fine)
    assert operator.domain_shape[axis] == math.ceil(scan.shape[1 + axis] * spacing[axis] / fine - 0.01)
    expected = [] if fine == finest else [
        f"head.nii: slices {spacing[axis]:g} mm apart are reconstructed at {fine:g} mm, a ratio of 10: the "
        f"{finest:g} mm of the other axes would take {spacing[axis] / finest:.3g}"
    ]  # fmt: skip
    assert [str(w.message) for w in said] == expected


@pytest.mark.parametrize(("stated", "settings", "thickness"), [
    (3.0, {}, 3.0), (0.0, {}, 5.0), (3.0, {"gap": 1.0}, 4.0), (3.0, {"thickness": 4.5}, 4.5), (6.0, {}, 6.0),
])  # fmt: skip
def test_the_thickness_that_a_header_states_counts_unless_one_is_set(stated, settings, thickness):
    scan = MetaTensor(torch.zeros(1, 8, 8, 6), affine=torch.diag(torch.tensor([1.0, 1.0, 5.0, 1.0]).double()))
    scan.meta["slice_thickness"] = stated
    operator = ThroughPlaneSampling(**settings).for_measurement(scan)
    assert operator.thickness == pytest.approx(thickness)
    scan.meta["slice_thickness"] = 11.0
    with pytest.raises(ValueError, match="header states slices 11 mm thick, .* set .* --operator#thick"):
        ThroughPlaneSampling().for_measurement(scan)
    scan.meta["slice_thickness_by"] = "scan.json beside it"
    with pytest.raises(ValueError, match="^scan.json beside it states slices 11 mm thick"):
        ThroughPlaneSampling().for_measurement(scan)
