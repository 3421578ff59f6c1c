"""The volumes of a run that several ranks share: cases, each whole on one rank, or the slices of each.

What is in a source is looked up by rank 0 alone. The checks of all volumes are shared, and so are the cases: a rank
takes the next one when it is free, the largest first, so that all end at about the same time. Which rank reconstructs a
case changes nothing of its result.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from ignite.engine import Engine, Events
from tqdm import tqdm

from interslice.files.case_folder import WriteCases
from interslice.files.cases import Cases
from interslice.files.failure import Terminated
from interslice.files.last_words import reason_of
from interslice.files.rank_voice import speak_as_rank
from interslice.files.series import points_of
from interslice.files.unfinished import Unfinished
from interslice.files.values import choice
from interslice.ranks import Board, agreed, all_of, end, rank, world_size

SHARED = ("cases", "slices")
"""What ranks share."""
LOOK = 0.2
"""Seconds between two looks at what the others have done."""
ALONE = 300.0
"""Seconds after which a rank that failed in a case is taken to have failed alone: what is wrong with the data, all meet
at about the same time, and then they go on with the next case."""


def shares_slices(share: str) -> bool:
    """Whether the slices of each case are shared, and not the cases; raises UsageError for what is neither."""
    return choice("share", share, SHARED) == "slices"


def handlers_of(handlers: Sequence, writes: bool) -> list:
    """Of an evaluator's handlers those of this rank: without what writes results, where another rank does."""
    return [handler for handler in handlers if writes or not isinstance(handler, WriteCases)]


class SharedCases(Cases):
    """The volumes of a run of several ranks (interslice.ranks); see `Cases`.

    Args:
        share: "cases", or "slices": then all ranks reconstruct each case together, and rank 0 writes it.
    """

    def __init__(self, source: str, preprocessing: Callable[[dict], dict], region_dir: str | None = None,
                 reader: Callable | None = None, skip_finished: bool | str = False, output_dir: str = ".",
                 deidentify: bool | str = False, mask_dir: str | None = None, guide: str | None = None,
                 share: str = "cases") -> None:  # fmt: skip
        self.together = shares_slices(share)
        self.board = Board("cases")
        super().__init__(
            source, preprocessing, region_dir, reader, skip_finished, output_dir, deidentify, mask_dir, guide
        )

    def _find(self, source: str, reader: Callable | None, deidentify: bool | str) -> list[dict]:
        found = None
        try:
            if rank() == 0:
                found = super()._find(source, reader, deidentify), self.left_out
        finally:  # for this the others wait
            found = agreed(found)
        if found is None:  # rank 0 says why
            raise SystemExit(0)
        items, self.left_out = found
        return items

    def _look_at(self, items: Sequence[dict], preprocessing: Callable[[dict], dict]) -> None:
        voxels: dict[str, int] = {}

        def counted(item: dict) -> dict:
            data = preprocessing(item)
            voxels[item["case"]] = data["image"].numel()
            return data

        super()._look_at(self._taken("look", items), counted)
        parts = all_of((self.usable, self.finished, self.refused, voxels))
        place = {item["case"]: n for n, item in enumerate(items)}
        self.usable = sorted((i for usable, *_ in parts for i in usable), key=lambda item: place[item["case"]])
        self.finished = sorted((case for _, finished, *_ in parts for case in finished), key=place.get)
        self.refused = {path: why for *_, refused, _ in parts for path, why in refused.items()}
        size = {case: number for *_, numbers in parts for case, number in numbers.items()}
        self.usable.sort(key=lambda item: -size[item["case"]])

    def _taken(self, name: str, items: Sequence[dict]) -> Iterator[dict]:
        """Of the items those that this rank is the first to take, one by one."""
        while (n := self.board.take(name)) < len(items):
            yield items[n]

    def _say_found(self, total: int) -> None:
        if rank() == 0:
            super()._say_found(total)

    def run(self, evaluator: Engine, unfinished: Unfinished | None = None, writing=None) -> None:
        """Reconstruct the usable volumes; rank 0 returns when all ranks have done theirs.

        Args:
            writing: writes the results, perhaps beside the next case; see `Cases.run`.

        Raises:
            KeyboardInterrupt: one rank says what all have written, which cases are lost, and how to go on.
            SystemExit: this rank failed alone in a case that all reconstruct together.
        """
        self._writing, self._completed = writing, []
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._completed.append)
        try:
            with self._bar():
                if self.together:
                    self._run_together(evaluator)
                else:
                    self._run_apart(evaluator)
        except KeyboardInterrupt as stop:
            status = 143 if isinstance(stop, Terminated) else 130
            with suppress(Exception, KeyboardInterrupt):
                self._post(self._ended(wait=True))
            with suppress(Exception):  # whoever kept the board may have gone
                if self.board.take("told"):  # another rank says it
                    raise SystemExit(status) from None
            speak_as_rank(aloud=True)
            raise type(stop)(self._interrupted(unfinished)) from None

    def _run_apart(self, evaluator: Engine) -> None:
        for item in self._taken("case", self.usable):
            self.board.write(f"begun/{item['case']}", str(rank()))
            self._post(self._reconstruct(item, evaluator))
        self._post(self._ended(wait=True))
        if rank() == 0:
            while self.board.taken("done") < len(self.usable):
                time.sleep(LOOK)
            for item in self.usable:
                self._note(item, self.board.read(f"done/{item['case']}"))

    def _post(self, ended: dict[str, str]) -> None:
        """Let all know what has come of cases of this rank."""
        for item in self.usable:
            if (why := ended.get(item["case"])) is None:
                continue
            if why:
                _say(f"failed {os.fspath(item['image'])}: {why}")
            self.board.write(f"done/{item['case']}", why)
            self.board.take("done")

    def _run_together(self, evaluator: Engine) -> None:
        for item in self.usable:
            case = item["case"]
            self.board.write(f"begun/{case}", str(rank()))
            ended = self._reconstruct(item, evaluator) | self._ended(wait=True)
            mine = ended.get(case, "")
            self.board.write(f"of/{rank()}/{case}", mine)
            latest = time.monotonic() + ALONE
            names = [f"of/{r}/{case}" for r in range(world_size())]
            while None in (said := [self.board.read(name) for name in names]):
                if mine and time.monotonic() > latest:
                    self.board.write("lost", case)
                    speak_as_rank(aloud=True)
                    raise SystemExit(f"error: {os.fspath(item['image'])} failed on rank {rank()} alone: {mine}")
                time.sleep(LOOK)
            if self.board.read("lost") is not None:  # that rank has said why
                raise SystemExit(1)
            why = next(filter(None, said), "")
            if why and rank() == 0:
                _say(f"failed {os.fspath(item['image'])}: {why}")
            self.board.write(f"done/{case}", why)
            self._note(item, why)

    def _reconstruct(self, item: dict, evaluator: Engine) -> dict[str, str]:
        """Reconstruct one case on this rank; returns what has ended by then, case -> why it failed, or nothing."""
        evaluator.data_loader.dataset.data = left = self._left(item)
        evaluator.state.epoch_length = len(left)
        self._completed.clear()
        failed: dict[str, str] = {}
        try:
            for _ in range(2):  # after an exception, ignite's engine begins anew in the second call
                if not self._completed:
                    evaluator.run()
        except BrokenPipeError:  # nobody reads any more what is said
            raise
        except Exception as error:  # in a case's data, in its reconstruction, or on the disk
            failed = {item["case"]: _reason(item, error)}
        if not failed and len(self._completed) < len(left):
            failed = {item["case"]: "it was not reconstructed"}
        written = {} if failed or self._writing is not None else {item["case"]: ""}
        return self._ended() | written | failed

    def _left(self, item: dict) -> list[dict]:
        """The volumes of a case that are to be reconstructed; of one that all do together, rank 0 says which."""
        if self.together and rank():
            return agreed(None)
        left = points_of(item) if self._writing is None else self._writing.left(item)
        return agreed(left) if self.together else left

    def _ended(self, wait: bool = False) -> dict[str, str]:
        """What has been written beside other cases since the last look, or failed to be."""
        found = {}
        for case, error in self._writing.ended(wait=wait) if self._writing is not None else ():
            if isinstance(error, BrokenPipeError) or (error is not None and not isinstance(error, Exception)):
                raise error
            item = next(item for item in self.usable if item["case"] == case)
            found[case] = "" if error is None else _reason(item, error)
        return found

    def _note(self, item: dict, why: str) -> None:
        if why:
            self.failed[os.fspath(item["image"])] = why
        else:
            self.written.append(item["case"])

    def _interrupted(self, unfinished: Unfinished | None) -> str:
        written, begun = [], []
        with suppress(Exception):  # as above
            for case in (item["case"] for item in self.usable):
                if (by := self.board.read(f"begun/{case}")) is None:
                    continue
                if (why := self.board.read(f"done/{case}")) is None:
                    begun.append(case if self.together else f"{case} (rank {by})")
                elif not why:
                    written.append(case)
        midst = " --resume True," if unfinished is not None and any(unfinished.folder.glob("*.pt")) else ""
        return (
            f"{len(written)} of {len(self.usable)} volumes are written to {self.output_dir}"
            + (f" ({', '.join(written)})" if written else "")
            + (f"; begun, and not written: {', '.join(begun)}" if begun else "")
            + f"; go on with{midst} --skip_finished True"
        )

    def finish(self) -> None:
        """On rank 0, as in `Cases`, for all ranks; the others end well."""
        first = rank() == 0
        end()
        if first:
            super().finish()

    @contextmanager
    def _bar(self) -> Iterator[None]:
        """On rank 0 a bar of the cases that all ranks have done; of shared slices, the sampler has one of its own."""
        if rank() or self.together:
            yield
            return
        ended = threading.Event()
        with tqdm(total=len(self.usable), desc="cases", unit="case", disable=None) as bar:

            def watch() -> None:
                while not ended.wait(LOOK):
                    bar.update(self.board.taken("done") - bar.n)

            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            try:
                yield
            finally:
                ended.set()
                watcher.join()


def _reason(item: dict, error: Exception) -> str:
    return reason_of(error).removeprefix(f"{os.fspath(item['image'])}: ") or type(error).__name__


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
