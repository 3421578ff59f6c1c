"""A 2-D network as a prior for volumes: the slices of one axis, denoised in batches.

    x0 = (x_t - sqrt(1 - ab_t) eps_theta(x_t, t)) / sqrt(ab_t)

Volumes are (X, Y, Z) tensors on the network's device; slices across axis a are (H, W) images of the other two.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from bundle.diffusion import predict_x0

PROBED_BATCH_SIZES = (1, 2, 4, 8, 16, 32)

Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class SlicePrior:
    """Denoises a volume slice by slice with a noise-prediction network.

    Args:
        alphas_cumprod: alpha-bar of every training timestep, (T,).
        slice_batch_size: slices per network call, or "auto" to time a few sizes on the first volume and keep the
            fastest. The result does not depend on it, up to float rounding.
        multiple: slices are padded to multiples of it (2^(levels - 1) of a U-Net) by repeating their border.
        clip: range that x0 is clipped to, or None. The scaled range of `bundle.intensity` is not clipped, so
            leave room above 1.

    The attribute `calls` counts network calls.
    """

    def __init__(self, alphas_cumprod: torch.Tensor, slice_batch_size: int | str = 8, multiple: int = 8,
                 clip: tuple[float, float] | None = None) -> None:  # fmt: skip
        if slice_batch_size != "auto" and not (isinstance(slice_batch_size, int) and slice_batch_size > 0):
            raise ValueError(f'slice_batch_size must be a positive integer or "auto", got {slice_batch_size!r}')
        self.alpha_bars = [float(a) for a in alphas_cumprod]
        self.slice_batch_size, self.multiple, self.clip = slice_batch_size, multiple, clip
        self.calls = 0
        self._probed: dict[tuple, int] = {}

    @torch.no_grad()
    def __call__(self, network: Network, x_t: torch.Tensor, t: int, slice_axis: int) -> torch.Tensor:
        """Return x0 of the noisy volume `x_t` (X, Y, Z) at timestep `t`, slicing across `slice_axis`.

        Raises:
            FloatingPointError: the network returns NaN or infinity.
        """
        slices = x_t.movedim(slice_axis, 0)
        x0 = torch.empty_like(x_t)
        target = x0.movedim(slice_axis, 0)
        batch_size = self._batch_size(network, slices)
        for start in range(0, len(slices), batch_size):
            batch = slices[start : start + batch_size]
            target[start : start + batch_size] = predict_x0(batch, self._eps(network, batch, t), self.alpha_bars[t])
        if not torch.isfinite(x0.sum()):
            raise FloatingPointError(
                f"the network returned NaN or infinity at timestep {t}: check the checkpoint and the intensity scale"
            )
        return x0 if self.clip is None else x0.clamp_(*self.clip)

    def _eps(self, network: Network, batch: torch.Tensor, t: int) -> torch.Tensor:
        """Predicted noise (N, H, W) of noisy slices (N, H, W)."""
        h, w = batch.shape[1:]
        padding = (0, -w % self.multiple, 0, -h % self.multiple)
        image = F.pad(batch[:, None], padding, mode="replicate") if any(padding) else batch[:, None]
        image = image.contiguous(memory_format=torch.channels_last)
        self.calls += 1
        eps = network(image, torch.full((len(batch),), t, device=batch.device, dtype=torch.long))
        return eps[:, 0, :h, :w].to(batch.dtype)

    def _batch_size(self, network: Network, slices: torch.Tensor) -> int:
        if self.slice_batch_size != "auto":
            return self.slice_batch_size
        key = (tuple(slices.shape), str(slices.device))
        if key not in self._probed:
            seconds = {}
            calls = self.calls
            for size in (n for n in PROBED_BATCH_SIZES if n <= len(slices)):
                self._eps(network, slices[:size], 0)  # the first call of a shape pays for its set-up
                start = time.perf_counter()
                self._eps(network, slices[:size], 0)
                if slices.is_cuda:
                    torch.cuda.synchronize(slices.device)
                seconds[size] = (time.perf_counter() - start) / size
            self.calls = calls
            self._probed[key] = min(seconds, key=seconds.get)
        return self._probed[key]
