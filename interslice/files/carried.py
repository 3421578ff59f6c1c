"""Objects that a tensor carries in its metadata, whole: through copies, batches and worker processes.

MONAI copies metadata deeply whenever a MetaTensor is cloned, and makes batches of it by torch's rules, which know
numbers and tensors. What is learned once and never changes, such as the operator of a measurement, is neither to be
copied nor to be taken apart.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch.utils.data._utils.collate import default_collate_fn_map

Kind = TypeVar("Kind", bound=type)


def carried(kind: Kind) -> Kind:
    """Class decorator: an object of this class, or of a subclass, stays itself in copies and batches.

    A batch holds such objects in a list; MONAI's `decollate_batch` gives each item its own back.
    """
    kind.__deepcopy__ = lambda self, _: self
    default_collate_fn_map[kind] = lambda batch, **_: [whole(value) for value in batch]
    return kind


def whole(value: object) -> np.ndarray:
    """An array without axes around an object: what `decollate_batch` unwraps and does not look into."""
    array = np.empty((), dtype=object)
    array[()] = value
    return array
