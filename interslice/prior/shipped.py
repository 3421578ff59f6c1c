"""Which of the shipped weights a run takes: the small ones, or the large ones where there is a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from interslice.files.values import choice
from interslice.usage import UsageError

MODELS = ("auto", "small", "large")
FILES = {"small": "model.pt", "large": "large/model.pt"}
"""In the folder of a task's weights."""
SERVERS = ("monailabel", "monai.deploy")
"""Programs that load model.pt themselves, into the network that the config describes."""


def shipped_weights(folder: str | Path, model: str = "auto", device: str | torch.device = "cpu") -> str:
    """The file of weights of a size, in the folder of a task.

    Args:
        folder: holds model.pt and perhaps large/model.pt.
        model: "small", "large", or "auto": large on a CUDA device, where the task has it and no program of SERVERS
            reads the config.
        device: of the run.

    Raises:
        UsageError: there is no such size, or none that large for this task.
    """
    choice("model", model, MODELS)
    large = Path(folder) / FILES["large"]
    if model == "auto":
        served = any(name in sys.modules for name in SERVERS)
        on_gpu = torch.device(device).type == "cuda"
        model = "large" if on_gpu and large.is_file() and not served else "small"
    elif model == "large" and not large.is_file():
        raise UsageError(f"model must be small here, got 'large': this task has no large weights ({large})")
    return str(Path(folder) / FILES[model])
