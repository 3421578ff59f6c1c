"""Noise fields by name, for people and tools that choose one: `--noise matern`.

Label servers show `displayable_configs` of configs/inference.json, whose `noise` is such a name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature

from interslice.noise.auto_length import AutoLength
from interslice.noise.field import (
    IdenticalNoise,
    IndependentNoise,
    MixedNoise,
    NoiseField,
    PiecewiseSlerpNoise,
    SlerpNoise,
)
from interslice.noise.markov import MaternNoise, OrnsteinUhlenbeckNoise
from interslice.usage import UsageError

FIELDS: dict[str, Callable[..., NoiseField]] = {
    "slerp": SlerpNoise,
    "independent": IndependentNoise,
    "identical": IdenticalNoise,
    "mixed": partial(MixedNoise, share=0.9),
    "piecewise": partial(PiecewiseSlerpNoise, spacing=40.0),
    "ou": partial(OrnsteinUhlenbeckNoise, length=20.0),
    "matern": partial(MaternNoise, length=20.0),
    "auto": AutoLength,
}
"""Each builds a field with its defaults."""


def named_noise(name: str | Sequence[str], **settings) -> NoiseField:
    """The field of a name.

    Args:
        name: one of `FIELDS`. Of a list the first is taken: label servers offer a choice as a list of all names, and
            hand the whole list over where nothing was chosen.
        settings: arguments of the field, in place of the defaults.

    Raises:
        UsageError: there is no field of this name, or it has no such setting.
    """
    chosen = name[0] if isinstance(name, (list, tuple)) and name else name
    if not isinstance(chosen, str) or chosen not in FIELDS:
        raise UsageError(f"noise must be one of {', '.join(FIELDS)}, got {chosen!r}")
    for setting in settings:
        if setting not in settings_of(chosen):
            having = [field for field in FIELDS if setting in settings_of(field)]
            fix = f"{', '.join(having)} {'has' if len(having) == 1 else 'have'} it" if having else "no field has it"
            known = ", ".join(settings_of(chosen)) or "none"
            raise UsageError(f"noise {chosen} has no setting {setting} (its settings: {known}); {fix}")
    return FIELDS[chosen](**settings)


def settings_of(name: str) -> tuple[str, ...]:
    """The arguments that the field of a name takes."""
    return tuple(signature(FIELDS[name]).parameters)
