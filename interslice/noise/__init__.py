"""Noise fields: the random draws of all slices of a volume, as one field along the slice axis."""

from interslice.noise.auto_length import AutoLength
from interslice.noise.counter import Key, Purpose, keyed_normal, keyed_normals
from interslice.noise.field import (
    IdenticalNoise,
    IndependentNoise,
    MixedNoise,
    NoiseByAxis,
    NoiseField,
    PiecewiseSlerpNoise,
    SlerpNoise,
)
from interslice.noise.markov import MarkovNoise, MaternNoise, OrnsteinUhlenbeckNoise
from interslice.noise.named import named_noise

__all__ = [
    "AutoLength", "IdenticalNoise", "IndependentNoise", "Key", "MarkovNoise", "MaternNoise", "MixedNoise",
    "NoiseByAxis", "NoiseField", "OrnsteinUhlenbeckNoise", "PiecewiseSlerpNoise", "Purpose", "SlerpNoise",
    "keyed_normal", "keyed_normals", "named_noise",
]  # fmt: skip
