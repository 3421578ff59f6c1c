"""Refuses stacks of DICOM slices that are no whole scan, and says what they are instead."""

from __future__ import annotations

import numpy as np

from interslice.files.dicom_slice import Slice, said
from interslice.files.dicom_stack import Stack

TOLERANCE = 0.02
"""Share of the slice distance by which distances may differ, and slices lie off their line."""
MIN_RUN = 2
"""So many equal distances in a row are no accident."""


def check_stack(stack: Stack) -> None:
    """Raise ValueError, naming the places, unless all slices have one, evenly spaced on a line along their normal."""
    check_placed(stack)
    places = stack.places
    steps = np.diff(places)
    pitch = float(np.median(steps))
    check_apart(stack, places, steps, pitch)
    check_even(stack, places, steps, pitch)
    check_straight(stack, places, pitch)


def check_placed(stack: Stack) -> None:
    """Every slice says where it lies."""
    lost = [s for s in stack.slices if not np.isfinite(s.position).all()]
    if len(lost) == len(stack.slices):
        raise ValueError(
            f"{stack}: ImagePositionPatient is {said(lost[0].position)}, so that nothing says where the slices lie; "
            "export the series again"
        )
    if lost:
        raise ValueError(
            f"{stack}: ImagePositionPatient of {names(lost)} is {said(lost[0].position)}, so that where the slice lies "
            "is not known; repair the header, or fetch the series again"
        )


def check_apart(stack: Stack, places: np.ndarray, steps: np.ndarray, pitch: float) -> None:
    """No two slices share a place."""
    same = np.flatnonzero(steps < TOLERANCE * max(pitch, 0.1))
    if not same.size:
        return
    at, pair = places[same[0]], stack.slices[same[0] : same[0] + 2]
    if pair[0].instance and pair[0].instance == pair[1].instance and pair[0].frame == pair[1].frame:
        raise ValueError(
            f"{stack}: {names(pair)} have one SOPInstanceUID, {pair[0].instance}, and different pixels; take away the "
            "one that was changed"
        )
    each, left = divmod(len(places), len(places) - same.size)
    what = "several time points or weightings" if each > 1 and not left else "time points, or slices taken again"
    raise ValueError(
        f"{stack}: {int(same.size) + 1} images share a place with another, the first {at:.2f} mm along the normal "
        f"({names(pair)}); these are {what}: keep the files of one"
    )


def check_even(stack: Stack, places: np.ndarray, steps: np.ndarray, pitch: float) -> None:
    """All slices are equally far apart."""
    gaps = np.flatnonzero(np.abs(steps - pitch) > TOLERANCE * pitch)
    if not gaps.size:
        return
    parts = equal_runs(steps)
    pitches = [steps[a:b].mean() for a, b in parts]
    if parts and max(pitches) > (1 + 2 * TOLERANCE) * min(pitches):
        runs = ", then ".join(
            f"{b - a + 1} slices {apart:.2f} mm apart from {places[a]:.2f} to {places[b]:.2f} mm "
            f"({stack.slices[a].path.name} to {stack.slices[b].path.name})"
            for (a, b), apart in zip(parts, pitches)
        )
        raise ValueError(
            f"{stack}: slices lie at several distances along the normal: {runs}; these are scans of their own, or "
            "slices are missing: keep the files of one"
        )
    missing = np.round(steps[gaps] / pitch).astype(int) - 1
    where = ", ".join(f"{places[g]:.2f} and {places[g + 1]:.2f} mm" for g in gaps[:5])
    what = f"{missing.sum()} slices are missing" if missing.all() else "slices are not evenly spaced"
    raise ValueError(
        f"{stack}: {what}, between {where} along the normal, where neighbours are {pitch:.2f} mm apart; fetch "
        "the whole series"
    )


def equal_runs(steps: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) slices of each row of equal distances, of MIN_RUN at least."""
    runs, first = [], 0
    for k in range(1, len(steps) + 1):
        if k == len(steps) or abs(steps[k] - steps[first]) > TOLERANCE * steps[first]:
            if k - first >= MIN_RUN:
                runs.append((first, k))
            first = k
    return runs


def check_straight(stack: Stack, places: np.ndarray, pitch: float) -> None:
    """The slices lie on a line; one that is not along the normal, of a tilted gantry, is a sheared affine."""
    line = np.array([s.position for s in stack.slices])
    along = (places - places[0]) / (places[-1] - places[0])
    off = line - line[0] - np.outer(along, line[-1] - line[0])
    if np.abs(off).max() > max(TOLERANCE * pitch, 0.05):
        raise ValueError(
            f"{stack}: slices lie up to {np.abs(off).max():.2f} mm off a straight line; resample the series to "
            "straight slices first"
        )


def names(slices: list[Slice] | tuple[Slice, ...], most: int = 3) -> str:
    """The files of slices, and how many more there are."""
    files = [s.path.name if s.frame is None else f"frame {s.frame + 1} of {s.path.name}" for s in slices]
    return ", ".join(files[:most]) + (f" and {len(files) - most} more" if len(files) > most else "")
