"""Results, brought back to the scanner's intensities and orientation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import copy, deepcopy
from functools import partial

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, InvertibleTransform, MapTransform
from monai.utils import TraceKeys

from interslice.files.findings import findings_of


class Restored(MapTransform):
    """Undoes the invertible steps of the preprocessing on a result and its maps: intensities and orientation.

    The result keeps its own grid; its affine follows the orientation.

    Args:
        keys: results whose history is that of the measurement they were made from.
        preprocessing: the transforms to undo.
        image_key: the key they were applied to.
    """

    def __init__(self, keys, preprocessing: Compose, image_key: str = "image") -> None:
        super().__init__(keys)
        self.steps, self.image_key = undoable(preprocessing), image_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict:
        d = dict(data)
        for key in self.key_iterator(d):
            result = d[key]
            found = findings_of(result)
            restored = self._undo(result)
            # Label servers resize a result to the grid that these name in the metadata of its image.
            grid = {"spatial_shape": list(restored.shape[1:]), "original_affine": restored.affine.clone()}
            restored.meta |= grid
            if isinstance(d.get(self.image_key), MetaTensor):
                d[self.image_key] = d[self.image_key].clone()
                d[self.image_key].meta |= grid
            if "findings" in result.meta:
                # Maps are differences: they take the gain of the scaling, and not its offset.
                restored.meta["findings"] = found.with_maps(partial(self._map, result, restored))
            d[key] = restored
        return d

    def _map(self, result: torch.Tensor, restored: torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
        return self._undo(result - volume.to(result.device)).neg_().add_(restored)  # restored - undone

    def _undo(self, result: torch.Tensor) -> torch.Tensor:
        # The steps are undone on a history of its own, and make volumes of their own: copying this one would be waste.
        history = deepcopy(result.applied_operations)
        for step in history:
            step[TraceKeys.ID] = TraceKeys.NONE  # it was another object, of the same kind
        meta = {name: deepcopy(value) for name, value in result.meta.items() if name != "findings"}  # which hold maps
        own = [MetaTensor(result.as_tensor(), meta=meta, applied_operations=history)]
        del result  # nor is it kept until the last step, if nobody else does
        return self.steps.inverse({self.image_key: own.pop()})[self.image_key]


def undoable(preprocessing: Compose) -> Compose:
    """Copies of the invertible steps that pass over keys that are missing.

    MONAI would switch that on and off in the steps themselves, which a case that is written and the next one, that is
    read, may use at the same time.
    """
    steps = [copy(step) for step in preprocessing.flatten().transforms if isinstance(step, InvertibleTransform)]
    for step in steps:
        step.allow_missing_keys = True
    return Compose(steps)


def result_volumes(result: MetaTensor) -> dict[str, torch.Tensor]:
    """The volumes (1, X, Y, Z) of a restored result by the suffix of their files.

    "recon": the result; "std": standard deviation of the draws; "filled": what the prior filled in; "measured": what
    the measurement determines, the result less what was filled in.
    """
    volumes = {"recon": result} | dict(findings_of(result).maps)
    if "filled" in volumes:
        volumes["measured"] = result - volumes["filled"]
    return volumes
