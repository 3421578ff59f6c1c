"""The memory that a network takes for a batch: found by running it on torch's device "meta", which computes nothing.

There tensors have shapes and no values, so that the sum of the bytes of all that are alive at once costs no memory, and
is that of this network, whatever it is. What cannot run there (a trace, a network of another library) is taken to be as
the shipped networks are.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch.func import functional_call
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BYTES_PER_PIXEL = 1_500
"""Of a slice, in networks that cannot be asked: somewhat above the shipped ones, 64 channels at full resolution."""
WORKSPACE = 1.4
"""Times the activations: what convolutions and the allocator take beside them (docs/reference/limits.md)."""


def activation_bytes(network: torch.nn.Module, shape: Sequence[int], gradient: bool = False) -> float:
    """Bytes that `network(x, timesteps)` takes at most for x of `shape` (N, 1, H, W), its weights not counted.

    Args:
        gradient: whether activations are kept for a gradient with respect to x.
    """
    pixels = shape[0] * shape[-2] * shape[-1]
    try:
        alive = _peak(getattr(network, "_orig_mod", network), shape, gradient)
    except Exception:  # noqa: BLE001 - networks of others can fail in as many ways as there are
        alive = BYTES_PER_PIXEL * pixels * (4 if gradient else 1)
    return WORKSPACE * alive


def _peak(network: torch.nn.Module, shape: Sequence[int], gradient: bool) -> float:
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    state = {name: tensor.detach().to("meta") for name, tensor in state.items()}
    x = torch.empty(*shape, device="meta", requires_grad=gradient)
    compiled = getattr(network, "_compiled_call_impl", None) is not None
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()  # nothing is compiled to be asked
    with eager, torch.set_grad_enabled(gradient), _Alive() as alive:
        output = functional_call(network, state, (x, torch.zeros(shape[0], dtype=torch.long, device="meta")))
        if gradient:
            torch.autograd.grad(output, x, torch.empty_like(output))
    return alive.peak


class _Alive(TorchDispatchMode):
    """Adds up the bytes of what operations made and is still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[StorageWeakRef, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                self.sizes[StorageWeakRef(storage)] = storage.nbytes()
        self.sizes = {storage: size for storage, size in self.sizes.items() if not storage.expired()}
        self.peak = max(self.peak, sum(self.sizes.values()))
        return result
