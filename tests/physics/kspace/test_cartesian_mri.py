"""Undersampled multi-coil k-space: the operator, its adjoint and norm, which lines are measured, the coils' maps."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.data.fft_utils import fftn_centered

from interslice.physics.baselines import LeastSquares, TotalVariation
from interslice.physics.kspace import CartesianMRI, CartesianSampling
from interslice.physics.kspace.coil_maps import (
    central_block,
    centre_of,
    estimate_maps,
    low_resolution,
    normalised,
)
from interslice.physics.kspace.espirit import interpolated, kernel_size, subspace
from interslice.physics.kspace.scanner import calibration, fast_size, measured_mask
from interslice.physics.kspace.simulated_coils import simulated_maps
from interslice.sampling.data_consistency import ConjugateGradient
from tests.support.helpers import dense, normal, repeatable, scan

SHAPE = (5, 6, 3)  # odd and even, so that the centring is held to both


def random_maps(shape=SHAPE, coils=2, seed=0):
    return torch.view_as_complex(normal(coils, *shape[::-1], 2, seed=seed, dtype=torch.float64))


def random_mask(*shape, seed=0):
    return normal(*shape, seed=seed) > 0


def lines_mask(rows, columns, axis):
    keep = random_mask(columns if axis == 0 else rows, seed=3)
    return keep.expand(rows, columns) if axis == 0 else keep[:, None].expand(rows, columns)


MASKS = {
    "points": random_mask(6, 5), "points of each slice": random_mask(3, 6, 5),
    "larger field of view": random_mask(9, 8), "lines along X": lines_mask(6, 5, 0),
    "lines along Y": lines_mask(8, 7, 1), "lines of each slice": random_mask(3, 1, 5).expand(3, 6, 5),
    "complete": torch.ones(6, 5),
}  # fmt: skip


@pytest.fixture(params=MASKS)
def operator(request):
    return CartesianMRI(random_maps(), MASKS[request.param])


def head(shape=(24, 28, 4)):
    """A real, positive image with air around it."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    radius = np.sqrt(np.square(grid[:2] / 0.8).sum(0))
    inside = (radius < 1) * (1 + 0.3 * np.sin(9 * grid[0]) * np.cos(8 * grid[1] + grid[2]) - 0.5 * (radius < 0.3))
    return scan(torch.from_numpy(100 * inside.astype(np.float32)), (1.0, 1.0, 2.0))


def numpy_forward(operator, x):
    """The definition, with numpy's transform."""
    rows, columns = operator.mask.shape[-2:]
    _, z, y, x_size = operator.maps.shape
    image = np.zeros((len(operator.maps), z, rows, columns), complex)
    top, left = rows // 2 - y // 2, columns // 2 - x_size // 2
    image[..., top : top + y, left : left + x_size] = operator.maps.numpy() * x.numpy().T
    axes = (-2, -1)
    k = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image, axes), norm="ortho"), axes)
    return k * operator.mask.numpy()


def test_forward_is_the_definition_with_numpys_transform(operator):
    x = normal(*SHAPE, dtype=torch.float64)
    y = torch.view_as_complex(operator.forward(x))
    np.testing.assert_allclose(y.numpy(), numpy_forward(operator, x), atol=1e-13)


def test_the_transform_is_monais():
    x = normal(*SHAPE, dtype=torch.float64)
    operator = CartesianMRI(torch.ones(1, 3, 6, 5, dtype=torch.complex128), torch.ones(6, 5))
    expected = fftn_centered(torch.view_as_real(x.permute(2, 1, 0) + 0j), spatial_dims=2)
    torch.testing.assert_close(operator.forward(x)[0], expected)


def test_dense_adjoint_and_normal_matrix(operator):
    a = dense(operator.forward, operator.domain_shape)
    torch.testing.assert_close(dense(operator.adjoint, operator.range_shape), a.T, atol=1e-13, rtol=0)
    expected = a.T @ a + 0.3 * torch.eye(a.shape[1], dtype=a.dtype)
    torch.testing.assert_close(dense(lambda x: operator.normal(x, 0.3), SHAPE), expected, atol=1e-12, rtol=0)
    assert float(torch.linalg.matrix_norm(a, 2)) <= operator.norm * (1 + 1e-12)


@pytest.mark.parametrize("positive", [False, True])
def test_dot_test_in_float32(positive):
    volume = head()
    operator = CartesianSampling(acceleration=3, num_coils=4).for_volume(volume)
    x, y = normal(*operator.domain_shape, seed=1), normal(*operator.range_shape, seed=2)
    if positive:
        x, y = x.abs(), y.abs()
    ax, aty = operator.forward(x), operator.adjoint(y)
    left, right = float((ax.double() * y).sum()), float((x.double() * aty).sum())
    assert abs(left - right) <= 1e-6 * float(ax.norm() * y.norm())


def test_complete_kspace_of_unit_maps_keeps_the_norm():
    """Parseval: and A^T A is then the identity."""
    operator = CartesianMRI(simulated_maps(SHAPE, (1, 1, 1), 3, 0), torch.ones(8, 7))
    x = normal(*SHAPE, dtype=torch.float64)
    torch.testing.assert_close(operator.forward(x).norm(), x.norm(), rtol=1e-6, atol=0)
    torch.testing.assert_close(operator.normal(x), x, rtol=1e-6, atol=1e-6)
    assert operator.norm == pytest.approx(1, abs=1e-6) and operator.acceleration == 1


def test_gradient_batches_and_dtype():
    operator = CartesianMRI(random_maps(), MASKS["points"])
    x = normal(2, 1, *SHAPE, dtype=torch.float64).requires_grad_()
    y = operator(x)
    assert y.shape == (2, 1, *operator.range_shape)
    y.square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * operator.normal(x.detach()))
    assert operator.forward(x.detach().float()).dtype == operator.adjoint(y.detach().float()).dtype == torch.float32


def test_the_image_is_real_so_the_pseudo_inverse_takes_iterations():
    operator = CartesianMRI(torch.ones(1, 3, 6, 5, dtype=torch.complex128), MASKS["points"])
    a = dense(operator.forward, SHAPE)
    gram = a @ a.T
    assert (gram - torch.diag(gram.diagonal())).abs().max() > 0.1  # k and -k belong together
    y = normal(*operator.range_shape, dtype=torch.float64) * operator.mask[..., None]
    expected = (torch.linalg.pinv(a, rtol=1e-10) @ y.flatten()).reshape(SHAPE)
    torch.testing.assert_close(operator.pseudo_inverse(y, iterations=300, tolerance=1e-12), expected)


@pytest.mark.parametrize(
    ("mask", "axes"),
    [
        (lines_mask(6, 5, 0), (2, 1)),
        (lines_mask(8, 7, 1), (2, 0)),
        (MASKS["points"], (2, 0, 1)),
        (torch.ones(6, 5), (2, 0, 1)),
    ],
)
def test_slices_show_the_aliasing(mask, axes):
    assert CartesianMRI(random_maps(), mask).slice_axes == axes
    assert CartesianMRI(random_maps((5, 6, 1)), mask).slice_axes == (2,)


def test_aliasing_lies_along_the_undersampled_axis_alone():
    operator = CartesianMRI(torch.ones(1, 3, 6, 5, dtype=torch.complex64), lines_mask(6, 5, 0))
    x = torch.zeros(SHAPE)
    x[2, 3, 1] = 1
    seen = operator.normal(x)
    seen[:, 3, 1] = 0
    assert seen.abs().max() < 1e-6


def test_the_background_has_no_signal():
    """y of x = 2 v / u - 1 is 2 y(v) / u + A(-1): what was not measured stays air, and affine maps go through."""
    maps = simulated_maps(SHAPE, (1, 1, 1), 2, 0)
    operator = CartesianMRI(maps, MASKS["lines along X"], background=-1.0)
    image = normal(*SHAPE).abs()
    plain = CartesianMRI(maps, MASKS["lines along X"], background=0.0)
    y = 2 * plain.forward(image) + operator.forward(torch.full(SHAPE, -1.0))
    expected = 2 * plain.linear_reconstruction(plain.forward(image)) - 1
    torch.testing.assert_close(operator.linear_reconstruction(y), expected, atol=1e-5, rtol=0)
    nothing = operator.linear_reconstruction(operator.forward(torch.full(SHAPE, -1.0)))
    torch.testing.assert_close(nothing, torch.full(SHAPE, -1.0), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("maps", "mask", "message"),
    [
        (random_maps().real, torch.ones(6, 5), "maps must be complex"),
        (random_maps(), torch.ones(5, 6), "KY from 6"),
        (random_maps(), torch.ones(2, 6, 5), r"\(3, KY, KX\)"),
        (random_maps(), torch.zeros(6, 5), "nothing was measured"),
    ],
)
def test_what_does_not_fit_is_refused(maps, mask, message):
    with pytest.raises(ValueError, match=message):
        CartesianMRI(maps, mask)


@given(
    count=st.integers(24, 200), acceleration=st.sampled_from([1, 2, 4, 5.5]),
    pattern=st.sampled_from(["random", "equispaced"]), seed=st.integers(0, 5),
)  # fmt: skip
@repeatable
def test_lines_are_as_many_as_stated_and_complete_in_the_centre(count, acceleration, pattern, seed):
    builder = CartesianSampling(acceleration=acceleration, pattern=pattern, seed=seed)
    lines = builder.lines(count)
    assert int(lines.sum()) == round(count / acceleration)
    center = max(3, builder.center_fraction * count - 1)
    half = int(center) // 2
    assert lines[count // 2 - half : count // 2 + half + 1].all()
    assert torch.equal(lines, CartesianSampling(acceleration=acceleration, pattern=pattern, seed=seed).lines(count))
    if pattern == "equispaced":
        gaps = lines.nonzero()[:, 0].diff()
        step = (count - int(center)) / max(1, int(lines.sum()) - int(center))
        assert gaps.max() <= math.ceil(1.3 * step) + 1


def test_the_random_pattern_depends_on_the_seed_and_the_phase_axis_on_the_setting():
    masks = [CartesianSampling(seed=s).for_volume(head()).mask for s in (0, 1)]
    assert not torch.equal(*masks)
    assert CartesianSampling(phase_axis=1).for_volume(head()).slice_axes == (2, 0)
    assert CartesianSampling(acceleration=8).center_fraction == pytest.approx(0.04)


def test_the_field_of_view_is_larger_than_the_volume():
    assert CartesianSampling().for_volume(head()).mask.shape == (32, 30)  # 28 and 24, 1.1 times
    assert CartesianSampling(field_of_view=1).for_volume(head()).mask.shape == (28, 24)
    assert [fast_size(n) for n in (1, 18.0, 184.8, 228.8)] == [2, 18, 192, 240]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_coils": 0}, "num_coils must be a whole number from 1, got 0"),
        ({"acceleration": 0.5}, "acceleration must be a number from 1"),
        ({"center_fraction": 1.5}, "center_fraction must be a number above 0, up to 1, got"),
        ({"pattern": "spiral"}, "pattern must be one of"),
        ({"phase_axis": 2}, "phase_axis must be 0 or 1"),
        ({"field_of_view": 0.9}, "field_of_view must be a number from 1, up to 4, got"),
    ],
)
def test_settings_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        CartesianSampling(**arguments)


def test_too_few_lines_for_the_centre_say_what_to_change():
    with pytest.raises(ValueError, match="leaves 2 of 24 lines, and the centre alone takes 3: lower acceleration"):
        CartesianSampling(acceleration=12).lines(24)


def measured(builder, volume, noise=0.0):
    operator = builder.for_volume(volume)
    y = operator.forward(volume.as_tensor()[0])
    y = y + noise * normal(*y.shape) * operator.mask[..., None]
    return operator, MetaTensor(y[None], affine=volume.affine, meta={"mask": operator.mask})


@pytest.mark.parametrize("coils", [1, 4])
def test_maps_are_recovered_where_there_is_signal(coils):
    volume = head((48, 48, 3))
    builder = CartesianSampling(num_coils=coils, acceleration=2, center_fraction=0.3, field_of_view=1.4)
    true, kspace = measured(builder, volume)
    estimated = builder.for_measurement(kspace)
    full = true.mask.shape[-1]
    first = full // 2 - 24
    maps = estimated.maps[..., first : first + 48, first : first + 48]
    torch.testing.assert_close(estimated.maps.abs().square().sum(0).sqrt(), torch.ones(3, full, full))
    signal = volume.as_tensor()[0].permute(2, 1, 0) > 50
    error = (maps - true.maps).abs().square().sum(0)[signal].mean().sqrt()
    assert error < 0.06
    assert error < 0.1 * (maps - maps.roll(1, 0)).abs().square().sum(0)[signal].mean().sqrt() or coils == 1


def test_few_lines_suffice_for_the_maps():
    """The patches of k-space tell coils apart more finely than low-resolution images do."""
    volume = head((96, 96, 2))
    builder = CartesianSampling(num_coils=6, acceleration=4, field_of_view=1.2)
    true, kspace = measured(builder, volume)
    signal = volume.as_tensor()[0].permute(2, 1, 0) > 30
    center = calibration(kspace, true.mask)
    assert center.shape[-1] == 9

    def error(maps):
        """Apart from the phase that all coils share."""
        overlap = (maps.conj() * true.maps).sum(0).abs()[signal]
        return float((2 - 2 * overlap).clamp_min(0).mean().sqrt())

    size, shape = true.mask.shape, true.maps.shape[-2:]
    coarse = error(normalised(low_resolution(center, size, shape)))
    fine = error(estimate_maps(center, size, shape))
    assert fine < 0.5 * coarse and fine < 0.03


def test_patches_of_kspace_lie_in_the_subspace():
    """Maps that are waves of one period make k-space of a second coil the first one's, shifted."""
    k = torch.view_as_complex(normal(9, 10, 2, dtype=torch.float64))
    coils = torch.stack([k[:, :-1], k[:, 1:]])
    vectors = subspace(coils, 3)
    assert vectors.shape[-1] == 12  # of 18: 3 x 4 points of the wider patch
    patch = coils[:, 2:5, 4:7].flatten()
    basis = vectors.reshape(18, -1)
    torch.testing.assert_close(basis @ (basis.mH @ patch), patch)
    assert [kernel_size(s) for s in ((3, 33), (7, 33), (15, 33), (33, 33))] == [1, 3, 6, 6]


def test_interpolation_between_grid_points_is_linear():
    grids = [torch.tensor([0, 4, 6]), torch.tensor([0])]
    values = (grids[0] * (1.0 + 2.0j))[None, None, :, None]
    expected = torch.arange(7)[None, None, :, None] * (1.0 + 2.0j)
    torch.testing.assert_close(interpolated(values, grids, (7, 1)), expected)


def test_maps_are_smooth_where_there_is_no_signal():
    """Noise alone would turn the maps at random from voxel to voxel."""
    volume = head((48, 48, 3))
    builder = CartesianSampling(num_coils=4, acceleration=2, center_fraction=0.3, field_of_view=1.4)
    _, kspace = measured(builder, volume, noise=0.5)
    maps = builder.for_measurement(kspace).maps
    corner = maps[..., :8, :8]
    assert (corner[..., 1:] - corner[..., :-1]).abs().square().sum(0).sqrt().mean() < 0.3


def test_empty_slices_get_maps_too():
    center = torch.zeros(2, 3, 7, 7, dtype=torch.complex64)
    center[:, 1] = torch.view_as_complex(normal(2, 7, 7, 2))
    maps = estimate_maps(center, (12, 10))
    torch.testing.assert_close(maps.abs().square().sum(0).sqrt(), torch.ones(3, 12, 10))


def test_low_resolution_images_are_those_of_the_transform():
    """Of a k-space that lies within the block, up to the window."""
    k = torch.zeros(1, 1, 10, 9, dtype=torch.complex64)
    k[0, 0, 5, 4], k[0, 0, 6, 3] = 2.0, 1.0 + 1.0j
    image = low_resolution(centre_of(k, (2, 2)), (10, 9), (6, 5))
    window = math.cos(math.pi / 6) ** 2
    k[0, 0, 6, 3] *= window
    full = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(k.numpy(), (-2, -1)), norm="ortho"), (-2, -1))
    np.testing.assert_allclose(image.numpy(), full[..., 5 - 3 : 5 + 3, 4 - 2 : 4 + 3], atol=1e-6)


def test_the_central_block():
    mask = torch.zeros(12, 11, dtype=torch.bool)
    assert central_block(mask) == (-1, -1)
    mask[4:9] = True
    assert central_block(mask) == (2, 5)
    mask[:, 8] = False
    assert central_block(mask) == (2, 2)
    assert central_block(torch.ones(80, 6, dtype=torch.bool)) == (16, 2)


def test_the_mask_is_where_kspace_is_not_zero_and_empty_slices_do_not_count():
    operator = CartesianSampling(acceleration=3).for_volume(head())
    y = operator.forward(head().as_tensor()[0])
    y[:, 2] = 0
    assert torch.equal(measured_mask(y[None].as_subclass(MetaTensor)), operator.mask)
    y[:, 1, :, 15] = 0
    assert measured_mask(y[None].as_subclass(MetaTensor)).shape == (4, *operator.mask.shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y[0], "must be .1, coils, slices, rows, columns, 2."),
        (lambda y: y * math.nan, "values of k-space are NaN"),
        (lambda y: y * 0, "0 everywhere"),
        (lambda y: y.index_fill(4, torch.tensor([14, 15, 16]), 0), "need at least 3 x 3"),
        (lambda y: torch.cat([y.new_zeros(y.shape), y[..., :2]], -1), "real and imaginary"),
    ],
)
def test_kspace_that_cannot_be_used_is_refused(change, message):
    _, kspace = measured(CartesianSampling(acceleration=2), head())
    with pytest.raises(ValueError, match=message):
        CartesianSampling().for_measurement(MetaTensor(change(kspace.as_tensor()), affine=kspace.affine))


def test_solvers_use_it():
    """With the true maps and many coils, least squares is near the truth, and every step lowers the misfit."""
    volume = head()
    truth = volume.as_tensor()[0] / 50 - 1
    operator = CartesianSampling(num_coils=8, acceleration=2, pattern="equispaced").for_volume(volume)
    y = operator.forward(truth)
    start = operator.linear_reconstruction(y)

    def error(x):
        return float((x - truth).norm() / truth.norm())

    assert error(LeastSquares(30)(y, operator)) < 0.02 < error(start)
    assert error(TotalVariation(0.0003, 200)(y, operator)) < 0.05
    step = ConjugateGradient(rho=1e-3, iterations=20)(start.clone(), y, operator, 1.0)
    assert float((operator.forward(step) - y).norm()) < 0.05 * float((operator.forward(start) - y).norm())


@pytest.mark.cuda
def test_on_a_gpu(operator):
    x = normal(*SHAPE)
    on_gpu = operator.forward(x.cuda())
    torch.testing.assert_close(on_gpu.cpu(), operator.forward(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(operator.adjoint(on_gpu).cpu(), operator.adjoint(on_gpu.cpu()), atol=1e-5, rtol=0)


def test_it_names_itself():
    operator = CartesianMRI(random_maps(), lines_mask(6, 5, 0), (1.0, 2.0, 4.0))
    assert str(operator).endswith("k-space of 5 x 6, 2 coils, voxels of 1 x 2 x 4 mm")
    assert operator.gains == (1.0, 0.5, 0.25)
    affine = torch.eye(4)
    assert torch.equal(operator.domain_affine(affine), operator.range_affine(affine))
