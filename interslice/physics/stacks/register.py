"""Where a stack lies in a volume: a rigid motion, found on the operator itself.

    max over T of  corr(P(T) x, y)           P(T) x: what the slices of the stack hold of the volume x in pose T

over the voxels that the volume covers, weighted by the slices' weights. A step is a small motion of six numbers q (a
turn w and a shift s, about the stack's centre c) after T. With a and b of the line that fits y = a P x + b, it solves

    (J^T J + m D) q = J^T (y - a P x - b)     J q = a (P grad x) . (w x (p - c) + s), less its mean;  D = diag(J^T J)

at the middles p of the stack's voxels, with m raised until the correlation rises (Levenberg and Marquardt). From coarse
to fine: x and y are smoothed, and of the stack's pixels, which then only say the same again, some are taken. The
coarsest level starts from several turns.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch

from interslice.physics.stacks.motion import numbers_of, rigid
from interslice.physics.stacks.others import Others
from interslice.physics.stacks.signals import correlation, smoothed, threshold_of
from interslice.physics.stacks.similarity import likeness
from interslice.physics.stacks.stack import Stack

LEVELS = (6.0, 3.0, 1.5, 0.0)
"""mm: the deviation of the smoothing of each level, and nearly the width of its pixels. The last is not smoothed: what
slices average and the volume lacks bends the smoothed ones."""
MOST = 200_000
"""Voxels of the stack that a level takes: more of them do not place it better."""
START = 9.0
"""Degrees: the coarsest level begins unturned, and turned so far to either side about each axis."""
STEPS = 15
"""Gauss-Newton steps of a level, at most."""
ENOUGH = 0.005
"""Degrees and mm, and hundredths of the level's smoothing: a smaller step ends a level."""
SAMPLE = 3.0
"""mm: what is closer says the same."""
FEWEST = 200
"""Voxels that both must hold."""


@dataclass(frozen=True)
class Found:
    """How a stack lies.

    Attributes:
        pose: (4, 4), to be applied after the poses that the stack had.
        similarity: of its anatomy and what the volume predicts, up to 1 (similarity.py).
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
        several: begin from several turns; once it is nearly known, from where it is, and finer.
    """
    pose = torch.eye(4, dtype=torch.float64)
    for level, width in enumerate(LEVELS if several else LEVELS[1:]):
        view = View(Sloped.of(others, width), stack)
        starts = [turn @ pose for turn in turns(centre_of(stack))] if several and level == 0 else [pose]
        pose = max((climb(view, start) for start in starts), key=lambda end: end[1])[0]
    return Found(pose, *likeness(others, stack.moved(poses=pose @ stack.poses)))


def turns(centre: torch.Tensor) -> list[torch.Tensor]:
    """Motions from which the coarsest level begins."""
    numbers = [torch.zeros(6, dtype=torch.float64)]
    for axis, sign in itertools.product(range(3), (-1, 1)):
        numbers.append(torch.zeros(6, dtype=torch.float64))
        numbers[-1][axis] = sign * START
    return [rigid(q, centre) for q in numbers]


def centre_of(stack: Stack) -> torch.Tensor:
    """The middle (3,) of a stack, mm, where its poses put it."""
    middle = (torch.tensor(stack.voxels.shape, dtype=torch.float64) - 1) / 2
    place = stack.affine @ torch.cat([middle, middle.new_ones(1)])
    return (stack.poses[stack.count // 2] @ place)[:3]


@dataclass(frozen=True)
class Sloped:
    """A volume under a smoothing, with its slopes.

    Attributes:
        others: as it is smoothed.
        slopes: (4, X, Y, Z) of it: itself, and how it rises along x, y and z, per mm.
        width: mm, the deviation of the smoothing; 0 for none.
    """

    others: Others
    slopes: torch.Tensor
    width: float

    @classmethod
    def of(cls, others: Others, width: float) -> Sloped:
        """Of a volume of at least two voxels along each axis; smooth ones are taken on larger voxels."""
        sizes = others.affine[:3, :3].norm(dim=0).tolist()
        others = others.coarser(int(width / (2 * max(sizes))))
        sizes = others.affine[:3, :3].norm(dim=0).tolist()
        x = smoothed(others.x, [width / size for size in sizes])
        to_voxels = torch.linalg.inv(others.affine[:3, :3]).to(x)
        slopes = torch.einsum("ga,gxyz->axyz", to_voxels, torch.stack(torch.gradient(x)))
        return cls(replace(others, x=x), torch.cat([x[None], slopes]), width)


class View:
    """A volume and a stack, smoothed alike, as a function of how the stack lies.

    Args:
        sloped: the volume.
        stack: its voxels as they were measured.
        free: (6, F) the motions that are looked for, all six by default.
        likely: degrees and mm, the deviation of motions that are expected; None where any is as likely.
    """

    def __init__(self, sloped: Sloped, stack: Stack, free: torch.Tensor | None = None,
                 likely: float | None = None) -> None:  # fmt: skip
        self.sloped, self.width, self.likely = sloped, sloped.width, likely
        self.free = torch.eye(6, dtype=torch.float64) if free is None else free
        in_plane = [0.0 if a == stack.axis else self.width / s for a, s in enumerate(stack.voxel_size)]
        self.stack = coarser(stack, smoothed(stack.voxels, in_plane), taken(stack, self.width))
        self.y = self.stack.slices.flatten()
        self.weights = self.stack.weights[:, None, None].expand(self.stack.slices.shape).flatten()
        self.subject = self.y > threshold_of(self.y)

    def moved(self, pose: torch.Tensor) -> Stack:
        """The stack in a pose."""
        return self.stack.moved(poses=pose @ self.stack.poses)

    def correlation(self, pose: torch.Tensor) -> float:
        """Over what is known; -1 where hardly anything is."""
        predicted, known = (part.flatten() for part in self.sloped.others.predicted(self.moved(pose)))
        few = int(known.sum()) < min(FEWEST, len(known) // 4)
        return -1.0 if few else correlation(predicted, self.y, self.weights * known)

    def evidence(self, pose: torch.Tensor) -> float:
        """Log of how likely the pose is, but for a constant: -n / 2 log(1 - corr^2) - |q|^2 / (2 likely^2).

        n, the samples that say something of their own, are SAMPLE mm apart in the stack's slices.
        """
        reached = self.correlation(pose)
        if self.likely is None:
            return reached
        numbers = numbers_of(pose, centre_of(self.stack))
        fit = -0.5 * self.samples * math.log(max(1 - max(reached, 0.0) ** 2, 1e-9))
        return fit - float(numbers @ numbers) / (2 * self.likely**2)

    @property
    def samples(self) -> float:
        """n, of the subject."""
        area = math.prod(self.stack.voxel_size[a] for a in self.stack.in_plane)
        return float(self.subject.sum()) * min(1.0, area / SAMPLE**2)

    def step(self, pose: torch.Tensor, damping: float) -> torch.Tensor:
        """(6,) the step of least squares from a pose."""
        moved = self.moved(pose)
        predicted, known = self.sloped.others.predicted(moved, self.sloped.slopes)
        kept = (known.flatten() & (self.weights > 0)).nonzero()[:, 0]
        predicted, *slopes = predicted.flatten(1)[:, kept].double()
        weights, y, slopes = self.weights[kept].double(), self.y[kept].double(), torch.stack(slopes, 1)
        arms = torch.deg2rad(places_of(moved)[kept] - centre_of(moved))  # turns are in degrees
        j = torch.cat([torch.linalg.cross(arms, slopes), slopes], 1) @ self.free  # g . (w x r) = w . (r x g)
        weights = weights / weights.sum()
        p, y, j = predicted - weights @ predicted, y - weights @ y, j - weights @ j
        slope = float((weights * p) @ y / ((weights * p) @ p).clamp_min(1e-12))
        j = slope * j
        normal, pull = j.mT @ (weights[:, None] * j), j.mT @ (weights * (y - slope * p))
        if self.likely is not None:
            share = (weights @ (y - slope * p).square()) / (self.samples * self.likely**2)
            normal += share * self.free.mT @ self.free
            pull -= share * self.free.mT @ numbers_of(pose, centre_of(self.stack))
        normal += torch.diag(damping * normal.diagonal() + 1e-9 * normal.diagonal().max().clamp_min(1e-12))
        return self.free @ torch.linalg.solve(normal, pull)


def places_of(stack: Stack) -> torch.Tensor:
    """(K I J, 3) the middles of a stack's voxels, mm."""
    origins, on_i, on_j, _ = stack.ways(torch.eye(4, dtype=torch.float64)).unbind(1)
    i, j = (torch.arange(n, dtype=torch.float64)[:, None] for n in stack.slices.shape[1:])
    rows = origins[:, None] + i * on_i[:, None]
    return (rows[:, :, None] + (j * on_j[:, None])[:, None]).reshape(-1, 3)


def climb(view: View, pose: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The best motion nearby, and its evidence: the correlation, where all motions are as likely."""
    reached, damping = view.evidence(pose), 1e-3
    for _ in range(STEPS if view.correlation(pose) > -1 else 0):
        step = view.step(pose, damping)
        tried = rigid(step, centre_of(view.moved(pose))) @ pose
        risen = view.evidence(tried)
        if risen < reached:
            damping *= 10
            if damping > 1e3:
                break
            continue
        pose, reached, damping = tried, risen, damping / 3
        if float(step.abs().max()) < ENOUGH + 0.01 * view.width:
            break
    return pose, reached


def taken(stack: Stack, width: float) -> list[int]:
    """Every how manieth pixel is taken along each axis of a stack: one for each `width` mm, and no more than MOST."""
    factors = [1 if a == stack.axis else max(1, int(width / s)) for a, s in enumerate(stack.voxel_size)]
    while stack.voxels.numel() / (factors[0] * factors[1] * factors[2]) > MOST:
        factors = [1 if a == stack.axis else f + 1 for a, f in enumerate(factors)]
    return factors


def coarser(stack: Stack, voxels: torch.Tensor, factors: list[int]) -> Stack:
    """The stack with every so manieth pixel of `voxels`: they are smooth."""
    starts = [(n - 1) % k // 2 for n, k in zip(voxels.shape, factors)]
    taken = voxels[tuple(slice(s, None, k) for s, k in zip(starts, factors))].contiguous()
    affine = stack.affine.clone()
    affine[:3, 3] += stack.affine[:3, :3] @ torch.tensor(starts, dtype=torch.float64)
    affine[:3, :3] = stack.affine[:3, :3] * torch.tensor(factors, dtype=torch.float64)
    return stack.moved(voxels=taken, affine=affine)
