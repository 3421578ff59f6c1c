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
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bundle.physics.stacks.motion import rigid
from bundle.physics.stacks.stack import Stack
from bundle.physics.stacks.stacked import StackedSlices

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
FEWEST = 200
"""Voxels that both must hold."""
KNOWN = 0.99
"""Share of what a voxel of a slice averages that the volume must know."""


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


def register(x: torch.Tensor, affine: torch.Tensor, stack: Stack, several: bool = True,
             measured: torch.Tensor | None = None) -> Found:  # fmt: skip
    """Find the motion of a whole stack, from where its poses put it.

    Args:
        x: (X, Y, Z) of the volume.
        affine: (4, 4) of the volume.
        stack: its voxels in the same contrast and, nearly, the same units.
        several: begin from several turns; once it is nearly known, from where it is, and finer.
        measured: (X, Y, Z), 1 where the volume is known and 0 elsewhere; known everywhere by default.
    """
    pose = torch.eye(4, dtype=torch.float64)
    for level, width in enumerate(LEVELS if several else LEVELS[1:]):
        view = View(x, affine, stack, width, measured=measured)
        starts = [turn @ pose for turn in turns(centre_of(stack))] if several and level == 0 else [pose]
        pose = max((climb(view, start) for start in starts), key=lambda end: end[1])[0]
    return Found(pose, *view.agreement(pose))


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


class View:
    """A volume and a stack, smoothed alike, as a function of how the stack lies.

    Args:
        x, affine, stack: as for `register`.
        width: mm, of the smoothing; 0 for none.
        free: (6, F) the motions that are looked for, all six by default.
        measured: as for `register`.
    """

    def __init__(self, x: torch.Tensor, affine: torch.Tensor, stack: Stack, width: float,
                 free: torch.Tensor | None = None, measured: torch.Tensor | None = None) -> None:  # fmt: skip
        self.affine, self.measured, self.width = affine, measured, width
        self.free = torch.eye(6, dtype=torch.float64) if free is None else free
        spacing = affine[:3, :3].norm(dim=0).tolist()
        self.x = smoothed(x, [width / size for size in spacing])
        slopes = torch.stack(torch.gradient(self.x)) if min(x.shape) > 1 else self.x.new_zeros(3, *x.shape)
        to_mm = torch.linalg.inv(affine[:3, :3]).to(x)
        self.with_slopes = torch.cat([self.x[None], torch.einsum("ga,gxyz->axyz", to_mm, slopes)])
        sizes = stack.voxel_size
        in_plane = [0.0 if a == stack.axis else width / s for a, s in enumerate(sizes)]
        self.stack = coarser(stack, smoothed(stack.voxels, in_plane), taken(stack, width))
        self.y = self.stack.slices.flatten()
        self.weights = self.stack.weights[:, None, None].expand(self.stack.slices.shape).flatten()
        self.subject = self.y > threshold_of(self.y)

    def operator(self, pose: torch.Tensor) -> StackedSlices:
        """What measures the volume as the stack does in this pose."""
        moved = self.stack.moved(poses=pose @ self.stack.poses, weights=torch.ones(self.stack.count), noise=0.0)
        return StackedSlices([moved], self.x.shape, self.affine)

    def known(self, operator: StackedSlices) -> torch.Tensor:
        """(M,) 1 for the stack's voxels that the volume covers."""
        known = operator.rows > 0
        return known if self.measured is None else known & (operator.forward(self.measured) > KNOWN)

    def correlation(self, pose: torch.Tensor) -> float:
        """Over what is covered; -1 where hardly anything is."""
        operator = self.operator(pose)
        known = self.known(operator)
        if int(known.sum()) < min(FEWEST, len(known) // 4):
            return -1.0
        return correlation(operator.forward(self.x), self.y, self.weights * known)

    def agreement(self, pose: torch.Tensor) -> tuple[float, float]:
        """Correlation over the subject, and the share of the subject that is covered."""
        operator = self.operator(pose)
        inside = self.known(operator) & self.subject
        share = float(inside.sum()) / max(1, int(self.subject.sum()))
        if int(inside.sum()) < FEWEST:
            return -1.0, share
        return correlation(operator.forward(self.x), self.y, self.weights * inside), share

    def step(self, pose: torch.Tensor, damping: float) -> torch.Tensor:
        """(6,) the step of least squares from a pose."""
        operator = self.operator(pose)
        kept = (self.known(operator) & (self.weights > 0)).nonzero()[:, 0]
        predicted, *slopes = operator.forward(self.with_slopes)[:, kept].double()
        weights, y, slopes = self.weights[kept].double().sqrt(), self.y[kept].double(), torch.stack(slopes, 1)
        arms = torch.deg2rad(self._places(pose)[kept] - centre_of(operator.stacks[0]))  # turns are in degrees
        # g . (w x r) = w . (r x g)
        j = torch.cat([torch.linalg.cross(arms, slopes), slopes], 1) @ self.free
        share = weights.square() / weights.square().sum()
        p, y, j = predicted - share @ predicted, y - share @ y, j - share @ j
        slope = float((share * p) @ y / ((share * p) @ p).clamp_min(1e-12))
        j = slope * j * weights[:, None]
        normal = j.mT @ j
        normal += torch.diag(damping * normal.diagonal() + 1e-9 * normal.diagonal().max().clamp_min(1e-12))
        return self.free @ torch.linalg.solve(normal, j.mT @ (weights * (y - slope * p)))

    def _places(self, pose: torch.Tensor) -> torch.Tensor:
        """(M, 3) the middles of the stack's voxels in a pose, mm."""
        stack = self.stack
        ways = stack.moved(poses=pose @ stack.poses).ways(torch.eye(4, dtype=torch.float64))
        i, j = (torch.arange(n, dtype=torch.float64)[:, None] for n in stack.slices.shape[1:])
        return (ways[:, None, None, 0] + (i * ways[:, None, 1])[:, :, None] + (j * ways[:, None, 2])[:, None]).reshape(
            -1, 3
        )


def climb(view: View, pose: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The best motion nearby, and its correlation."""
    reached, damping = view.correlation(pose), 1e-3
    for _ in range(STEPS):
        if reached <= -1:
            break
        step = view.step(pose, damping)
        tried = rigid(step, centre_of(view.stack.moved(poses=pose @ view.stack.poses))) @ pose
        risen = view.correlation(tried)
        if risen < reached:
            damping *= 10
            if damping > 1e3:
                break
            continue
        pose, reached, damping = tried, risen, damping / 3
        if float(step.abs().max()) < ENOUGH + 0.01 * view.width:
            break
    return pose, reached


def correlation(a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor) -> float:
    """Of two vectors under weights; 0 where one does not vary."""
    a, b, share = a.double(), b.double(), weights.double() / weights.double().sum().clamp_min(1e-12)
    a, b = a - share @ a, b - share @ b
    return float((share * a) @ b / (((share * a) @ a) * ((share * b) @ b)).sqrt().clamp_min(1e-12))


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
