"""What weights say of themselves: their network, noise schedule, intensities and voxels, as JSON in a tensor of bytes.

The text comes with a file and is held to be as foreign as the file: sizes, names and numbers are checked before
anything is made of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from monai.networks.schedulers import DDIMScheduler

from interslice.files.values import choice, number, rising_pair, whole_number

DEFAULTS = {
    "network": {"channels": [16, 32, 64, 128], "num_res_blocks": 1, "norm_num_groups": 8},
    "schedule": {
        "num_train_timesteps": 1000, "schedule": "scaled_linear_beta", "beta_start": 0.00085, "beta_end": 0.012,
    },
    "scale": {},
    "grid": {"spacing": 1.0},
}  # fmt: skip
"""What weights are taken to be for that do not say it."""
SCALES = {
    "percentiles": "volumes scaled by their percentiles, as MRI is",
    "hounsfield": "Hounsfield units, as CT is",
}
"""What intensities a prior may know (`scale["kind"]`)."""
EXTRA_STATE = "_extra_state"
"""torch's name for what a module keeps beside its tensors."""
STORED = "stored"
"""Under this name weights may say how their numbers are kept on purpose: {"dtype": "float16"}."""
LONGEST_TEXT = 1 << 20
"""Bytes."""
MOST_LEVELS, MOST_CHANNELS, MOST_BLOCKS, MOST_TIMESTEPS = 8, 4096, 16, 100_000
"""Of a 2-D network, and of a schedule: an order of magnitude above any that is in use."""


def encoded(about: dict) -> torch.Tensor:
    """JSON text as a tensor of bytes (N,)."""
    return torch.tensor(list(json.dumps(about).encode("utf-8")), dtype=torch.uint8)


def decoded(text: torch.Tensor) -> dict:
    """The inverse of `encoded`. Raises ValueError for what is no JSON object of objects."""
    try:
        if text.dtype == torch.uint8 and text.ndim == 1 and text.numel() <= LONGEST_TEXT:
            stated = json.loads(bytes(text.cpu().tolist()).decode("utf-8"))
            if all(isinstance(value, dict) for value in (stated, *stated.values())):
                return stated
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    raise ValueError("no JSON object of objects in a tensor of bytes")


def check_stated(about: Mapping[str, Mapping]) -> None:
    """Raise ValueError, naming the value and what is allowed, for what no prior can be."""
    check_network(**about["network"])
    check_schedule(about["schedule"])
    scale, spacing = about["scale"], about["grid"].get("spacing")
    if (kind := scale.get("kind")) is not None:
        choice("kind", kind if isinstance(kind, str) else str(kind), tuple(SCALES))
    if "low" in scale or "high" in scale:
        rising_pair("low and high", (scale.get("low"), scale.get("high")))
    if spacing is not None:
        number("spacing", spacing, above=0, most=1000, kind="a number of mm")


def check_network(channels: object = (16,), num_res_blocks: object = 1, norm_num_groups: object = 8,
                  **unknown: object) -> None:  # fmt: skip
    """Arguments of interslice.prior.network.SliceUNet: few enough, whole, and divisible."""
    if unknown:
        raise ValueError(f"a network has no {', '.join(sorted(unknown))[:80]}")
    groups = whole_number("norm_num_groups", norm_num_groups, 1)
    widths = channels if isinstance(channels, (list, tuple)) else []
    whole = all(isinstance(c, int) and not isinstance(c, bool) and 1 <= c <= MOST_CHANNELS for c in widths)
    if not 1 <= len(widths) <= MOST_LEVELS or not whole or any(c % groups for c in widths):
        raise ValueError(
            f"channels must be 1 to {MOST_LEVELS} whole numbers up to {MOST_CHANNELS} that are divisible by "
            f"norm_num_groups, {norm_num_groups!r:.20}, got {channels!r:.80}"
        )
    blocks = num_res_blocks if isinstance(num_res_blocks, (list, tuple)) else [num_res_blocks] * len(widths)
    if len(blocks) != len(widths) or not all(type(b) is int and 1 <= b <= MOST_BLOCKS for b in blocks):
        raise ValueError(
            f"num_res_blocks must be a whole number from 1 to {MOST_BLOCKS}, or one per level, got "
            f"{num_res_blocks!r:.80}"
        )


def check_schedule(schedule: Mapping) -> None:
    """Arguments of MONAI's DDIMScheduler whose alpha-bars fall from at most 1 and stay above 0."""
    steps = whole_number("num_train_timesteps", schedule.get("num_train_timesteps", 1000), 2)
    try:
        if steps > MOST_TIMESTEPS:
            raise ValueError(f"at most {MOST_TIMESTEPS} timesteps")
        alpha_bars = DDIMScheduler(**schedule, clip_sample=False).alphas_cumprod
        falls = bool((alpha_bars[1:] < alpha_bars[:-1]).all())
        right = len(alpha_bars) == steps and falls and alpha_bars[-1] > 0 and alpha_bars[0] <= 1
    except Exception:  # whatever the arithmetic does with whatever the text says
        right = False
    if not right:
        raise ValueError(
            f"schedule must give 2 to {MOST_TIMESTEPS} alpha-bars that fall from 1 and stay above 0, got "
            f"{dict(schedule)!r:.200}"
        )
