"""What a reconstruction has to beat: interpolation of the thick slices, and smoothing after the fact."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import affine_transform
from skimage.restoration import denoise_tv_chambolle

from bundle.operators import ThroughPlane


def interpolate(y: torch.Tensor, operator: ThroughPlane, order: int) -> torch.Tensor:
    """B-spline interpolation (order 0 nearest, 1 linear, 3 cubic) of y onto the operator's fine grid."""
    mapping = operator.domain_affine(torch.eye(4, dtype=torch.float64)).numpy()  # fine voxel -> thick voxel
    result = affine_transform(
        y.cpu().numpy(),
        mapping[:3, :3],
        mapping[:3, 3],
        output_shape=operator.domain_shape,
        order=order,
        mode="nearest",
    )
    return torch.from_numpy(result).to(y)


def interpolate_consistently(y: torch.Tensor, operator: ThroughPlane, order: int = 3) -> torch.Tensor:
    """Interpolation made to agree with the measurement: x + A^+ (y - A x)."""
    x = interpolate(y, operator, order)
    return x + operator.pseudo_inverse(y - operator.forward(x))


def total_variation(x: torch.Tensor, weight: float) -> torch.Tensor:
    """3-D total-variation denoising of a finished volume (Chambolle, 2004)."""
    return torch.from_numpy(denoise_tv_chambolle(np.asarray(x.cpu()), weight=weight)).to(x)
