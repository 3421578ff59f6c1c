"""DICOM series whose images share places: as many stacks as there are images at each place.

At one place images are in the order of TemporalPositionIdentifier (TemporalPositionIndex of multi-frame files), then
AcquisitionNumber, then InstanceNumber, then frame. Echoes are stacks of their own by their echo time already
(interslice.files.dicom_slice).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from interslice.files.dicom_stack import Stack

SAME_PLACE = 0.02
"""Share of the distance of slices by which images of one place may differ."""


def time_stacks(stack: Stack) -> tuple[Stack, ...]:
    """The stacks of the time points; the one stack where no places are shared, or not all by as many images."""
    places = stack.places
    if len(places) < 2 or not np.isfinite(places).all():
        return (stack,)
    steps = np.diff(places)
    if not (steps > 0.01).any():
        return (stack,)
    apart = np.flatnonzero(steps > max(SAME_PLACE * float(steps.max()), 0.01)) + 1
    groups = np.split(np.arange(len(places)), apart)
    counts = {len(group) for group in groups}
    if len(counts) > 1 or counts == {1}:
        return (stack,)
    by_time = [sorted((stack.slices[k] for k in group), key=lambda s: s.order) for group in groups]
    return tuple(replace(stack, slices=tuple(several)) for several in zip(*by_time, strict=True))


def seconds_between(stack: Stack) -> float:
    """RepetitionTime, s, which is the time from volume to volume of a series of echo-planar images; 0 if not stated."""
    try:
        value = stack.header.get("RepetitionTime")
        if value is None and stack.about is not None:
            value = stack.about.get("RepetitionTime")
        return float(value or 0) / 1000
    except (TypeError, ValueError):
        return 0.0
