"""Weights of the prior: found, safe to read, and with what is needed to use them.

A file of weights is a state dict. Under "_extra_state" it says, as JSON text in a tensor of bytes, which network it is
for (`network`), the noise schedule that it was trained with (`schedule`), and the intensities and voxels that it knows
(`scale`, `grid`). So a checkpoint alone is enough, and training and inference cannot disagree. Files without it, as
version 0.4.0 wrote them, are taken to be of the shipped network's kind.
"""

from __future__ import annotations

import json
import pickle
from functools import cached_property
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.networks.schedulers import DDIMScheduler

from bundle.files.paths import path_of
from bundle.files.values import choice

EXTRA_STATE = "_extra_state"
"""torch's name for what a module keeps beside its tensors."""
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


class Weights:
    """A file of weights and what it says of itself; read when first asked for.

    Args:
        path: the file.
        kind: the intensities that the task brings, one of SCALES; None takes any.

    Attributes:
        state: the state dict.
        network: arguments of bundle.prior.network.SliceUNet.
        schedule: arguments of MONAI's DDIMScheduler.
        grid: {"spacing": mm} of the voxels that it was trained on, None if they had many.
        scale: {"kind": ...}, and for "hounsfield" the HU that become -1 and 1, "low" and "high"; {} if not said.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, holds pickled code or no state dict, or was trained on another kind of
            intensities.
    """

    def __init__(self, path: str | Path, kind: str | None = None) -> None:
        if kind is not None:
            choice("kind", kind, SCALES)
        self.path, self.kind = path_of("checkpoint", path), kind

    @cached_property
    def state(self) -> dict[str, torch.Tensor]:
        return read_state(self.path)

    @cached_property
    def about(self) -> dict:
        stated = DEFAULTS | (self._stated() if EXTRA_STATE in self.state else {})
        found = stated["scale"].get("kind")
        if self.kind is not None and found is not None and found != self.kind:
            raise ValueError(
                f"weights {self.path} were trained on {SCALES.get(found, found)}, and this task brings "
                f"{SCALES.get(self.kind, self.kind)}: set checkpoint to weights for the task"
            )
        return stated

    def _stated(self) -> dict:
        try:
            stated = decoded(self.state[EXTRA_STATE])
            if all(isinstance(value, dict) for value in (stated, *stated.values())):
                return stated
        except (ValueError, TypeError, AttributeError):
            pass
        raise ValueError(f"weights {self.path} do not say in readable words what they are for: save them again")

    @property
    def network(self) -> dict:
        return self.about["network"]

    @property
    def schedule(self) -> dict:
        return self.about["schedule"]

    @property
    def grid(self) -> dict:
        return self.about["grid"]

    @property
    def scale(self) -> dict:
        return self.about["scale"]


def encoded(about: dict) -> torch.Tensor:
    """JSON text as a tensor of bytes (N,)."""
    return torch.tensor(list(json.dumps(about).encode("utf-8")), dtype=torch.uint8)


def decoded(text: torch.Tensor) -> dict:
    """The inverse of `encoded`."""
    return json.loads(bytes(text.cpu().tolist()).decode("utf-8"))


def scheduler_for(weights: Weights, **given) -> DDIMScheduler:
    """MONAI's scheduler of the noise schedule that weights are for, without clipping; what is given goes before it."""
    return DDIMScheduler(**weights.schedule | given, clip_sample=False)


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """A state dict, or what {"model": state dict} holds; raises as `Weights` does."""
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
    return state


def load_weights(network: torch.nn.Module, weights: Weights | str | Path) -> torch.nn.Module:
    """Load weights, or the file at a path, into `network`, and return it.

    Raises:
        FileNotFoundError, ValueError: see `Weights`; or the file belongs to another architecture.
    """
    weights = weights if isinstance(weights, Weights) else Weights(weights)
    state = dict(weights.state)
    state.pop(EXTRA_STATE, None)
    about = network.state_dict().get(EXTRA_STATE)
    if about is not None:  # what the network says of itself stands
        state[EXTRA_STATE] = about
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise ValueError(
            f"weights {weights.path} belong to another architecture than network_def: {first} ..."
        ) from None
    return network


def holds_code(path: Path, refusal: str) -> bool:
    """True if torch refused a readable file for what its pickle would call, and not because it is broken."""
    with path.open("rb") as file:
        is_pickle = file.read(1) == b"\x80"
    return "Unsupported global" in refusal or (is_pickle and "Unsupported operand" in refusal)


class LoadWeights:
    """Handler: loads `weights` into `network` before the engine's first iteration."""

    def __init__(self, network: torch.nn.Module, weights: Weights | str | Path) -> None:
        self.network, self.weights = network, weights

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda _: self.load())

    def load(self) -> None:
        """Load them now: what is wrong with them is not to be found out hours later."""
        load_weights(self.network, self.weights)
