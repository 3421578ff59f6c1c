"""The 2-D noise-prediction network eps_theta(x_t, t).

MONAI's DiffusionModelUNet keeps one self-attention block in the middle of the U even when every
`attention_levels` entry is False; its cost and memory grow with the square of the number of pixels.
A network without it is fully convolutional: trained on patches, it runs on whole slices of any size.
"""

from __future__ import annotations

from monai.networks.nets import DiffusionModelUNet
from torch import nn

from bundle.tracing import Traced


class SliceUNet(DiffusionModelUNet):
    """DiffusionModelUNet for single-channel 2-D slices, fully convolutional.

    `forward(x, timesteps)` takes noisy slices (N, 1, H, W), with H and W divisible by `multiple`, and
    integer timesteps (N,), and returns the predicted noise (N, 1, H, W).

    Args:
        channels: width of each resolution level, each divisible by `norm_num_groups`.
        num_res_blocks: residual blocks per level.
        norm_num_groups: groups of every group normalisation.
    """

    def __init__(
        self, channels: tuple[int, ...] = (16, 32, 64, 128), num_res_blocks: int = 1, norm_num_groups: int = 8
    ) -> None:
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

    def __prepare_scriptable__(self) -> Traced:
        """What `torch.jit.script` compiles in place of this network, and so `monai.bundle.ckpt_export`: its trace."""
        return Traced(self)
