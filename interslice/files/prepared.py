"""Work on a measurement that takes its time, such as a registration: done when its case is reconstructed.

Every case of a run is read once to be checked, before the first is reconstructed, and again when it is its turn
(interslice.files.cases). A `Preparation` is passed over in the check, so that it is done once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping

from monai.data import MetaTensor
from monai.transforms import MapTransform

ONLY_CHECKED = "only_checked"
"""Key of the data of a case that is read to be checked."""


class Preparation(MapTransform, ABC):
    """A transform of measurements for the config's list `prepare`; see above."""

    def __call__(self, data: Mapping[Hashable, object]) -> dict:
        d = dict(data)
        if not d.get(ONLY_CHECKED):
            for key in self.key_iterator(d):
                d[key] = self.prepare(d[key])
        return d

    @abstractmethod
    def prepare(self, measurement: MetaTensor) -> MetaTensor:
        """The measurement as it is to be reconstructed."""
