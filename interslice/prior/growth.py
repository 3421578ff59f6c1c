"""A pool that grows while it is trained on: volumes that appear in the training folder are taken in.

Files must appear whole, as those of scripts/prepare_data.py do: under a hidden name first, then renamed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from ignite.engine import Engine, Events

from interslice.files.find import find_volumes
from interslice.files.switch import is_on
from interslice.prior.pool import Entry, VolumePool
from interslice.usage import UsageError


def check_growth(grow: bool | str, validation_dir: str | Path | None) -> None:
    """Raise UsageError where new volumes would move the border between training and validation."""
    if is_on(grow, "grow") and validation_dir is None:
        raise UsageError(
            f"grow is on, got {grow!r}, and the last tenth of a growing folder is not always the same volumes: name "
            "those to validate on by --validation_dir"
        )


class Growth:
    """Handler of a trainer: at the start of each epoch, takes in what has been read, and begins to read what is new.

    Reading goes on beside the training. A volume that cannot be read is left out, which is said once.

    Args:
        pool: what is trained on.
        source: the folder, as `dataset_dir`.
        known: volumes that were found at the start, of training and validation.
        enabled: a switch, `grow`.
    """

    def __init__(self, pool: VolumePool, source: str | Path, known: Sequence[Sequence[Mapping]],
                 enabled: bool | str) -> None:  # fmt: skip
        self.pool, self.source, self.enabled = pool, source, is_on(enabled, "grow")
        self.known = {os.path.realpath(item["image"]) for item in chain(*known)}
        self.waiting: dict[Future[list[Entry]], str] = {}

    def attach(self, engine: Engine) -> None:
        if self.enabled:
            self.readers = ThreadPoolExecutor(self.pool.threads)
            engine.add_event_handler(Events.EPOCH_STARTED, self)
            engine.add_event_handler(Events.COMPLETED, self.end)

    def __call__(self) -> None:
        self.take_in()
        try:
            items = find_volumes(self.source).items
        except OSError as error:  # a drive that is away for a moment
            warnings.warn(f"no new volumes in this epoch: {error}", stacklevel=2)
            return
        for item in items:
            if len(self.waiting) >= 2 * self.pool.threads:
                return  # the rest in the next epoch: what is read waits in memory
            path = os.path.realpath(item["image"])
            if path not in self.known:
                self.known.add(path)
                self.waiting[self.readers.submit(self.pool.read, {"image": item["image"]})] = item["image"]

    def take_in(self) -> None:
        """Lay what has been read into the pool, in the order in which it was found, as far as there is memory."""
        entries = []
        for future in [f for f in self.waiting if f.done()]:
            path = self.waiting.pop(future)
            try:
                entries += future.result()
            except Exception as error:  # whatever is wrong with a file, the training goes on
                warnings.warn(f"{path} is left out: {error}", stacklevel=2)
        if entries:
            # The old tensor and the new one are there together for a moment.
            needed = 2.0 * (self.pool.levels.numel() + sum(e.levels.numel() for e in entries))
            if needed > self.pool.limits.memory(str(self.pool.device)):
                warnings.warn(f"the pool is full: {len(entries)} new volumes are left out", stacklevel=2)
                return
            self.pool.add(entries)

    def end(self) -> None:
        """Read no more."""
        self.readers.shutdown(wait=False, cancel_futures=True)
