"""Brings the stacks of one patient to each other, before their volume is sampled.

    headers       where the poses begin: the identity, or what a file of poses says
    each round    every stack but the reference: a quick volume of the others that are placed; the stack's pose by
                  `register`; its intensities by `matched`. Then slices that do not fit count less (`outliers`)
    then          with `motion`, every slice for itself (`slice_motion`), and what does not fit once more

What the others say of a stack is in others.py. One that they hardly cover (OVERLAP), or do not predict (SIMILAR),
cannot be placed and is left out, by name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from monai.data import MetaTensor
from tqdm import tqdm

from interslice.files.alignment import read_poses
from interslice.files.combined import Combined
from interslice.files.doubts import add_doubts
from interslice.files.paths import path_of
from interslice.files.prepared import Preparation
from interslice.files.switch import is_on
from interslice.files.values import whole_number
from interslice.physics.measurement import operator_of
from interslice.physics.stacks.grid import no_finer
from interslice.physics.stacks.matching import Matched, matched
from interslice.physics.stacks.motion import angle_of
from interslice.physics.stacks.others import Others
from interslice.physics.stacks.outliers import named_slices, slice_weights_of
from interslice.physics.stacks.poses import given_poses
from interslice.physics.stacks.register import Found, centre_of, register
from interslice.physics.stacks.scale import measured_by
from interslice.physics.stacks.slice_motion import placed_in_plane, placed_slices
from interslice.physics.stacks.stack import Stack
from interslice.physics.stacks.stacked import StackedSlices

OVERLAP, SIMILAR = 0.2, 0.75
"""Share of a stack's subject that the others must cover, and the least similarity with what they predict."""
VOXEL = 1.0
"""mm: volumes that stacks are compared with are not finer."""
FAR_TURN, FAR_SHIFT = 30.0, 30.0
"""Degrees and mm from the header: people do not move so far and stay in the coil."""


class AlignStacksd(Preparation):
    """Aligns the stacks of measurements, matches their intensities, and weighs their slices.

    Args:
        keys: measurements of stacks (1, M), scaled.
        rounds: of registration, from 0: where the headers are right.
        motion: a switch: place every slice for itself.
        outliers: a switch: let slices that do not fit count less.
        even: a switch: divide by the smooth ratio of intensities; else by the gain alone.
        poses: a file of poses (interslice.files.alignment) that is taken in place of registration.
    """

    def __init__(self, keys, rounds: int = 2, motion: bool | str = False, outliers: bool | str = True,
                 even: bool | str = True, poses: str | None = None) -> None:  # fmt: skip
        super().__init__(keys)
        self.rounds = whole_number("rounds", rounds)
        self.motion, self.outliers = is_on(motion, "motion"), is_on(outliers, "outliers")
        self.even, self.poses = is_on(even, "even"), None if poses is None else path_of("poses", poses)
        if self.poses is not None:
            read_poses(self.poses)  # a file that is none is refused before any work

    def prepare(self, measurement: MetaTensor) -> MetaTensor:
        operator = operator_of(measurement)
        if len(operator.stacks) == 1 and not self.motion and self.poses is None:
            return measurement
        work = Work(operator, self)
        work.run()
        aligned = measured_by(measurement, work.stacks)
        simulated = Combined("simulated", tuple({"name": stack.name} for stack in operator.stacks))
        aligned.meta["combined"] = work.recorded(measurement.meta.get("combined", simulated))
        add_doubts(aligned, *work.said)
        return aligned


class Work:
    """The alignment of the stacks of one case.

    Attributes:
        stacks: as they are by now, the reference first.
        left_out: name -> why.
        said: sentences that name what is doubtful.
    """

    def __init__(self, operator: StackedSlices, settings: AlignStacksd) -> None:
        grid = no_finer(operator.domain_shape, operator.affine, VOXEL)
        self.operator, self.settings = StackedSlices(operator.stacks, *grid, operator.backend), settings
        self.stacks, self.left_out, self.said = list(operator.stacks), {}, []
        self.found: dict[str, Found] = {}
        self.matches: dict[str, Matched] = {}
        self._volumes: dict[tuple[Stack, ...], Others] = {}

    def run(self) -> None:
        """Do it, with a bar."""
        settings, before = self.settings, list(self.stacks)
        rounds = settings.rounds if settings.poses is None else 0
        if settings.poses is not None:
            self.stacks = given_poses(settings.poses, self.stacks)
        weighed = settings.outliers * (max(rounds, 1) + (rounds > 0 and settings.motion))
        steps = max(rounds, 1) * (len(before) - 1) + len(before) * (settings.motion + weighed)
        with tqdm(total=steps, desc="aligning", unit="step", leave=False, delay=2) as self.bar:
            for number in range(rounds):
                self._register(number)
                self._weigh()
            if not rounds:
                self._match()
            if settings.motion:
                self._place_slices()
            if settings.motion or not rounds:
                self._weigh()
        self._say(before)

    def _register(self, number: int) -> None:
        """One round: every stack but the reference, against the others that are placed.

        One that cannot be placed waits for those that can: with them, the others may cover it.
        """
        waiting, why = {stack.name for stack in self.stacks[1:]}, {}
        while waiting:
            before = len(self.found)
            for stack in [s for s in self.stacks[1:] if s.name in waiting]:
                self._at(f"round {number + 1}, {stack.name}")
                others = self._others(stack, {self.stacks[0].name, *self.found})
                found = register(others, stack, several=number == 0)
                if reason := misplaced(found):
                    why[stack.name] = reason
                else:
                    waiting.discard(stack.name)
                    self.found[stack.name] = found
                    self._replace(stack, self._matched(others, self._measured(stack, found.pose)))
            if number > 0 or len(self.found) == before:
                break
        for stack in [s for s in self.stacks[1:] if s.name in waiting]:
            self._leave_out(stack, why[stack.name])

    def _measured(self, stack: Stack, motion: torch.Tensor) -> Stack:
        """A stack with its own intensities, moved further than it was by now."""
        own = next(s for s in self.operator.stacks if s.name == stack.name)
        return own.moved(poses=motion @ stack.poses, weights=stack.weights)

    def _match(self) -> None:
        """Intensities of stacks that lie as they are."""
        for stack in self.stacks[1:]:
            self._at(f"intensities, {stack.name}")
            self._replace(stack, self._matched(self._others(stack), stack))

    def _matched(self, others: Others, stack: Stack) -> Stack:
        result = matched(others, stack, self.settings.even)
        self.matches[stack.name] = result
        return result.stack

    def _place_slices(self) -> None:
        for stack in list(self.stacks):
            self._at(f"slices, {stack.name}")
            alone = len(self.stacks) == 1
            self._replace(stack, placed_in_plane(stack) if alone else placed_slices(self._others(stack), stack))

    def _weigh(self) -> None:
        """All weights are found before any is set: the order of the stacks has no say."""
        if not self.settings.outliers or len(self.stacks) == 1:
            return
        weights = []
        for stack in self.stacks:
            self._at(f"outliers, {stack.name}")
            weights.append(slice_weights_of(self._others(stack), stack))
        self.stacks = [
            stack if torch.equal(stack.weights, w) else stack.moved(weights=w) for stack, w in zip(self.stacks, weights)
        ]

    def _at(self, what: str) -> None:
        self.bar.set_postfix_str(what)
        self.bar.update()

    def _others(self, stack: Stack, placed: Collection[str] | None = None) -> Others:
        """What the others say; the volumes of the last round are kept, for those that did not change in it."""
        stacks = tuple(s for s in self.stacks if s is not stack and (placed is None or s.name in placed))
        if stacks not in self._volumes:
            if len(self._volumes) >= len(self.stacks):
                del self._volumes[next(iter(self._volumes))]
            self._volumes[stacks] = Others.of(self.operator, stacks)
        return self._volumes[stacks]

    def _replace(self, old: Stack, new: Stack) -> None:
        self.stacks[next(n for n, stack in enumerate(self.stacks) if stack is old)] = new

    def _leave_out(self, stack: Stack, why: str) -> None:
        self.stacks = [s for s in self.stacks if s is not stack]
        self.found.pop(stack.name, None)
        self.left_out[stack.name] = why

    # -- what is said -----------------------------------------------------------------------------
    def _say(self, before: Sequence[Stack]) -> None:
        first = self.stacks[0].name
        self.said += [f"{name} is left out: {why}" for name, why in self.left_out.items()]
        if self.left_out and len(self.stacks) == 1:
            self.said.append(f"{first} is reconstructed by itself: no other stack could be placed")
        for stack in self.stacks:
            old = next(s for s in before if s.name == stack.name)
            turn, shift = moved_by(old, stack)
            if turn > FAR_TURN or shift > FAR_SHIFT:
                self.said.append(
                    f"{stack.name} was turned by {turn:.0f} degrees and moved by {shift:.0f} mm from where its header "
                    "puts it: look whether it lies right"
                )
            if low := named_slices(stack):
                self.said.append(f"slices of {stack.name} do not fit the other stacks, and count less: {low}")

    def recorded(self, combined: Combined) -> Combined:
        """What run.json says of the stacks, and how they were found to lie."""
        kept = {stack.name: stack for stack in self.stacks}
        headers = {stack.name: stack for stack in self.operator.stacks}
        records = [
            {**record, **self._of(headers[record["name"]], kept[record["name"]])}
            for record in combined.stacks
            if record["name"] in kept
        ]
        return replace(combined, stacks=tuple(records), left_out={**combined.left_out, **self.left_out})

    def _of(self, header: Stack, stack: Stack) -> dict:
        turn, shift = moved_by(header, stack)
        found, match = self.found.get(stack.name), self.matches.get(stack.name)
        said = {"turned_degrees": round(turn, 3), "moved_mm": round(shift, 3)}
        if found is not None:
            said |= {"similarity": round(found.similarity, 4), "overlap": round(found.overlap, 3)}
        if match is not None:
            said |= {"gain": round(match.gain, 4), "bias": round(match.bias, 3)}
        low = {str(k): round(float(w), 3) for k, w in enumerate(stack.weights, 1) if w < 1}
        return said | ({"slices_that_count_less": low} if low else {})


def misplaced(found: Found) -> str:
    """Why a stack cannot be placed, in words; "" where it can."""
    if found.overlap < OVERLAP:
        return f"the others cover {found.overlap:.0%} of it, and {OVERLAP:.0%} are needed to place it"
    if found.similarity < SIMILAR:
        return (
            f"the others do not predict it (similarity {found.similarity:.2f}, and of one head it is {SIMILAR} at "
            "least): is it of another person, or another contrast?"
        )
    return ""


def moved_by(header: Stack, stack: Stack) -> tuple[float, float]:
    """Degrees and mm by which the middle slice of a stack was moved from where its header puts it."""
    middle = stack.count // 2
    motion = stack.poses[middle] @ torch.linalg.inv(header.poses[middle])
    centre = centre_of(header)
    return angle_of(motion), float((motion[:3, :3] @ centre + motion[:3, 3] - centre).norm())
