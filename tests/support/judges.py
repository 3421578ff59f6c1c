"""What other libraries make of the same thing."""

import torch
from skimage.metrics import structural_similarity


def independent_ssim(a: torch.Tensor, b: torch.Tensor, data_range: float = 2.0) -> float:
    """SSIM of intensities from 0, with the window of Wang et al. (2004): scikit-image, which most papers report."""
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "win_size": 11}
    return structural_similarity(a.double().numpy(), b.double().numpy(), data_range=data_range, **settings)
