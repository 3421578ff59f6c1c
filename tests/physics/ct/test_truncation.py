"""Bodies that are wider than the detector: found, and what is cut off guessed; the rim and the values within fall."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from interslice.files.doubts import doubts_of
from interslice.physics.baselines import LeastSquares
from interslice.physics.ct import (
    ConeBeam,
    Grid,
    HounsfieldScale,
    MendTruncationd,
    ScanGeometry,
    SparseRadon,
    Tomography,
)
from interslice.physics.ct.counting import rays_of
from interslice.physics.ct.sparse_radon import system_matrix
from interslice.physics.ct.truncation import SHARE, around, extended, outside, shares_cut_off
from tests.physics.ct.test_sparse_radon import line_integrals
from tests.support.helpers import repeatable

SCALE = HounsfieldScale()
DISTANCES = {"source_to_isocenter": 600.0, "source_to_detector": 1000.0}
SIZE = 3.0


def body(count=108, slices=2):
    """(grid, attenuation): 280 x 220 mm of water with a lung and bones, off the centre."""
    grid = Grid((count, count, slices), (SIZE,) * 3)
    x, y = torch.meshgrid(grid.coordinates(0), grid.coordinates(1), indexing="ij")
    mu = (((x - 10) / 140) ** 2 + ((y + 6) / 110) ** 2 < 1).float()
    mu[((x - 30) / 18) ** 2 + ((y - 20) / 25) ** 2 < 1] = 0.2
    mu[(x + 35) ** 2 + (y + 20) ** 2 < 64] = 1.9
    mu[(x - 105) ** 2 + y**2 < 15**2] = 1.6  # outside of what all views see
    return grid, (SCALE.water * mu)[..., None].repeat(1, 1, slices).float()


def measured(beam, columns=60, views=90):
    """Projections of the body on a detector that is too narrow for it."""
    grid, mu = body()
    turn = 180.0 if beam == "parallel" else 360.0
    size = SIZE if beam == "parallel" else SIZE * 5 / 3
    geometry = ScanGeometry(
        beam, tuple(turn * i / views for i in range(views)), columns, size, 2, size if beam == "cone" else SIZE,
        **({} if beam == "parallel" else DISTANCES),
    )  # fmt: skip
    rays = ConeBeam(geometry, grid) if beam == "cone" else SparseRadon(geometry, grid)
    meta = {"geometry": geometry, "filename_or_obj": "scan.npz"}
    return MetaTensor(rays.forward(mu)[None], meta=meta), mu


def mended(projections, truncation):
    scanner = Tomography(background=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = MendTruncationd("image", scanner, SCALE, truncation)({"image": projections.clone()})["image"]
        return found, scanner.for_measurement(found)


def errors(x, mu, operator):
    """(mean within, mean at the rim) of a reconstruction, in HU."""
    more = [(n - k) // 2 for n, k in zip(mu.shape[:2], operator.grid.shape[:2])]
    off = (x - mu[more[0] : mu.shape[0] - more[0], more[1] : mu.shape[1] - more[1]])[..., 0] / SCALE.water * 1000
    radius = torch.hypot(*torch.meshgrid(operator.grid.coordinates(0), operator.grid.coordinates(1), indexing="ij"))
    field = operator.geometry.field_radius
    return float(off[radius < 0.8 * field].mean()), float(off[(radius > 0.9 * field) & (radius < field)].mean())


@pytest.mark.parametrize("beam", ["parallel", "fan", "cone"])
def test_the_values_within_and_the_rim_fall(beam):
    projections, mu = measured(beam)
    for reconstruct in (lambda y, operator: operator.linear_reconstruction(y), LeastSquares(10)):
        found = {}
        for truncation in ("leave", "extrapolate"):
            y, operator = mended(projections, truncation)
            found[truncation] = errors(reconstruct(y.as_tensor()[0], operator), mu, operator)
        (within, rim), (within_mended, rim_mended) = found["leave"], found["extrapolate"]
        assert within > 100 and rim > 500
        assert abs(within_mended) < 0.25 * within and abs(rim_mended) < 0.4 * rim, found


def test_a_larger_grid_takes_up_what_lies_outside():
    projections, mu = measured("parallel")
    found = {}
    for truncation in ("leave", "grid"):
        y, operator = mended(projections, truncation)
        found[truncation] = errors(LeastSquares(20)(y.as_tensor()[0], operator), mu, operator)
    assert operator.grid.shape[0] > 1.4 * 60 and abs(operator.grid.center[0]) < 1e-9
    assert abs(found["grid"][0]) < 0.25 * found["leave"][0] and abs(found["grid"][1]) < 0.5 * found["leave"][1]


@pytest.mark.parametrize(("truncation", "words"), [
    ("leave", "too high, with a bright rim"), ("extrapolate", "is guessed, as water, and taken off"),
    ("grid", "the grid is enlarged"),
])  # fmt: skip
def test_it_is_said(truncation, words):
    y, _ = mended(measured("parallel")[0], truncation)
    assert words in doubts_of(y)[0] and "100% of the views do not come to air" in doubts_of(y)[0]


@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_a_body_that_is_seen_whole_is_left_as_it_is(beam):
    projections, _ = measured(beam, columns=130)
    y, _ = mended(projections, "extrapolate")
    assert torch.equal(y.as_tensor(), projections.as_tensor()) and not doubts_of(y)


@repeatable
@given(radius=st.floats(60.0, 100.0), x=st.floats(-15.0, 15.0))
def test_a_cylinder_of_water_goes_on_as_it_is(radius, x):
    """Cut off at 50 mm at either side, in the one shape that the extension is exact for."""
    a = (np.arange(-80, 81) + 0.0)[None, :, None]
    p = 2 * SCALE.water * np.sqrt(np.maximum(radius**2 - (a - x) ** 2, 0.0))
    longer, more = extended(p[:, 30:-30], 1.0, SCALE.water)
    whole = 2 * SCALE.water * np.sqrt(np.maximum(radius**2 - (np.arange(-50 - more, 51 + more) - x) ** 2, 0.0))
    assert more == 26 and np.array_equal(longer[0, more:-more], p[0, 30:-30])
    assert np.abs(longer[0, :, 0] - whole).max() < 0.4
    assert np.abs(longer[0, :, 0] - whole).mean() < 0.05


def test_the_larger_grid_holds_the_other_voxel_for_voxel():
    geometry = measured("parallel")[0].meta["geometry"]
    grid = Grid((60, 48, 2), (3.0, 2.5, 3.0), (6.0, -10.0, 0.0))
    large, inner = around(grid, replace(geometry, num_columns=120))
    for axis in (0, 1, 2):
        torch.testing.assert_close(large.coordinates(axis)[inner[axis]], grid.coordinates(axis))
    assert large.shape[0] * 3.0 / 2 >= 180 - 6 - 3 and large.shape[2] == 2


def test_nothing_outside_is_nothing():
    projections, _ = measured("parallel", columns=130)
    operator = Tomography(background=0.0, shape=(128, 128, 2), spacing=3.0).for_measurement(projections)
    off = outside(projections.as_tensor()[0].numpy(), operator, SCALE.water)
    assert float(off.abs().max()) < 0.02 * float(projections.max())
    assert (shares_cut_off(projections.as_tensor()[0].numpy()) == 0).all()


def test_other_words_are_refused():
    with pytest.raises(ValueError, match="truncation must be one of leave, extrapolate, grid"):
        MendTruncationd("image", Tomography(), SCALE, "mirror")


def test_a_larger_grid_and_one_that_is_stated_are_refused():
    projections, _ = measured("parallel")
    scanner = Tomography(background=0.0, shape=(64, 64, 2))
    with pytest.raises(ValueError, match="scan.npz: truncation grid enlarges the grid, and operator#shape"):
        MendTruncationd("image", scanner, SCALE, "grid")({"image": projections})


def test_of_a_shifted_detector_the_far_end_alone_tells_of_truncation():
    angles = tuple(np.arange(0.0, 360.0, 4.0))
    geometry = ScanGeometry("fan", angles, 60, 4.0, 1, 4.0, 500.0, 900.0, column_offset=80.0)

    def disc(radius):
        return line_integrals(geometry, (((0.0, 0.0, 0.0), (radius, radius, 1e5), 0.02),)).numpy()

    assert shares_cut_off(disc(60.0)) == 1.0  # by both ends
    assert shares_cut_off(disc(60.0), geometry) == 0.0
    assert shares_cut_off(disc(140.0), geometry) == 1.0


@pytest.mark.parametrize("beam", ["parallel", "fan"])
def test_a_body_that_is_cut_off_in_one_slice_of_many_is_found_and_mended_there(beam):
    """Shoulders: on the mean over the slices the edges come to air."""
    cut, mu = measured(beam)
    geometry = replace(cut.meta["geometry"], num_rows=16)
    slices = line_integrals(geometry, (((5.0, 0.0, 0.0), (60.0, 70.0, 1e5), SCALE.water),)).float()
    slices[..., -1] = cut.as_tensor()[0, ..., 0]
    y = MetaTensor(slices[None], meta=cut.meta | {"geometry": geometry})
    assert shares_cut_off(y.as_tensor()[0].numpy()).tolist() == [0.0] * 15 + [1.0]
    found, operator = mended(y, "extrapolate")
    assert "100% of the views do not come to air at the detector's edge in 1 of 16 rows" in doubts_of(found)[0]
    before, after = (operator.linear_reconstruction(v.as_tensor()[0])[..., -1:] for v in (y, found))
    assert abs(errors(after, mu, operator)[1]) < 0.4 * errors(before, mu, operator)[1]
    assert torch.equal(found.as_tensor()[..., :15], y.as_tensor()[..., :15])


@pytest.mark.parametrize("photons", [3e2, 1e4])
def test_noise_beside_a_body_is_no_truncation(photons):
    projections, _ = measured("parallel", columns=130)
    p = np.repeat(projections.as_tensor()[0].numpy(), 32, 2)
    noisy = rays_of(np.random.default_rng(0).poisson(photons * np.exp(-p)), photons)[0]
    assert shares_cut_off(noisy).max() < 0.5 * SHARE


def test_no_matrix_is_kept_for_what_lies_outside():
    projections, _ = measured("parallel")
    Tomography(background=0.0).for_measurement(projections)
    before = system_matrix.cache_info().currsize
    mended(projections, "extrapolate")
    assert system_matrix.cache_info().currsize == before
