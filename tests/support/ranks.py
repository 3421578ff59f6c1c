"""A function on several ranks at once, as torchrun would run it, without the seconds that starting Python takes."""

import multiprocessing
import os
import signal
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from ignite.engine import Events

from interslice.ranks import STARTED, end, join

PATIENCE = timedelta(seconds=60)


def on_ranks(ranks, function, folder):
    """What `function()` returns on each of so many ranks (gloo), by rank; they meet by a new file in `folder`.

    The processes are copies of this one (fork): they know what it knows, and send back what can be pickled.
    """
    context = multiprocessing.get_context("fork")
    meeting = folder / f"ranks-{ranks}-{len(list(folder.iterdir()))}"
    pipes, processes = [], []
    for rank in range(ranks):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(meeting, rank, ranks, function, send), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, which here do nothing
            process.start()
        send.close()
        pipes.append(receive)
        processes.append(process)
    try:
        answers = [pipe.recv() if pipe.poll(PATIENCE.total_seconds()) else (False, "no answer") for pipe in pipes]
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    assert all(well for well, _ in answers), "\n".join(str(said) for well, said in answers if not well)
    return [value for _, value in answers]


def _run(meeting, rank, ranks, function, send):
    torch.set_num_threads(1)
    os.environ.update(zip(STARTED, (str(rank), str(rank), str(ranks), "localhost", "0"), strict=True))
    try:
        join(dist.FileStore(str(meeting), ranks), rank, ranks, patience=PATIENCE)
        send.send((True, function()))
        end()
    except BaseException:
        send.send((False, f"rank {rank}:\n{traceback.format_exc()}"))


class LostOnce:
    """Handler: rank 1 is killed, as by the kernel, in its first case of the first run."""

    def __init__(self, mark):
        self.mark = Path(mark)

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine):
        if os.environ.get("RANK") == "1" and not self.mark.exists():
            self.mark.write_text(Path(engine.state.batch[0]["image"].meta["filename_or_obj"]).name)
            os.kill(os.getpid(), signal.SIGKILL)
