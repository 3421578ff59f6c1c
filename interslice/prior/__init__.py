"""The prior: a 2-D network applied to the slices of a volume, its weights, and its training."""

from interslice.prior.network import SliceUNet
from interslice.prior.slices import OdePrior, SlicePrior

__all__ = ["OdePrior", "SlicePrior", "SliceUNet"]
