"""Where a stack lies in a volume: six numbers, found on the operator itself.

    max over q of  corr(P(q) x, y)           P(q) x: what the slices of the stack hold of the volume x in pose T(q)

over the voxels that the volume covers. With a and b the line that fits y = a P x + b, Gauss-Newton steps solve

    (J^T J + m D) dq = J^T (y - a P x - b),       J = a d(P x) / dq, less its mean;  D: the diagonal of J^T J

with m raised until the correlation rises (Levenberg and Marquardt). J is taken by differences: slices are quick. From
coarse to fine: x and y are smoothed, and the stack's pixels, which only give more of the same, are averaged. The
coarsest level starts from several turns, so that motions of 15 degrees and 10 mm are found.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from bundle.physics.stacks.motion import rigid
from bundle.physics.stacks.others import Others
from bundle.physics.stacks.stack import Stack

LEVELS = (6.0, 3.0, 1.5, 0.0)
"""mm: the deviation of the smoothing of each level, and nearly the width of its pixels. The last is not smoothed: what
slices average and the volume lacks bends the smoothed ones."""
STARTS = (0.0, 9.0)
"""Degrees: the coarsest level begins unturned, and turned so far to either side about each axis."""
STEPS = 12
"""Gauss-Newton steps of a level, at most."""
ENOUGH = (0.01, 0.005)
"""Degrees and mm: a smaller step ends a level."""
DIFFERENCE = 0.2
"""Degrees, or mm, of the differences."""
FEWEST = 200
"""Voxels that both must hold."""


@dataclass(frozen=True)
class Found:
    """How a stack lies.

    Attributes:
        pose: (4, 4), to be applied after the poses that the stack had.
        similarity: correlation of its voxels and what the volume predicts, over the subject.
        overlap: share of its subject that the volume covers.
    """

    pose: torch.Tensor
    similarity: float
    overlap: float


def register(others: Others, stack: Stack, several: bool = True) -> Found:
    """Find the motion of a whole stack, from where its poses put it.

    Args:
        others: the volume.
        stack: its voxels in the same contrast.
        several: begin from several turns; once it is nearly known, from where it is.
    """
    centre = centre_of(stack)
    numbers = torch.zeros(6, dtype=torch.float64)
    for level, width in enumerate(LEVELS):
        view = View(others, stack, centre, width)
        starts = turned(numbers) if several and level == 0 else [numbers]
        numbers = max((climb(view, start) for start in starts), key=lambda end: end[1])[0]
    return Found(rigid(numbers, centre), *view.agreement(numbers))


def turned(numbers: torch.Tensor) -> list[torch.Tensor]:
    """Where the coarsest level begins."""
    out = [numbers]
    for axis, sign in itertools.product(range(3), (-1, 1)):
        out.append(numbers.clone())
        out[-1][axis] += sign * STARTS[1]
    return out


def centre_of(stack: Stack) -> torch.Tensor:
    """The middle (3,) of a stack, mm, where its poses put it."""
    middle = (torch.tensor(stack.voxels.shape, dtype=torch.float64) - 1) / 2
    place = stack.affine @ torch.cat([middle, middle.new_ones(1)])
    return (stack.poses[stack.count // 2] @ place)[:3]


class View:
    """A volume and a stack, smoothed alike, as a function of how the stack lies.

    Args:
        others, stack: as for `register`.
        centre: of the motions.
        width: mm, of the smoothing; 0 for none.
        free: (6, F) the motions that are looked for; all six by default.
    """

    def __init__(self, others: Others, stack: Stack, centre: torch.Tensor, width: float,
                 free: torch.Tensor | None = None) -> None:  # fmt: skip
        self.centre, self.free = centre, torch.eye(6, dtype=torch.float64) if free is None else free
        sizes = others.affine[:3, :3].norm(dim=0).tolist()
        self.others = replace(others, x=smoothed(others.x, [width / size for size in sizes]))
        in_plane = [0.0 if a == stack.axis else width / s for a, s in enumerate(stack.voxel_size)]
        factors = [1 if a == stack.axis else max(1, int(width / s)) for a, s in enumerate(stack.voxel_size)]
        self.stack = coarser(stack, smoothed(stack.voxels, in_plane), factors)
        self.y = self.stack.slices.flatten()
        self.subject = self.y > threshold_of(self.y)

    def predicted(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(M,) P x, and where it is known."""
        moved = self.stack.moved(poses=rigid(numbers, self.centre) @ self.stack.poses)
        predicted, known = self.others.predicted(moved)
        return predicted.flatten(), known.flatten()

    def correlation(self, numbers: torch.Tensor) -> float:
        """Over what is known; -1 where hardly anything is."""
        predicted, known = self.predicted(numbers)
        return correlation(predicted[known], self.y[known]) if int(known.sum()) >= FEWEST else -1.0

    def agreement(self, numbers: torch.Tensor) -> tuple[float, float]:
        """Correlation over the subject, and the share of the subject that is covered."""
        predicted, known = self.predicted(numbers)
        inside = known & self.subject
        share = float(inside.sum()) / max(1, int(self.subject.sum()))
        return (correlation(predicted[inside], self.y[inside]) if int(inside.sum()) >= FEWEST else -1.0), share

    def step(self, numbers: torch.Tensor, damping: float) -> torch.Tensor:
        """The Gauss-Newton step."""
        predicted, known = self.predicted(numbers)
        columns = []
        for by in DIFFERENCE * self.free.mT:
            (ahead, there), (behind, here) = self.predicted(numbers + by), self.predicted(numbers - by)
            known = known & there & here  # what comes in or goes out is no slope
            columns.append((ahead - behind) / (2 * DIFFERENCE))
        p, y = predicted[known].double(), self.y[known].double()
        p, y = p - p.mean(), y - y.mean()
        slope = float(p @ y / (p @ p).clamp_min(1e-12))
        j = slope * torch.stack([column[known].double() for column in columns], 1)
        j -= j.mean(0)
        normal = j.mT @ j
        normal += torch.diag(damping * normal.diagonal() + 1e-9 * normal.diagonal().max())
        return self.free @ torch.linalg.solve(normal, j.mT @ (y - slope * p))


def climb(view: View, numbers: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The nearest best motion, and its correlation."""
    reached, damping = view.correlation(numbers), 1e-3
    for _ in range(STEPS):
        if reached <= -1:
            break
        step = view.step(numbers, damping)
        tried = view.correlation(numbers + step)
        if tried < reached:
            damping *= 10
            if damping > 1e3:
                break
            continue
        numbers, reached, damping = numbers + step, tried, damping / 3
        if float(step[:3].abs().max()) < ENOUGH[0] and float(step[3:].abs().max()) < ENOUGH[1]:
            break
    return numbers, reached


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of two vectors; 0 where one does not vary."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    return float(a @ b / (a.norm() * b.norm()).clamp_min(1e-12))


def threshold_of(y: torch.Tensor) -> float:
    """Between air and the subject: a quarter of the way from the lowest to the bright values."""
    low, high = (float(v) for v in torch.quantile(y[:: max(1, len(y) // 100_000)], torch.tensor([0.01, 0.98])))
    return low + 0.15 * (high - low)


def smoothed(volume: torch.Tensor, deviations: list[float]) -> torch.Tensor:
    """(X, Y, Z) under a Gaussian of these deviations (voxels) along its axes; its border is repeated."""
    for axis, deviation in enumerate(deviations):
        if deviation <= 0.1 or volume.shape[axis] == 1:
            continue
        reach = max(1, int(3 * deviation))
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2).to(volume)
        lines = volume.movedim(axis, -1)
        flat = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="replicate")
        flat = F.conv1d(flat, (kernel / kernel.sum())[None, None])
        volume = flat.reshape(lines.shape).movedim(-1, axis)
    return volume


def coarser(stack: Stack, voxels: torch.Tensor, factors: list[int]) -> Stack:
    """The stack with every so manieth pixel of `voxels`: they are smooth."""
    starts = [(n - 1) % k // 2 for n, k in zip(voxels.shape, factors)]
    taken = voxels[tuple(slice(s, None, k) for s, k in zip(starts, factors))].contiguous()
    affine = stack.affine.clone()
    affine[:3, 3] += stack.affine[:3, :3] @ torch.tensor(starts, dtype=torch.float64)
    affine[:3, :3] = stack.affine[:3, :3] * torch.tensor(factors, dtype=torch.float64)
    return stack.moved(voxels=taken, affine=affine)
