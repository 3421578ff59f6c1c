"""How much memory ranks that share the slices of one scan may take: a figure on which all of them agree.

Where the volumes of a reconstruction lie goes by it, and that has to be the same place on all ranks, as parts of them
travel between places of one kind.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from interslice.files.shared_cases import shares_slices
from interslice.ranks import all_of


class SharedMemory:
    """Called with a device, returns bytes; where slices are shared, the least of all ranks as they began.

    All ranks have to make theirs at once; it is asked at any time.

    Args:
        memory: device -> bytes that may be taken there.
        device: of this rank.
        share: what the ranks share, "cases" or "slices".
    """

    def __init__(self, memory: Callable[[str], float], device: torch.device | str, share: str = "cases") -> None:
        self.memory, self._least = memory, None
        if shares_slices(share):
            found = all_of({torch.device(d).type: memory(str(d)) for d in ("cpu", device)})
            self._least = {kind: min(of_rank[kind] for of_rank in found) for kind in found[0]}

    def __call__(self, device: str) -> float:
        return self.memory(device) if self._least is None else self._least[torch.device(device).type]
