"""A 2-D network as a prior for volumes: the slices of one axis, denoised in batches.

    x0 = (x_t - sqrt(1 - ab_t) eps_theta(x_t, t)) / sqrt(ab_t)            a network that predicts the noise
    x0 = sqrt(ab_t) x_t - sqrt(1 - ab_t) v_theta(x_t, t)                  ... v (Salimans and Ho, ICLR 2022)
    x0 = x_theta(x_t, t)                                                  ... the clean image

Volumes are (X, Y, Z) tensors, on the network's device or elsewhere; slices across axis a are (H, W) images of the other
two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from interslice.files.memory import array_bytes
from interslice.files.values import choice, rising_pair, whole_number
from interslice.prior.activations import activation_bytes
from interslice.prior.batches import PRECISIONS, Batches, arithmetic
from interslice.prior.diffusion import X0_FROM, predict_eps, time_steps
from interslice.ranks import gather, share

Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class SlicePrior:
    """Denoises a volume slice by slice with a 2-D network.

    Args:
        alphas_cumprod: alpha-bar of every training timestep, (T,).
        slice_batch_size: slices per network call, or "auto": see `interslice.prior.batches`. The result does not depend
            on it, up to float rounding.
        multiple: slices are padded to multiples of it (2^(levels - 1) of a U-Net) by repeating their border.
        clip: range that x0 is clipped to, or None. The scaled range of `interslice.physics.intensity` is not clipped,
            so leave room above 1.
        prediction: what the network's output means: "epsilon", "v_prediction" or "sample" (the clean image), as in
            MONAI's schedulers. For variance-exploding networks see `interslice.prior.variance_exploding`.
        precision: "float32", "tf32", "bfloat16", or "auto", by the device. See `interslice.prior.batches`.
        across_ranks: each rank (interslice.ranks) denoises its share of the slices of a volume that all have, and all
            get the whole.

    `calls` counts network calls; `batch_sizes` holds what the memory has decided.
    """

    def __init__(self, alphas_cumprod: torch.Tensor, slice_batch_size: int | str = "auto", multiple: int = 8,
                 clip: tuple[float, float] | None = None, prediction: str = "epsilon",
                 precision: str = "auto", across_ranks: bool = False) -> None:  # fmt: skip
        whole_number("multiple", multiple, 1)
        if clip is not None:
            rising_pair("clip", clip)
        choice("prediction", prediction, X0_FROM)
        self.alpha_bars = [float(a) for a in alphas_cumprod]
        self.multiple, self.clip, self.prediction = multiple, clip, prediction
        self.precision = choice("precision", precision, PRECISIONS)
        self.slice_batch_size = slice_batch_size
        # What is counted, chosen and asked does not tell one prior from another (interslice.files.digest).
        self._calls, self._batches, self._across_ranks = 0, Batches(slice_batch_size), across_ranks
        self._asked: dict[tuple, float] = {}

    @property
    def across_ranks(self) -> bool:
        return self._across_ranks

    @property
    def calls(self) -> int:
        return self._calls

    @property
    def batch_sizes(self) -> dict[tuple, int]:
        return self._batches.sizes

    @torch.no_grad()
    def __call__(self, network: Network, x_t: torch.Tensor, t: int, slice_axis: int,
                 out: torch.Tensor | None = None) -> torch.Tensor:  # fmt: skip
        """Return x0 of the noisy volume `x_t` (X, Y, Z) at timestep `t`, slicing across `slice_axis`.

        x0 lies where x_t does, which may be another device than the network's: slices travel. `out` takes it, if given.
        """
        slices, whole = self._mine(x_t.movedim(slice_axis, 0)), torch.empty_like(x_t) if out is None else out
        target = torch.empty_like(slices) if self._across_ranks else whole.movedim(slice_axis, 0)
        device = device_of(network, x_t)

        def denoise(part: slice) -> None:
            found = self._x0(network, slices[part].to(device), t)
            if self.clip is not None:
                found = found.clamp(*self.clip) + 0 * found  # so that an infinite value is not hidden but becomes NaN
            target[part] = found.to(x_t.device)

        self._over(network, slices.shape, device, denoise)
        return self._all_have(target, whole, slice_axis)

    def pull_back(self, network: Network, x_t: torch.Tensor, t: int, slice_axis: int, v: torch.Tensor) -> torch.Tensor:
        """J^T v with J = d x0 / d x_t (X, Y, Z): one more pass through the network, forward and backward.

        Takes about three times as long as denoising; memory for the activations of one batch of slices.
        """
        slices, vs = (self._mine(a.movedim(slice_axis, 0)) for a in (x_t, v))
        whole = torch.empty_like(x_t)
        target = torch.empty_like(slices) if self._across_ranks else whole.movedim(slice_axis, 0)
        device = device_of(network, x_t)

        def pull(part: slice) -> None:
            with torch.enable_grad():
                batch = slices[part].detach().to(device, copy=True).requires_grad_()
                x0 = self._x0(network, batch, t)
                x0 = x0 if self.clip is None else x0.clamp(*self.clip)
                (found,) = torch.autograd.grad(x0, batch, vs[part].to(device))
            target[part] = found.to(x_t.device)

        self._over(network, slices.shape, device, pull, gradient=True)
        return self._all_have(target, whole, slice_axis)

    def _mine(self, slices: torch.Tensor) -> torch.Tensor:
        """Of all slices (N, H, W) those that this rank denoises."""
        return slices[share(len(slices))] if self._across_ranks else slices

    def _all_have(self, mine: torch.Tensor, whole: torch.Tensor, axis: int) -> torch.Tensor:
        """`whole`, into which slices across `axis` have gone, or go from the ranks that have worked on them."""
        if self._across_ranks:
            gather(mine, whole.shape[axis], out=whole.movedim(axis, 0))
        return whole

    def _over(self, network: Network, shape: Sequence[int], device: torch.device, work, gradient: bool = False) -> None:
        """`work` on all slices (N, H, W), in batches."""
        count, *plane = shape
        self._batches.over(
            count, device, (tuple(shape), gradient, str(device)),
            lambda size: self._bytes(network, (size, 1, *self._padded(plane)), gradient), work,
        )  # fmt: skip

    def _x0(self, network: Network, batch: torch.Tensor, t: int) -> torch.Tensor:
        """Clean slices (N, H, W) of noisy ones, not clipped."""
        return X0_FROM[self.prediction](batch, self._output(network, batch, t), self.alpha_bars[t])

    def _output(self, network: Network, batch: torch.Tensor, t: int) -> torch.Tensor:
        """The network's output (N, H, W) for noisy slices (N, H, W)."""
        h, w = batch.shape[1:]
        padding = (0, -w % self.multiple, 0, -h % self.multiple)
        image = F.pad(batch[:, None], padding, mode="replicate") if any(padding) else batch[:, None]
        image = image.contiguous(memory_format=torch.channels_last)
        self._calls += 1
        with arithmetic(self.precision, batch.device):
            output = network(image, torch.full((len(batch),), t, device=batch.device, dtype=torch.long))
        return output[:, 0, :h, :w].to(batch.dtype)

    def working_bytes(
        self, network: Network, shape: Sequence[int], axes: Sequence[int], gradient: bool = False
    ) -> float:
        """Bytes that the network takes for slices of a volume of `shape` (X, Y, Z) across any of `axes`.

        With batches of the size that is asked for; of "auto" on a GPU, which takes what there is, with one slice.
        """
        found = []
        for axis in axes:
            plane = [n for a, n in enumerate(shape) if a != axis]
            size = self._batches.least(shape[axis], device_of(network))
            found.append(self._bytes(network, (size, 1, *self._padded(plane)), gradient))
        return max(found)

    def _padded(self, plane: Sequence[int]) -> list[int]:
        return [math.ceil(n / self.multiple) * self.multiple for n in plane]

    def _bytes(self, network: Network, batch: tuple[int, ...], gradient: bool) -> float:
        if (batch, gradient) not in self._asked:
            self._asked[batch, gradient] = activation_bytes(network, batch, gradient)
        return self._asked[batch, gradient]


class OdePrior:
    """Denoises by following the probability-flow ODE down to the clean image, instead of one estimate.

    The end of the path is a sharp image; the estimate of `SlicePrior` is the blurry mean of all clean images that x_t
    could have come from. Steps are those of DDIM with eta = 0 (Song et al., ICLR 2021), evenly spaced from t.

    Args:
        prior: takes each step.
        num_steps: network passes from t to the clean image.
    """

    def __init__(self, prior: SlicePrior, num_steps: int = 3) -> None:
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        self.prior, self.num_steps, self.alpha_bars = prior, num_steps, prior.alpha_bars

    @property
    def batch_sizes(self) -> dict[tuple, int]:
        return self.prior.batch_sizes

    def __call__(self, network: Network, x_t: torch.Tensor, t: int, slice_axis: int,
                 out: torch.Tensor | None = None) -> torch.Tensor:  # fmt: skip
        steps = time_steps(t + 1, min(self.num_steps, t + 1))
        x = x_t
        for i, t in enumerate(steps):
            x0 = self.prior(network, x, t, slice_axis)
            if i + 1 < len(steps):
                eps, ab_s = predict_eps(x, x0, self.alpha_bars[t]), self.alpha_bars[steps[i + 1]]
                x = eps.mul_(math.sqrt(1 - ab_s)).add_(x0, alpha=math.sqrt(ab_s))
        return x0 if out is None else out.copy_(x0)

    def working_bytes(
        self, network: Network, shape: Sequence[int], axes: Sequence[int], gradient: bool = False
    ) -> float:
        """As of `SlicePrior`, and the volume between two steps."""
        return self.prior.working_bytes(network, shape, axes, gradient) + array_bytes(shape)

    def pull_back(self, *_) -> torch.Tensor:
        """Not provided: raises NotImplementedError."""
        raise NotImplementedError("no gradient is taken through the ODE: use SlicePrior with this data step")


def device_of(network: Network, like: torch.Tensor | None = None) -> torch.device:
    """Where a network computes; that of `like` (a CPU, without it) for one that has no weights."""
    weight = next(network.parameters(), None) if isinstance(network, torch.nn.Module) else None
    place = weight if weight is not None else like
    return torch.device("cpu") if place is None else place.device


def check_finite(x0: torch.Tensor, t: int) -> None:
    """Raise FloatingPointError where the volume that was found at timestep `t` holds NaN or infinity.

    On a GPU it waits for all that has been asked of it.
    """
    if not torch.isfinite(x0.sum()):
        raise FloatingPointError(
            f"the network returned NaN or infinity at timestep {t}: check the checkpoint and the intensity scale"
        )
