"""States of unfinished reconstructions: saved when it is worth it, used when they are right, gone when not needed."""

import gc
import os
import re
import shutil
import time
import weakref
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine, Events

from interslice.files import state_file, unfinished
from interslice.files.state_file import check_plain, read_state, size_of, write_state
from interslice.files.unfinished import FOLDER, Unfinished
from tests.support.helpers import normal, repeatable
from tests.support.scans import Marker, cut_short

CPU = torch.device("cpu")
MINUTE = 60.0


def state(done=1, **others):
    return {"done": done, "x": normal(3, 4, 5), "memory": {(-3,): (normal(2), normal(2))}, "squares": None} | others


def begin(keeper, measurement="scan", settings="settings", total=10):
    return keeper.begin(measurement, settings, total, CPU)


def kept(folder, done=5, **of_run):
    """The file of a run that was interrupted after `done` steps."""
    keeper = Unfinished(folder, save_minutes=0)
    begin(keeper, **of_run)
    keeper.offer(state(done))
    (path,) = keeper.begun
    return path


class Watch:
    """A clock that goes on when it is told to, and what was saved at which time."""

    def __init__(self, monkeypatch, minutes=5.0, first=0):
        self.now, self.saved = 1000.0, []
        monkeypatch.setattr(unfinished.time, "monotonic", lambda: self.now)
        self.keeper = Unfinished("nowhere", save_minutes=minutes)
        self.keeper._save = lambda state: self.saved.append(state["done"])
        self.keeper._found = lambda device: {"done": first} if first else None

    def run(self, steps, first=0):
        """Steps of so many seconds each; returns (when, steps done) of each save, when in seconds from the start."""
        start, saves = self.now, []
        begin(self.keeper, total=first + len(steps))
        for i, seconds in enumerate(steps, first + 1):
            self.now += seconds
            self.keeper.offer({"done": i})
            if self.saved[-1:] == [i]:
                saves.append((self.now - start, i))
        return saves


@pytest.fixture
def patched():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


# -- when ---------------------------------------------------------------------------------------------------


@repeatable
@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=30))
def test_a_run_that_is_shorter_than_the_interval_saves_nothing(steps):
    with pytest.MonkeyPatch.context() as patch:
        total = sum(steps)
        assert Watch(patch, total / MINUTE * 1.001).run(steps) == []
        assert Watch(patch, None).run(steps) == []


@repeatable
@given(seconds=st.floats(0.5, 1000), count=st.integers(2, 60), minutes=st.floats(0, 20))
def test_steady_steps_are_saved_so_that_little_is_lost(seconds, count, minutes):
    """At any time no more than the interval and a step is not saved, but towards the end, where little is left."""
    with pytest.MonkeyPatch.context() as patch:
        saves = Watch(patch, minutes).run([seconds] * count)
    times, interval = [0.0, *(when for when, _ in saves)], minutes * MINUTE
    for before, after in zip(times, times[1:-1]):
        assert interval - 1e-6 <= after - before <= interval + seconds + 1e-6
    if seconds * count >= interval * 1.001:
        assert saves[-1][1] == count  # what is finished is kept until it is written
        others = times[:-1]
        assert seconds * count - others[-1] <= 2 * (interval + seconds) + 1e-6


@pytest.mark.parametrize("minutes", [0, 0.0])
def test_no_interval_saves_every_step(minutes, patched):
    assert [done for _, done in Watch(patched, minutes).run([0.0] * 4)] == [1, 2, 3, 4]


def test_the_time_that_is_left_counts_from_where_the_run_went_on(patched):
    """Ten steps of two minutes are left of a thousand: it is those that took the time."""
    saves = Watch(patched, 5, first=990).run([120.0] * 10, first=990)
    assert saves == [(360.0, 993), (720.0, 996), (1200.0, 1000)]


@pytest.mark.parametrize("minutes", [-1, float("nan"), float("inf"), "x", True, [5]])
def test_an_interval_is_a_number_of_minutes(minutes):
    with pytest.raises(ValueError, match="save_minutes must be a number of minutes from 0"):
        Unfinished("nowhere", save_minutes=minutes)


# -- which --------------------------------------------------------------------------------------------------


def test_a_state_comes_back_as_it_was(tmp_path, capsys):
    path, told = kept(tmp_path), state(5)
    found = begin(Unfinished(tmp_path, resume=True))
    assert f"going on after 5 of 10 steps, saved in {path}" in capsys.readouterr().err
    assert found.keys() == told.keys() and torch.equal(found["x"], told["x"])
    assert all(torch.equal(a, b) for a, b in zip(found["memory"][(-3,)], told["memory"][(-3,)]))


@pytest.mark.parametrize(
    ("of_run", "said"),
    [
        ({"measurement": "another"}, "nothing to resume in .*unfinished: the reconstruction begins anew"),
        ({"settings": "others"}, "but for this scan with other settings, weights or versions: the reconstruction"),
    ],
)
def test_a_state_of_something_else_is_not_used(of_run, said, tmp_path, capsys):
    kept(tmp_path)
    keeper = Unfinished(tmp_path, resume=True)
    assert begin(keeper, **of_run) is None
    assert re.search(said, capsys.readouterr().err)


def test_other_versions_are_something_else(tmp_path, monkeypatch):
    kept(tmp_path)
    keeper = Unfinished(tmp_path, resume=True)
    monkeypatch.setattr(unfinished, "of_versions", lambda: "of tomorrow")
    assert begin(keeper) is None


def test_without_a_state_a_run_begins_and_says_so(tmp_path, capsys):
    assert begin(Unfinished(tmp_path, resume=True)) is None
    assert "nothing to resume in" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_another_number_of_threads_is_said(tmp_path, capsys, monkeypatch):
    kept(tmp_path)
    monkeypatch.setattr(unfinished, "where", lambda device: "7 threads of an abacus")
    assert begin(Unfinished(tmp_path, resume=True))["done"] == 5
    assert "the others will be on 7 threads of an abacus: rounding differs" in capsys.readouterr().err


def test_a_run_that_does_not_resume_says_what_there_is_and_does_not_undo_it(tmp_path, capsys):
    path = kept(tmp_path, done=5)
    keeper = Unfinished(tmp_path, save_minutes=0)
    assert begin(keeper) is None
    assert f"5 of 10 steps are saved in {path}: --resume True goes on from there" in capsys.readouterr().err
    keeper.offer(state(3))
    assert read_state(path, CPU)[0]["done"] == 5
    keeper.offer(state(6))
    assert read_state(path, CPU)[0]["done"] == 6


# -- damage -------------------------------------------------------------------------------------------------


@repeatable
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_file_in_which_one_bit_is_wrong_is_right_or_refused(where, bit, tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "state.pt"
    write_state(path, state(), "here")
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        found, there = read_state(path, CPU)
    except ValueError as error:
        assert str(error) == f"{path} is damaged"
    else:  # a byte that nothing depends on, such as a date
        assert torch.equal(found["x"], state()["x"]) and there == "here"


@pytest.mark.parametrize("damage", [lambda p: cut_short(p), lambda p: p.write_bytes(b""), lambda p: torch.save([], p),
                                    lambda p: torch.save({"state": Marker(p.with_name("ran"))}, p)])  # fmt: skip
def test_damage_is_said_and_the_case_begins_anew(damage, tmp_path, capsys):
    path = kept(tmp_path)
    damage(path)
    keeper = Unfinished(tmp_path, resume=True, save_minutes=0)
    assert begin(keeper) is None
    assert f"{path} is damaged and is not used\nnothing to resume" in capsys.readouterr().err
    keeper.offer(state(1))
    assert read_state(path, CPU)[0]["done"] == 1
    assert not (path.parent / "ran").exists()


# -- a disk that is full, or closed ---------------------------------------------------------------------------


def raising(error):
    def refuse(*_, **__):
        raise error

    return refuse


FAILURES = {
    "full": (torch, "save", raising(OSError(28, "No space left on device")), "No space left"),
    "torch": (torch, "save", raising(RuntimeError("PytorchStreamWriter failed")), "PytorchStreamWriter failed"),
    "closed": (state_file, "written_whole", raising(PermissionError(13, "Permission denied")), "Permission denied"),
    "nearly full": (shutil, "disk_usage", lambda _: SimpleNamespace(free=100), "0.0 GB are free"),
    "untold": (unfinished, "digest", raising(TypeError("no attributes")), "no attributes"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_what_cannot_be_saved_is_said_once_and_the_run_goes_on(failure, tmp_path, capsys, monkeypatch):
    keeper = Unfinished(tmp_path, save_minutes=0)
    begin(keeper)
    owner, name, fails, why = FAILURES[failure]
    with monkeypatch.context() as broken:
        broken.setattr(owner, name, fails)
        for done in (1, 2, 3):
            keeper.offer(state(done))
    said = capsys.readouterr().err
    assert said.count("cannot be saved") == 1 and why in said
    assert not list(tmp_path.rglob("*.pt")) and not keeper.kept
    keeper.offer(state(4))  # there is room again
    assert keeper.kept


def test_a_state_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    path = kept(tmp_path, done=5)
    keeper = Unfinished(tmp_path, resume=True, save_minutes=0)
    begin(keeper)
    monkeypatch.setattr(torch, "save", raising(OSError(28, "No space left on device")))
    keeper.offer(state(6))
    assert read_state(path, CPU)[0]["done"] == 5
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_read_ends_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Unfinished, "_say_old", raising(PermissionError(13, "Permission denied")))
    assert begin(Unfinished(tmp_path, resume=True)) is None
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("value", [{"a": Marker("x")}, [torch.nn.Parameter(torch.zeros(1))], {1: {2: object()}}])
def test_what_could_not_be_read_again_is_not_written(value, tmp_path):
    with pytest.raises(TypeError, match="not a tensor, a number, text, or a list of these"):
        check_plain(value)
    with pytest.raises(TypeError):
        write_state(tmp_path / "state.pt", state(memory=value), "here")
    assert not list(tmp_path.iterdir())


def test_sizes_count_every_tensor():
    assert size_of({"a": torch.zeros(4), "b": [(torch.zeros(2, dtype=torch.float64),), 3, None]}) == 32


# -- until the results are written ----------------------------------------------------------------------------


def engine_of(keeper, cases, fails=()):
    """An engine that reconstructs cases, and whose writer, attached before the keeper, fails for some of them."""
    there = []

    def step(engine, case):
        begin(keeper, measurement=case)
        for done in (1, 10):
            keeper.offer(state(done))
        return case

    def write(engine):
        there.append(keeper.kept)
        if engine.state.output in fails:
            raise OSError("disk full")

    engine = Engine(step)
    engine.add_event_handler(Events.ITERATION_COMPLETED, write)
    keeper.attach(engine)
    return SimpleNamespace(run=lambda: engine.run(cases, max_epochs=1), there=there)


def test_a_state_is_there_until_the_case_is_written(tmp_path):
    keeper = Unfinished(tmp_path, save_minutes=0)
    run = engine_of(keeper, ["a", "b"])
    run.run()
    assert run.there == [True, True] and not keeper.kept
    assert not list(tmp_path.iterdir())
    run.run()
    assert run.there == [True] * 4 and not list(tmp_path.iterdir())


def test_the_state_of_a_case_that_failed_stays_whatever_comes_after(tmp_path):
    keeper = Unfinished(tmp_path, save_minutes=0)
    with pytest.raises(OSError):
        engine_of(keeper, ["bad"], fails=["bad"]).run()
    assert keeper.kept
    engine_of(keeper, ["good"]).run()
    (path,) = (tmp_path / FOLDER).iterdir()
    assert not keeper.kept and read_state(path, CPU)[0]["done"] == 10
    assert begin(Unfinished(tmp_path, resume=True), "bad")["done"] == 10


def test_halves_that_a_kill_has_left_go_with_the_state(tmp_path):
    path = kept(tmp_path)
    half = path.with_name(f".partial-1-{path.name}")
    half.write_bytes(b"half")
    keeper = Unfinished(tmp_path, resume=True, save_minutes=0)
    begin(keeper)
    keeper.offer(state(6))
    assert not half.exists()
    half.write_bytes(b"half")
    keeper.forget()
    assert not list(tmp_path.iterdir())
    half.parent.mkdir()
    half.write_bytes(b"of a run that was killed while it saved for the first time")
    keeper = Unfinished(tmp_path, resume=True)
    assert begin(keeper) is None
    keeper.forget()
    assert not list(tmp_path.iterdir())


def test_old_states_are_named_once_and_left(tmp_path, capsys):
    path = kept(tmp_path)
    capsys.readouterr()
    begin(Unfinished(tmp_path), "another")
    assert "older" not in capsys.readouterr().err
    os.utime(path, (time.time() - 31 * 86400,) * 2)
    keeper = Unfinished(tmp_path)
    for scan in ("one", "two"):
        begin(keeper, scan)
    assert capsys.readouterr().err.count("1 files of unfinished reconstructions in") == 1
    assert path.exists()


def test_a_measurement_is_let_go(tmp_path):
    """Nothing of a case is alive because of the keeper when the next one is read."""

    class Scan:
        pass

    for minutes in (0, 5, None):
        scan = Scan()
        alive = weakref.ref(scan)
        keeper = Unfinished(tmp_path, save_minutes=minutes)
        begin(keeper, scan, total=1)
        keeper.offer(state(1))
        del scan
        gc.collect()
        assert alive() is None
