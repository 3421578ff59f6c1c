"""What is doubtful about the stacks of one volume, in words: for the screen, run.json and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interslice.physics.stacks.members import Taken
from interslice.physics.stacks.placed import are_alike, plane_of

COARSE = 1.5
"""Times the grid's voxels that a stack's may be wide: within its slices a voxel is a point of the volume."""


def doubts_about(stacks: Sequence[Taken], left_out: Mapping[str, str], spacing: float) -> list[str]:
    """Sentences that name what was found.

    Args:
        stacks: those that make the volume, the reference first.
        left_out: name -> why, of the others.
        spacing: of the grid, mm.
    """
    said = [f"{name} is left out: {why}" for name, why in left_out.items()]
    said += [f"{one.name}: {sentence}" for one in stacks for sentence in one.said]
    if len(stacks) == 1:
        said += [f"{stacks[0].name} is the only stack: --reference names another one"] if left_out else []
    elif are_alike([one.stack.normal.numpy() for one in stacks]):
        plane = plane_of(stacks[0].stack.normal.numpy())
        said.append(
            f"all {len(stacks)} stacks are {plane}: what one does not resolve across its slices the others do not "
            "either, so that they add less than one of another orientation would"
        )
    whose = {one.name: one.member.whose for one in stacks if one.member.whose}
    if len(set(whose.values())) > 1:
        first = next(iter(whose))
        others = [name for name, said_of in whose.items() if said_of != whose[first]]
        said.append(
            f"by header or name {', '.join(others)} {'are' if len(others) > 1 else 'is'} of another patient or another "
            f"day than {first}"
        )
    if frames := contradiction(stacks):
        said.append(
            f"the headers place the stacks in different frames of reference ({frames}), so that how they lie to each "
            "other is not known: registration is required (--rounds above 0)"
        )
    said += [
        f"{one.name} has voxels {one.in_plane:.3g} mm wide in its slices, the grid's are {spacing:.3g} mm: it blurs "
        "within its slices, which is not accounted for"
        for one in stacks
        if one.in_plane > COARSE * spacing
    ]
    said += [f"{one.name} has no thick axis, and is taken as slices {one.stack.pitch:.3g} mm thick"
             for one in stacks if not one.thick]  # fmt: skip
    joined = [one for one in stacks[1:] if one.member.contrast.name is None and stacks[0].member.contrast.name]
    said += [f"{one.name}: its contrast is not stated, and is taken to be {stacks[0].member.contrast.name}"
             for one in joined]  # fmt: skip
    return said


def contradiction(stacks: Sequence[Taken]) -> str:
    """Frames of reference that differ, in words; "" where none is contradicted.

    FrameOfReferenceUIDs of DICOM are compared with each other, and spaces of NIfTI headers, too; a converter keeps no
    UID, so that a NIfTI of the scanner's space contradicts no DICOM.
    """
    dicom = {one.stack.frame for one in stacks if one.member.frame}
    others = {one.stack.frame or "the scanner's" for one in stacks if not one.member.frame}
    if dicom and others - {"the scanner's"}:
        others |= {"the scanner's"}
    differ = [f"{len(dicom)} FrameOfReferenceUIDs"] if len(dicom) > 1 else []
    differ += [", ".join(sorted(others))] if len(others) > 1 else []
    return "; ".join(differ)
