"""How close a reconstruction is to the truth, per plane and between slices.

Volumes are (X, Y, Z) tensors in RAS+ orientation: slices across axis 0 are sagittal, 1 coronal, 2 axial. `data_range`
is the intensity span that counts as full scale: what the task's scaling maps to -1 and 1. `origin` is the value that
stands for an intensity of 0: no signal in MRI, air in CT.

    PSNR = 10 log10(data_range^2 / mean squared error)
    SSIM = mean over windows of  (2 m_x m_t + C1) (2 s_xt + C2) / ((m_x^2 + m_t^2 + C1) (s_x^2 + s_t^2 + C2))
    inter-slice error = mean |(x_{i+1} - x_i) - (truth_{i+1} - truth_i)| / data_range
    inter-slice ratio = mean |x_{i+1} - x_i| / mean |truth_{i+1} - truth_i|

m, s^2 and s_xt are means, variances and covariance within a window of x - origin and truth - origin: 11 x 11 pixels,
11^3 voxels for the volume, Gaussian weights of standard deviation 1.5, taken wherever the whole window fits;
C1 = (0.01 data_range)^2, C2 = (0.03 data_range)^2 (Wang et al., "Image quality assessment: from error visibility to
structural similarity", IEEE Transactions on Image Processing 13(4), 2004, eq. 13 and section III-C). PSNR does not
depend on the origin and SSIM does, by its means: on values from -1 to 1 it is not the SSIM of the literature, which is
of intensities from 0. Values below the origin, noise in air, are taken as they are.

A ratio near 1 can be right detail or mere jitter, so judge by the error.

    coverage(p) = share of voxels with |truth - mean| <= t_p std sqrt(1 + 1 / n), for n draws of standard deviation std

with t_p the two-sided quantile of Student's t with n - 1 degrees of freedom: were the truth one more draw of the same
Gaussian law, coverage(p) would be p. Below p the draws are too sure of themselves.
"""

from __future__ import annotations

import math

import torch
from scipy.stats import t as student_t

from interslice.planes import PLANES

WINDOW, WINDOW_SIGMA = 11, 1.5
SLICES_PER_CALL = 16
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
"""Nominal coverage of the intervals that are checked."""


def psnr(x: torch.Tensor, truth: torch.Tensor, data_range: float, mask: torch.Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of any shape, over the voxels of a boolean `mask` if there is one."""
    error = (x - truth).square()
    mse = float((error if mask is None else error[mask]).mean())
    return math.inf if mse == 0 else 10 * math.log10(data_range**2 / mse)


def ssim(x: torch.Tensor, truth: torch.Tensor, data_range: float, origin: float) -> float:
    """Mean structural similarity of two volumes (3-D window); `origin` is the value of no intensity."""
    return float(_ssim_map(x[None] - origin, truth[None] - origin, data_range).mean())


def slice_ssim(x: torch.Tensor, truth: torch.Tensor, data_range: float, origin: float, axis: int) -> float:
    """Mean structural similarity of the slices across `axis` (2-D window); `origin` is the value of no intensity."""
    a, b = x.movedim(axis, 0) - origin, truth.movedim(axis, 0) - origin
    parts = [
        _ssim_map(a[i : i + SLICES_PER_CALL], b[i : i + SLICES_PER_CALL], data_range).flatten(1).mean(1)
        for i in range(0, len(a), SLICES_PER_CALL)
    ]
    return float(torch.cat(parts).mean())


def _ssim_map(x: torch.Tensor, truth: torch.Tensor, data_range: float) -> torch.Tensor:
    """SSIM of intensities (N, ...), 0 without signal, at every position where the window fits."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mx, mt, mxx, mtt, mxt = (_gaussian_mean(v) for v in (x, truth, x * x, truth * truth, x * truth))
    luminance = (2 * mx * mt + c1) / (mx**2 + mt**2 + c1)
    return luminance * (2 * (mxt - mx * mt) + c2) / (mxx - mx**2 + mtt - mt**2 + c2)


def _gaussian_mean(x: torch.Tensor) -> torch.Tensor:
    """Gaussian-weighted means over the window, one axis after the other: 33 products a voxel instead of 1331."""
    for dim in range(1, x.ndim):
        size = min(WINDOW, x.shape[dim] - (x.shape[dim] + 1) % 2)  # odd, and inside the image
        offsets = torch.arange(size) - size // 2
        weights = torch.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2))
        count = x.shape[dim] - size + 1
        x = sum(float(w) * x.narrow(dim, i, count) for i, w in enumerate(weights / weights.sum()))
    return x


def inter_slice(x: torch.Tensor, truth: torch.Tensor, data_range: float, axis: int) -> dict[str, float]:
    """Error and ratio of the differences between neighbouring slices across `axis`."""
    d, d_truth = x.diff(dim=axis), truth.diff(dim=axis)
    return {
        "error": float((d - d_truth).abs().mean()) / data_range,
        "ratio": float(d.abs().mean() / d_truth.abs().mean()),
    }


def evaluate(
    x: torch.Tensor,
    truth: torch.Tensor,
    data_range: float,
    origin: float,
    data_residual: float,
    regions: dict[str, torch.Tensor] | None = None,
) -> dict:
    """All metrics of one reconstruction, as they stand in metrics.json.

    Args:
        data_range, origin: full scale, and the value of no intensity (see above), in the units of x; both are stated.
        data_residual: root mean square of A x - y over data_range.
        regions: boolean masks (X, Y, Z); each adds its PSNR.
    """
    result = {
        plane: {"psnr": _plane_psnr(x, truth, data_range, axis), "ssim": slice_ssim(x, truth, data_range, origin, axis)}
        for plane, axis in PLANES.items()
    }
    result["volume"] = {"psnr": psnr(x, truth, data_range), "ssim": ssim(x, truth, data_range, origin)}
    result["inter_slice"] = {plane: inter_slice(x, truth, data_range, axis) for plane, axis in PLANES.items()}
    result |= {"data_residual": data_residual, "data_range": data_range, "origin": origin}
    if regions:
        result["regions"] = {name: {"psnr": psnr(x, truth, data_range, mask)} for name, mask in regions.items()}
    return result


def calibration(
    mean: torch.Tensor, std: torch.Tensor, truth: torch.Tensor, num_draws: int, antithetic: bool = False
) -> dict:
    """Whether the spread of the draws is as large as the error of their mean.

    Args:
        mean, std: of the draws, any shape; std that of a single draw. Voxels of no spread are left out.
        num_draws: n, from 2.
        antithetic: they are n / 2 pairs of opposite noise. The spread is then known from n / 2 numbers, and the mean of
            the pairs has, to first order, none of its own.

    Returns:
        nominal and actual coverage, and the root mean square of error and spread, in units of the volume.
    """
    drawn = std > 0
    if num_draws < 2 or not bool(drawn.any()):
        raise ValueError(f"a spread needs two draws or more, got {num_draws}: raise num_draws")
    known_from = (num_draws + 1) // 2 if antithetic else num_draws - 1
    of_mean = num_draws % 2 / num_draws**2 if antithetic else 1 / num_draws
    spread, error = std[drawn] * math.sqrt(1 + of_mean), (truth - mean)[drawn].abs()
    quantiles = [float(student_t.ppf((1 + level) / 2, known_from)) for level in LEVELS]
    return {
        "num_draws": num_draws,
        "nominal": list(LEVELS),
        "coverage": [float((error <= q * spread).double().mean()) for q in quantiles],
        "error_rms": float(error.square().mean().sqrt()),
        "spread_rms": float(spread.square().mean().sqrt()),
    }


def _plane_psnr(x: torch.Tensor, truth: torch.Tensor, data_range: float, axis: int) -> float:
    """Mean over the slices across `axis` of each slice's PSNR; exact slices, of infinite PSNR, are left out."""
    values = [psnr(a, b, data_range) for a, b in zip(x.movedim(axis, 0), truth.movedim(axis, 0))]
    finite = [v for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.inf
