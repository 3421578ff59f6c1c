"""The 2-D network as a TorchScript module, which plain PyTorch loads: neither this package nor MONAI is needed.

`torch.jit.script` cannot compile MONAI's DiffusionModelUNet. A trace records the operations of one call instead, and
holds for every other batch, image size and timestep, because the network branches on none of them. Two parts are
compiled where a trace would be wrong: the timestep embedding, whose device a trace fixes to that of the example, and
the check of the sides, which a trace leaves out.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from monai.networks.nets import diffusion_model_unet


def example_inputs(
    multiple: int, batch: int = 2, rows: int = 2, columns: int = 3, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random slices (batch, 1, rows * multiple, columns * multiple), and timesteps (batch,) from 0 to 999."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 1, rows * multiple, columns * multiple, generator=generator)
    return x.to(device), torch.randint(0, 1000, (batch,), generator=generator).to(device)


def traced(network: torch.nn.Module) -> torch.jit.ScriptModule:
    """Trace `network(x, timesteps)`, slices (N, 1, H, W) and integers (N,), in evaluation mode and on its own device.

    The names of the weights stay, so that checkpoints of the network fit the trace. Called with slices whose sides are
    no multiples of `network.multiple`, it raises an error that says so.
    """
    training, device = network.training, next(network.parameters()).device
    hook = network.register_forward_pre_hook(lambda _, inputs: (_checked(inputs[0], network.multiple), *inputs[1:]))
    try:
        # TorchScript is on its way out of PyTorch, and warns of checks in MONAI that hold for all inputs.
        with warnings.catch_warnings(action="ignore"), _compiled_embedding(), torch.no_grad():
            return torch.jit.trace(network.eval(), example_inputs(network.multiple, device=device), check_trace=False)
    finally:
        hook.remove()
        network.train(training)


@torch.jit.script_if_tracing
def _checked(x: torch.Tensor, multiple: int) -> torch.Tensor:
    if x.dim() != 4 or x.size(2) % multiple != 0 or x.size(3) % multiple != 0:
        raise ValueError(
            f"slices must be (N, 1, H, W) with H and W multiples of {multiple}, got {x.size()}: pad them at the border"
        )
    return x


@contextmanager
def _compiled_embedding() -> Iterator[None]:
    embedding = diffusion_model_unet.get_timestep_embedding
    diffusion_model_unet.get_timestep_embedding = torch.jit.script(embedding)
    try:
        yield
    finally:
        diffusion_model_unet.get_timestep_embedding = embedding


class Traced(torch.nn.Module):
    """A network in the form that `torch.jit.script`, and with it `monai.bundle.ckpt_export`, can take: its trace."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.trace = traced(network)

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return self.trace(x, timesteps)
