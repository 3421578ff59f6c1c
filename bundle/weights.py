"""Weights of the prior: found, safe to read, and of the network's architecture, or a clear error."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from ignite.engine import Engine, Events


def load_weights(network: torch.nn.Module, path: str | Path) -> torch.nn.Module:
    """Load a plain state dict (or {"model": state dict}) into `network`, and return it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, holds pickled code, or belongs to another architecture.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights {path} do not exist: set checkpoint to a model.pt that `run training` wrote")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        if holds_code(path, str(error)):
            raise ValueError(
                f"weights {path} hold more than tensors and are not loaded, because they could run code: "
                "save network.state_dict() with torch.save"
            ) from None
        raise ValueError(f"weights {path} cannot be read, the file may be truncated or no PyTorch checkpoint") from None
    state = state.get("model", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"weights {path} are not a state dict of tensors: save network.state_dict()")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise ValueError(f"weights {path} belong to another architecture than network_def: {first} ...") from None
    return network


def holds_code(path: Path, refusal: str) -> bool:
    """True if torch refused a readable file for what its pickle would call, and not because it is broken."""
    with path.open("rb") as file:
        is_pickle = file.read(1) == b"\x80"
    return "Unsupported global" in refusal or (is_pickle and "Unsupported operand" in refusal)


class LoadWeights:
    """Handler: loads `path` into `network` before the engine's first iteration."""

    def __init__(self, network: torch.nn.Module, path: str) -> None:
        self.network, self.path = network, path

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda _: load_weights(self.network, self.path))
