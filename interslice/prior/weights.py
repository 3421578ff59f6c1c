"""Weights of the prior: found, safe to read, and with what is needed to use them.

A file of weights is a state dict. Under "_extra_state" it says, as JSON text in a tensor of bytes, which network it is
for (`network`), the noise schedule that it was trained with (`schedule`), and the intensities and voxels that it knows
(`scale`, `grid`). So a checkpoint alone is enough, and training and inference cannot disagree. Files without it, as
version 0.4.0 wrote them, are taken to be of the shipped network's kind.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.networks.schedulers import DDIMScheduler

from interslice.files.paths import path_of
from interslice.files.values import choice, number
from interslice.prior.stated import DEFAULTS, EXTRA_STATE, SCALES, check_stated, decoded, encoded
from interslice.prior.weights_file import LARGEST, PREFIXES, read_state

__all__ = ["DEFAULTS", "EXTRA_STATE", "SCALES", "LoadWeights", "Weights", "check_fits", "encoded", "load_weights",
           "read_state", "scheduler_for", "start_from"]  # fmt: skip

NAMED = 3
"""Names of tensors that a refusal gives; it counts the others."""


class Weights:
    """A file of weights and what it says of itself; read when first asked for.

    Args:
        path: the file.
        kind: the intensities that the task brings, one of SCALES; None takes any.
        largest: limit in GB of what the weights take, in the file and unpacked.

    Attributes:
        state: the state dict.
        network: arguments of interslice.prior.network.SliceUNet.
        schedule: arguments of MONAI's DDIMScheduler.
        grid: {"spacing": mm} of the voxels that it was trained on, None if they had many.
        scale: {"kind": ...}, and for "hounsfield" the HU that become -1 and 1, "low" and "high"; {} if not said.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no state dict of finite numbers (interslice.prior.weights_file), says of itself what
            cannot be (interslice.prior.stated), or was trained on another kind of intensities.
    """

    def __init__(self, path: str | Path, kind: str | None = None, largest: float = LARGEST) -> None:
        if kind is not None:
            choice("kind", kind, SCALES)
        self.largest = number("largest", largest, above=0, kind="a number of GB")
        self.path, self.kind = path_of("checkpoint", path), kind

    @cached_property
    def state(self) -> dict[str, torch.Tensor]:
        return read_state(self.path, self.largest)

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
        except ValueError:
            raise ValueError(
                f"weights {self.path} do not say in readable words what they are for: save them again"
            ) from None
        try:
            check_stated(DEFAULTS | stated)
        except ValueError as error:
            raise ValueError(
                f"weights {self.path} say of themselves what cannot be: {error!s:.300}; save them again"
            ) from None
        return stated

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


def scheduler_for(weights: Weights, **given) -> DDIMScheduler:
    """MONAI's scheduler of the noise schedule that weights are for, without clipping; what is given goes before it."""
    return DDIMScheduler(**weights.schedule | given, clip_sample=False)


def load_weights(network: torch.nn.Module, weights: Weights | str | Path) -> torch.nn.Module:
    """Load weights, or the file at a path, into `network`, and return it.

    Raises:
        FileNotFoundError, ValueError: see `Weights`; or the file belongs to another architecture.
    """
    weights = weights if isinstance(weights, Weights) else Weights(weights)
    state = check_fits(network, weights)
    # What the network, or a module in it, says of itself stands.
    state |= {name: about for name, about in network.state_dict().items() if _is_extra(name)}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # modules may have rules of their own
        raise ValueError(f"{_other(weights)}: {' '.join(str(error).split())[:300]} ...") from None
    return network


def start_from(network: torch.nn.Module, pretrained: Weights | str | Path | None, kind: str | None = None
               ) -> torch.nn.Module:  # fmt: skip
    """`network` with the weights that its training goes on from: a file, or None for a training from nothing.

    Raises:
        FileNotFoundError, ValueError: see `load_weights`; or the weights know another noise schedule or other
            intensities than the network is to be trained with.
    """
    if pretrained is None:
        return network
    weights = pretrained if isinstance(pretrained, Weights) else Weights(path_of("pretrained", pretrained), kind)
    about = getattr(network, "about", {})
    for name in ("schedule", "scale"):
        before, now = (dict(a.get(name) or {}) for a in (weights.about, about))
        if before and now and before != now:
            raise ValueError(f"weights {weights.path} were trained with {name} {before}, and this training has {now}")
    return load_weights(network, weights)


def check_fits(network: torch.nn.Module, weights: Weights) -> dict[str, torch.Tensor]:
    """The tensors of weights under the names of `network`: none missing, left over, or of another shape or kind.

    The network may be on torch's "meta" device, without numbers. Raises ValueError, which names the first few.
    """
    expected = {name: t for name, t in network.state_dict().items() if not _is_extra(name)}
    state = {name: t for name, t in weights.state.items() if not _is_extra(name)}
    for prefix in PREFIXES:  # a network that is wrapped itself
        if expected and all(name.startswith(prefix) for name in expected) and not expected.keys() & state.keys():
            state = {prefix + name: tensor for name, tensor in state.items()}
    missing, surplus = ([n for n in a if n not in b] for a, b in ((expected, state), (state, expected)))
    both = [n for n in expected if n in state and isinstance(expected[n], torch.Tensor)]
    shaped = [n for n in both if expected[n].shape != state[n].shape]
    said = [f"they lack {_listed(missing)}"] if missing else []
    said += [f"they have {_listed(surplus)} besides"] if surplus else []
    if shaped:
        there, asked = (list(tensors[shaped[0]].shape) for tensors in (state, expected))
        said.append(
            f"{_listed(shaped)} {'differs' if len(shaped) == 1 else 'differ'}, first {there} in place of {asked}"
        )
    if said:
        raise ValueError(f"{_other(weights)}: {'; '.join(said)}")
    kinds = [n for n in both if expected[n].is_floating_point() != state[n].is_floating_point()]
    if kinds:
        kind = str(state[kinds[0]].dtype).removeprefix("torch.")
        raise ValueError(
            f"weights {weights.path}: {_listed(kinds)} of the type {kind} in place of floating-point numbers: save the "
            "network as it was trained"
        )
    return state


def _is_extra(name: str) -> bool:
    return name.rpartition(".")[2] == EXTRA_STATE


def _other(weights: Weights) -> str:
    return f"weights {weights.path} belong to another architecture than network_def"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(name[:80] for name in names[:NAMED]) + more


class LoadWeights:
    """Handler: loads `weights` into `network` before the engine's first iteration.

    That they fit is checked when it is made, before any volume is read. Raises as `load_weights` does.
    """

    def __init__(self, network: torch.nn.Module, weights: Weights | str | Path) -> None:
        self.network, self.weights = network, weights if isinstance(weights, Weights) else Weights(weights)
        check_fits(self.network, self.weights)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda _: self.load())

    def load(self) -> None:
        """Load them now: what is wrong with them is not to be found out hours later."""
        load_weights(self.network, self.weights)
