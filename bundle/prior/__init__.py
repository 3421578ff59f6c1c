"""The prior: a 2-D network applied to the slices of a volume, its weights, and its training."""

from bundle.prior.network import SliceUNet
from bundle.prior.slices import OdePrior, SlicePrior

__all__ = ["OdePrior", "SlicePrior", "SliceUNet"]
