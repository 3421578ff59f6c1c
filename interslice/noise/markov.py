"""Stationary noise fields with a length in millimetres: Ornstein-Uhlenbeck and Matern-3/2.

    Ornstein-Uhlenbeck   k(d) = exp(-d / l)                                    continuous, rough
    Matern-3/2           k(d) = (1 + sqrt(3) d / l) exp(-sqrt(3) d / l)        once differentiable

Both are Markov: with the state s(z) (the field, and for Matern its derivative) known at two places, what lies between
them depends on nothing else. So the field is refined from coarse to fine: s(0) and s(8192 mm) first, then the middle of
each interval given its two ends (Levy's construction of Brownian motion, here for a stationary process):

    s(z + h) = Phi s(z) + N(0, Q)                        Phi, Q of the step h (Rasmussen and Williams, "Gaussian
                                                         Processes for Machine Learning", 2006, section 4.2, B.2)
    s(mid) | s(left), s(right)  =  (Phi - K Phi^2) s(left) + K s(right) + N(0, Q - K Phi Q),
    K = Q Phi^T (Phi Q Phi^T + Q)^-1

Every middle has its own key. A slice at any position is reached in at most 23 halvings, whatever else is drawn: a
sub-volume, another spacing or uneven slices see the same field. Slices are reached in groups, the middles of a halving
together, in memory that does not grow with their number. Positions count to 1/1024 mm.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch

from interslice.noise.counter import keyed_normals
from interslice.noise.field import NoiseField, Scheduled, as_positions, at_level, check_positive

SPAN = 8192
"""Length of the line that fields live on, in mm."""
PARTS = 1024
"""Places per mm."""
GROUP = 1 << 22
"""Numbers of the slices that are reached together."""


class MarkovNoise(NoiseField):
    """A stationary Gaussian Markov field; subclasses state its transition.

    Args:
        length: l in mm; or two, at pure noise and at the clean image, geometric between.
    """

    state_size: int
    """Numbers that make up the state; the first is the field."""

    def __init__(self, length: Scheduled = 20.0) -> None:
        self.length = check_positive("length", length)

    @abstractmethod
    def transition(self, step: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Phi and Q, float64, of a step of `step` lengths; the stationary covariance of the state is I."""

    @abstractmethod
    def correlation(self, distance: torch.Tensor) -> torch.Tensor:
        """k of distances counted in lengths."""

    def covariance(self, positions, level=1.0):
        z = as_positions(positions)
        return self.correlation((z[:, None] - z[None, :]).abs() / at_level(self.length, level))

    def _draw(self, z, slice_shape, key, level, slices, device):
        wanted = z[slices.start : slices.stop]
        if len(wanted) and float(wanted.max()) > SPAN:
            raise ValueError(f"positions must not exceed {SPAN} mm, got {float(wanted.max()):g} mm")
        length, places = at_level(self.length, level), (wanted * PARTS).round().long().tolist()
        group = max(1, GROUP // max(1, math.prod(slice_shape)))
        field = torch.empty(len(slices), *slice_shape, device=device)
        for start in range(0, len(places), group):
            part = places[start : start + group]
            found = self._reach(part, slice_shape, key, length, device)
            for row, place in enumerate(part, start):
                field[row] = found[place]
        return field

    def _reach(self, places, slice_shape, key, length, device) -> dict[int, torch.Tensor]:
        """The field at some places (1 / PARTS mm), by place."""
        shape, rows = (self.state_size, *slice_shape), set(places)
        left, right = keyed_normals(shape, key, [0, 1], device).split(1)
        phi, q = self.transition(SPAN / length)
        right = combine((phi, torch.linalg.cholesky(q)), (left, right))
        found = {0: left[0, 0], SPAN * PARTS: right[0, 0]}
        # Of each interval that slices lie in: its left end, and the states at both.
        intervals, size = [(0, left[0], right[0])] if rows - set(found) else [], SPAN * PARTS
        depth = 0
        while intervals:
            lefts, rights = (torch.stack([states[i] for states in intervals]) for i in (1, 2))
            index = [2**depth + start // size + 1 for start, *_ in intervals]
            fresh = keyed_normals(shape, key, index, device)
            middles = combine(self._bridge(size / 2 / PARTS / length), (lefts, rights, fresh))
            size, depth, halves = size // 2, depth + 1, []
            for (start, left, right), middle in zip(intervals, middles):
                halves += [(start, left, middle), (start + size, middle, right)]
                found[start + size] = middle[0]
            intervals = [half for half in halves if any(half[0] < r < half[0] + size for r in rows)]
            found = {place: state for place, state in found.items() if place in rows}
        return found

    def _bridge(self, step: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the left end, the right end and a fresh draw add to the state in the middle, `step` from each end."""
        phi, q = self.transition(step)
        gain = torch.linalg.solve(phi @ q @ phi.T + q, phi @ q).T
        return phi - gain @ phi @ phi, gain, torch.linalg.cholesky(q - gain @ phi @ q)


class OrnsteinUhlenbeckNoise(MarkovNoise):
    """k(d) = exp(-d / l). Neighbours differ by white noise of variance 2 (1 - exp(-spacing / l))."""

    state_size = 1

    def transition(self, step):
        return (
            torch.full((1, 1), math.exp(-step), dtype=torch.float64),
            torch.full((1, 1), -math.expm1(-2 * step), dtype=torch.float64),
        )

    def correlation(self, distance):
        return torch.exp(-distance)


class MaternNoise(MarkovNoise):
    """k(d) = (1 + sqrt(3) d / l) exp(-sqrt(3) d / l): smoother than OU between neighbours, as short beyond l."""

    state_size = 2

    def transition(self, step):
        # The state is (f, f' / lambda) with lambda = sqrt(3) / l; Q = I - Phi Phi^T, written without cancellation.
        a = math.sqrt(3) * step
        decay = math.exp(-a)
        phi = decay * torch.tensor([[1 + a, a], [-a, 1 - a]], dtype=torch.float64)
        b = 2 * a
        if b < 0.5:
            tail = sum(b**k / math.factorial(k) for k in range(3, 16))  # exp(b) - 1 - b - b^2 / 2
            q11, q22 = decay**2 * tail, decay**2 * (tail + 2 * b)
        else:
            q11, q22 = 1 - decay**2 * (1 + b + b**2 / 2), 1 - decay**2 * (1 - b + b**2 / 2)
        q12 = decay**2 * b**2 / 2
        return phi, torch.tensor([[q11, q12], [q12, q22]], dtype=torch.float64)

    def correlation(self, distance):
        a = math.sqrt(3) * distance
        return (1 + a) * torch.exp(-a)


def combine(matrices, states) -> torch.Tensor:
    """The sum of matrix times state (N, state_size, ...), element by element: chunks do not change the last bit."""
    rows = []
    for i in range(len(matrices[0])):
        terms = [m[i, j].item() * s[:, j] for m, s in zip(matrices, states) for j in range(m.shape[1]) if m[i, j] != 0]
        rows.append(sum(terms[1:], terms[0]) if terms else torch.zeros_like(states[0][:, 0]))
    return torch.stack(rows, 1)
