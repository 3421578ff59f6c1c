"""Sampling on blocks as large as the prior knows them: where the blocks lie, and that nothing measured is lost."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from monai.data import MetaTensor
from scipy.ndimage import zoom

from interslice.files.findings import Findings, findings_of
from interslice.noise import named_noise
from interslice.noise.field import SlerpNoise
from interslice.physics import Measured, operator_of
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.measurement import reconstructed
from interslice.physics.thick import ScalePercentilesd, SimulateMeasurementd, ThroughPlaneSampling
from interslice.prior import SlicePrior
from interslice.prior.network import network_for
from interslice.prior.weights import Weights, load_weights, scheduler_for
from interslice.sampling import DiffusionInverseInferer, KnownSpacingInferer, NullSpace
from interslice.sampling.known_spacing import block_affine, block_means, interpolated
from interslice.sampling.volume_inferer import VolumeInferer
from tests.support.helpers import BlurringDenoiser, alpha_bars, measured, normal, repeatable, sampler, scan
from tests.support.scans import INFERENCE, ROOT, thick_voxels, write_volume

NETWORK = BlurringDenoiser(alpha_bars())
TURNED = torch.tensor([[0.0, -1, 0, 5], [0.8, 0, 0.6, -3], [-0.6, 0, 0.8, 2], [0, 0, 0, 1]], dtype=torch.float64)


class Made(VolumeInferer):
    """Gives what a test makes of the measurement, and keeps the measurement."""

    def __init__(self, make, found=None):
        super().__init__()
        self.make, self.found = make, found or Findings()

    def reconstruct(self, measurement, network):
        self.seen = measurement
        return reconstructed(self.make(measurement), measurement, self.found)


def places(shape, affine):
    grid = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in shape], indexing="ij"), -1)
    return (grid @ affine[:3, :3].T + affine[:3, 3]).float()


def fine_scan(values, spacing, axis=2, affine=None, **settings):
    affine = (torch.eye(4, dtype=torch.float64) if affine is None else affine) @ torch.diag(
        torch.tensor([*spacing, 1.0], dtype=torch.float64)
    )
    image = MetaTensor(values[None], affine=affine)
    return Measured("image", ThroughPlaneSampling(axis=axis, **settings))({"image": image})["image"]


@pytest.mark.parametrize("known", [None, 1.0, 1.3, 0.4])
def test_voxels_as_the_prior_knows_them_are_sampled_as_they_are(known):
    measurement = measured(normal(9, 8, 5), (0.9, 1.0, 4.0))
    inner = sampler(SlerpNoise(), num_steps=2)
    result = KnownSpacingInferer(inner, known).reconstruct(measurement, NETWORK)
    assert torch.equal(result.as_tensor(), inner.reconstruct(measurement, NETWORK).as_tensor())
    assert "sampled" not in findings_of(result).scan


@pytest.mark.parametrize(("spacing", "known", "blocks"), [
    ((0.5, 0.5, 5.0), 1.0, (1.0, 1.0, 1.0)), ((0.45, 0.45, 5.0), 1.0, (0.9, 0.9, 1.0)),
    ((0.35, 0.5, 3.5), 1.0, (1.05, 1.0, 1.05)), ((0.7, 0.7, 5.0), 1.0, (0.7, 0.7, 0.7)),
    ((0.25, 0.25, 2.5), 0.8, (0.75, 0.75, 0.75)), ((0.5, 0.9, 4.0), 1.0, (1.0, 0.9, 1.0)),
])  # fmt: skip
def test_blocks_are_the_whole_number_of_voxels_nearest_to_the_known_spacing(spacing, known, blocks):
    inner = Made(lambda m: torch.zeros(operator_of(m).domain_shape))
    result = KnownSpacingInferer(inner, known).reconstruct(fine_scan(normal(13, 12, 4), spacing), None)
    seen = operator_of(inner.seen).domain_affine(inner.seen.affine)
    np.testing.assert_allclose(seen[:3, :3].norm(dim=0), blocks, rtol=1e-6)
    fine = operator_of(fine_scan(normal(13, 12, 4), spacing))
    assert result.shape[1:] == fine.domain_shape  # on the scan's own grid


@repeatable
@given(axis=st.integers(0, 2), factors=st.tuples(*[st.integers(1, 4)] * 3), gap=st.floats(-0.5, 1.5), data=st.data())
def test_the_measurement_of_blocks_is_the_average_of_the_measurement(axis, factors, gap, data):
    spacing = [0.5, 0.6, 0.55]
    spacing[axis] = data.draw(st.floats(2.0, 4.5))
    shape = data.draw(st.tuples(*[st.integers(3, 7)] * 3))
    operator = ThroughPlaneSampling(axis=axis, gap=gap).for_scan(shape, tuple(spacing))
    coarse = operator.coarser(factors)
    blocks = normal(*coarse.domain_shape, dtype=torch.float64)
    volume = blocks
    for a, (k, n) in enumerate(zip(factors, operator.domain_shape)):
        volume = volume.repeat_interleave(k, a).narrow(a, 0, n)
    in_plane = [1 if a == axis else k for a, k in enumerate(factors)]
    torch.testing.assert_close(coarse.forward(blocks), block_means(operator.forward(volume), in_plane))
    affine = TURNED @ torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    torch.testing.assert_close(
        coarse.domain_affine(affine @ block_affine(in_plane)), operator.domain_affine(affine) @ block_affine(factors)
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(20, 20, 20), (21, 19, 23)])
def test_every_voxel_stays_where_it_is(axis, shape):
    """A scan of world coordinates; its blocks state their own, and so do the voxels that come back."""
    spacing = [0.5, 0.5, 0.5]
    spacing[axis] = 4.0
    along = torch.tensor([0.3, -1.0, 0.7])
    plain = fine_scan(torch.zeros(shape), spacing, axis, TURNED)
    measurement = fine_scan(places(shape, plain.affine) @ along, spacing, axis, TURNED)

    def stated(m):
        return places(operator_of(m).domain_shape, operator_of(m).domain_affine(m.affine)) @ along

    inner = Made(stated)
    result = KnownSpacingInferer(inner, 1.0).reconstruct(measurement, None)
    whole = tuple(slice(0, n // 2) for n in inner.seen.shape[1:])
    expected = places(inner.seen.shape[1:], inner.seen.affine) @ along
    torch.testing.assert_close(inner.seen.as_tensor()[0][whole], expected[whole], atol=1e-4, rtol=0)
    truth = places(result.shape[1:], result.affine) @ along
    inside = (slice(None), *[slice(6, -6)] * 3)
    assert (result.as_tensor()[inside][0] - truth[inside[1:]]).abs().max() < 0.02
    assert torch.allclose(result.affine, operator_of(measurement).domain_affine(measurement.affine))


@repeatable
@given(axis=st.integers(0, 2), seed=st.integers(0, 99), fine=st.sampled_from([0.25, 0.4, 0.5]), gap=st.floats(-0.5, 1),
       share=st.sampled_from([0.0, 0.5, 1.0]))  # fmt: skip
def test_the_result_agrees_with_the_measurement_as_well_as_the_blocks_do(axis, seed, fine, gap, share):
    """Exactly, where the inner data step is exact; else all that is left was left of the blocks."""
    spacing = [fine, fine * 1.1, fine]
    spacing[axis] = 7.3 * fine
    measurement = fine_scan(normal(9, 10, 7, seed=seed), spacing, axis, gap=gap * fine)

    def made(m):
        x = normal(*operator_of(m).domain_shape, seed=seed + 1)
        return x + share * (operator_of(m).pseudo_inverse(m.as_tensor()[0], x) - x)

    inner = Made(made, Findings(relative_residual=0.5))
    result = KnownSpacingInferer(inner, 1.0).reconstruct(measurement, None)
    y = measurement.as_tensor()[0]
    left = y - operator_of(measurement).forward(result.as_tensor()[0])
    assert findings_of(result).relative_residual == pytest.approx(float(left.norm() / y.norm()), abs=1e-6)
    blocks = inner.seen.as_tensor()[0] - operator_of(inner.seen).forward(made(inner.seen))
    in_plane = [1 if a == axis else round(1 / s) for a, s in enumerate(spacing)]
    torch.testing.assert_close(left, interpolated(blocks, in_plane, y.shape), atol=1e-3, rtol=0)
    if share == 1:
        assert left.abs().max() < 1e-3


@repeatable
@given(fine=st.floats(0.05, 1.2), ratio=st.floats(1.5, 10), gap=st.floats(-0.5, 0.5), axis=st.integers(0, 2),
       seed=st.integers(0, 99))  # fmt: skip
@example(fine=0.5, ratio=1.6, gap=0.0, axis=2, seed=0)  # blocks of 1 mm would be fewer than the slices
@example(fine=0.5, ratio=2.0, gap=0.0, axis=2, seed=0)  # or as many
@example(fine=0.1, ratio=5.0, gap=0.0, axis=2, seed=0)
def test_whatever_the_voxels_the_data_are_kept_and_what_is_filled_in_is_uncertain(fine, ratio, gap, axis, seed):
    """The shares are of the distance of the slices: a gap of 0.3, or an overlap of -0.3."""
    spacing, shape = [fine, fine, fine], [12, 12, 12]
    spacing[axis], shape[axis] = ratio * fine, 6
    measurement = fine_scan(normal(*shape, seed=seed), spacing, axis, gap=gap * ratio * fine)
    inner = sampler(num_steps=2, num_draws=2, antithetic=False, seed=seed)
    result = KnownSpacingInferer(inner, 1.0).reconstruct(measurement, NETWORK)
    found, operator = findings_of(result), operator_of(measurement)
    y, x = measurement.as_tensor()[0], result.as_tensor()[0]
    assert float((operator.forward(x) - y).norm() / y.norm()) < 1e-5
    filled = x - operator.pseudo_inverse(operator.forward(x))
    assert filled.abs().max() > 1e-2
    doubtful = found.maps["std"][0] > 1e-4
    assert doubtful[filled.abs() > 0.1].double().mean() > 0.9


@pytest.mark.parametrize(("spacing", "blocks"), [
    ((0.5, 0.5, 0.8), (1.0, 1.0, 0.5)), ((0.5, 0.5, 1.0), (1.0, 1.0, 0.5)), ((0.1, 0.1, 0.5), (0.6, 0.6, 0.3)),
    ((0.2, 0.2, 1.5), (1.0, 1.0, 1.0)), ((0.25, 0.25, 0.375), (0.5, 0.5, 0.25)),
])  # fmt: skip
def test_slices_stay_one_and_a_half_blocks_apart_and_blocks_about_cubes(spacing, blocks):
    inner = Made(lambda m: torch.zeros(operator_of(m).domain_shape))
    KnownSpacingInferer(inner, 1.0).reconstruct(fine_scan(normal(21, 20, 6), spacing), None)
    operator = operator_of(inner.seen)
    seen = operator.domain_affine(inner.seen.affine)[:3, :3].norm(dim=0)
    np.testing.assert_allclose(seen, blocks, rtol=1e-6)
    assert torch.linalg.matrix_rank(operator.weights) == len(operator.weights) < operator.domain_shape[2]


def test_a_scan_without_fine_detail_is_sampled_as_its_coarse_twin():
    """Voxels of 1 mm, written as 2 x 2 of 0.5 mm: the same samples, from the same noise."""
    coarse = measured(normal(8, 9, 4), (1.0, 1.0, 5.0))
    fine = fine_scan(coarse.as_tensor()[0].repeat_interleave(2, 0).repeat_interleave(2, 1), (0.5, 0.5, 5.0))
    inner = sampler(SlerpNoise(), num_steps=2, num_draws=2)
    expected = inner.reconstruct(coarse, NETWORK)
    result = KnownSpacingInferer(inner, 1.0).reconstruct(fine, NETWORK)
    up = interpolated(expected.as_tensor()[0], (2, 2, 2), (16, 18, 40))
    y, operator = fine.as_tensor()[0], operator_of(fine)
    torch.testing.assert_close(
        result.as_tensor()[0], up + operator.linear_reconstruction(y - operator.forward(up)), atol=1e-4, rtol=0
    )
    std = interpolated(findings_of(expected).maps["std"][0], (2, 2, 2), (16, 18, 40)).clamp(min=0)
    torch.testing.assert_close(findings_of(result).maps["std"][0], std, atol=1e-4, rtol=0)
    assert float(std.min()) >= 0 and float(std.max()) > 0


def test_what_was_found_is_kept_and_the_scan_tells_at_which_size_it_was_sampled():
    flat = Findings("blocks", "slerp", 3, 0.2, maps={"std": torch.full((1, 7, 6, 20), 0.3)})
    inner = Made(lambda m: torch.zeros(operator_of(m).domain_shape), flat)
    measurement = fine_scan(normal(13, 12, 4), (0.5, 0.5, 5.0))
    found = findings_of(KnownSpacingInferer(inner, 1.0).reconstruct(measurement, None))
    assert found.scan == "slices 5 mm apart, 5 mm thick, reconstructed at 0.5 mm, sampled at 1 x 1 x 1 mm"
    assert (found.noise, found.num_draws) == ("slerp", 3)
    torch.testing.assert_close(found.maps["std"], torch.full((1, 13, 12, 40), 0.3))


@pytest.mark.parametrize("shape", [(5,), (6,), (12,)])
def test_interpolation_is_scipys(shape):
    blocks = normal(*shape, 4, 3)
    expected = zoom(blocks.numpy(), (3, 1, 1), order=3, mode="nearest", grid_mode=True)
    actual = interpolated(blocks, (3, 1, 1), (3 * shape[0] - 1, 4, 3))
    np.testing.assert_allclose(actual, expected[:-1], atol=1e-4)


def test_bad_spacings_and_other_operators_are_refused():
    with pytest.raises(ValueError, match="prior_spacing must be a number of mm above 0, got 0"):
        KnownSpacingInferer(None, 0.0)

    class Identity(LinearOperator):
        def forward(self, x):
            return x

        adjoint = forward

    image = scan(torch.zeros(8, 8, 8), (0.5, 0.5, 0.5))
    image.meta["operator"] = Identity((8, 8, 8), (8, 8, 8))
    with pytest.raises(ValueError, match='cannot be averaged: set "inferer" to "@sampler"'):
        KnownSpacingInferer(None, 1.0).reconstruct(image, None)


@pytest.mark.parametrize(("given", "said"), [({}, True), ({"prior_spacing": "$None"}, False)])
def test_fine_scans_are_sampled_at_what_the_weights_know_unless_it_is_switched_off(
    run_here, tiny_overrides, tmp_path, given, said
):
    voxels = thick_voxels().repeat(2, 0).repeat(2, 1)
    path = write_volume(tmp_path / "fine.nii.gz", voxels, spacing=(0.5, 0.5, 4))
    run_here("inference", INFERENCE, tiny_overrides(path, num_draws=2, **given))
    record = json.loads((tmp_path / "results/fine/run.json").read_text())
    assert ("sampled at 1 x 1 x 1 mm" in json.dumps(record)) == said
    for name in ("recon", "std"):
        volume = nib.load(tmp_path / f"results/fine/fine_{name}.nii.gz")
        assert volume.shape == (40, 36, 48)
        np.testing.assert_allclose(volume.header.get_zooms(), 0.5)


@pytest.mark.slow
def test_the_shipped_prior_gains_at_half_a_millimetre():
    weights = Weights(ROOT / "models/model.pt", "percentiles")
    network = load_weights(network_for(weights), weights).eval()
    head = nib.load(ROOT / "sample_data/mri/truth/colin27_t1.nii.gz").get_fdata(dtype=np.float32)
    fine = torch.from_numpy(zoom(head[60:92, 80:112, 40:80], 2, order=3, mode="nearest", grid_mode=True))[None]
    scanner = ThroughPlaneSampling(axis=2, ratio=10)
    data = {"image": MetaTensor(fine, affine=torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0], dtype=torch.float64)))}
    data = Measured("image", scanner)(SimulateMeasurementd("image", scanner)(data))
    data = ScalePercentilesd(["image", "label"])(data)
    prior = SlicePrior(scheduler_for(weights).alphas_cumprod)
    plain = DiffusionInverseInferer(prior, NullSpace(), named_noise("slerp"), num_draws=1, progress=False)
    errors = [
        float((inferer.reconstruct(data["image"], network).as_tensor() - data["label"].as_tensor()).square().mean())
        for inferer in (plain, KnownSpacingInferer(plain, weights.grid["spacing"]))
    ]
    assert errors[1] < 0.95 * errors[0]  # 0.2 dB
