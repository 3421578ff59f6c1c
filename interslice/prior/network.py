"""The 2-D noise-prediction network eps_theta(x_t, t).

MONAI's DiffusionModelUNet keeps one self-attention block in the middle of the U even when every
`attention_levels` entry is False; its cost and memory grow with the square of the number of pixels.
A network without it is fully convolutional: trained on patches, it runs on whole slices of any size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from interslice.files.values import choice
from interslice.prior.tracing import Traced
from interslice.prior.weights import EXTRA_STATE, Weights, check_fits, encoded

MODELS = {
    "small": {"channels": [16, 32, 64, 128], "num_res_blocks": 1},  # 2.4 million parameters
    "large": {"channels": [32, 64, 128, 128], "num_res_blocks": 2},  # 5.9 million; three times the time on a CPU
}
"""The networks that are shipped, by size."""


class SliceUNet(DiffusionModelUNet):
    """DiffusionModelUNet for single-channel 2-D slices, fully convolutional.

    `forward(x, timesteps)` takes noisy slices (N, 1, H, W), with H and W divisible by `multiple`, and
    integer timesteps (N,), and returns the predicted noise (N, 1, H, W).

    Args:
        channels: width of each resolution level, each divisible by `norm_num_groups`.
        num_res_blocks: residual blocks per level.
        norm_num_groups: groups of every group normalisation.
        schedule, scale, grid: what it is trained with, for users of its weights; see
        `interslice.prior.weights.Weights`.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64, 128), num_res_blocks: int = 1, norm_num_groups: int = 8,
                 schedule: Mapping | None = None, scale: Mapping | None = None, grid: Mapping | None = None,
                 ) -> None:  # fmt: skip
        super().__init__(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            channels=channels,
            attention_levels=[False] * len(channels),
            num_head_channels=norm_num_groups,
            num_res_blocks=num_res_blocks,
            norm_num_groups=norm_num_groups,
        )
        self.middle_block.attention = nn.Identity()
        self.multiple = 2 ** (len(channels) - 1)
        own = {"channels": list(channels), "num_res_blocks": num_res_blocks, "norm_num_groups": norm_num_groups}
        given = {"schedule": schedule, "scale": scale, "grid": grid}
        others = {name: dict(value) for name, value in given.items() if value}
        self.about = {"network": own, **others}
        self.register_load_state_dict_pre_hook(_without_extra_state)

    def get_extra_state(self) -> torch.Tensor:
        """What the weights say of themselves, in their state dict."""
        return encoded(self.about)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Loading weights does not change what the network is."""

    def __prepare_scriptable__(self) -> Traced:
        """What `torch.jit.script` compiles in place of this network, and so `monai.bundle.ckpt_export`: its trace."""
        return Traced(self)


def _without_extra_state(network: SliceUNet, state: dict, prefix: str, *_) -> None:
    """Weights that version 0.4.0 wrote do not say what they are for."""
    state.setdefault(f"{prefix}{EXTRA_STATE}", network.get_extra_state())


def channels_of(model: str) -> dict:
    """`channels` and `num_res_blocks` of the network that is called `model`, one of MODELS."""
    return MODELS[choice("model", model, MODELS)]


def network_for(weights: Weights, channels: Sequence[int] | None = None, num_res_blocks: int | None = None,
                norm_num_groups: int | None = None, grid: Mapping | None = None) -> SliceUNet:  # fmt: skip
    """The network that weights are for, not loaded; what is given here goes before what they say.

    Raises ValueError where the file holds another network than it says: found without memory for the network's numbers.
    """
    given = {"channels": channels, "num_res_blocks": num_res_blocks, "norm_num_groups": norm_num_groups}
    options = weights.network | {name: value for name, value in given.items() if value is not None}
    if options == weights.network:
        with torch.device("meta"):
            check_fits(SliceUNet(**options), weights)
    return SliceUNet(**options, schedule=weights.schedule, scale=weights.scale, grid=grid or weights.grid)
