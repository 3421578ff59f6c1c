"""Damaged inputs: each is another than the whole one, is made again from its number, and says what was done to it."""

import shutil
import warnings
import zlib

import numpy as np
import pytest

from scripts.fuzzing.damage.anything import FOREIGN, damaged
from scripts.fuzzing.damage.options import TASKS, damaged_command_line, options_of
from scripts.fuzzing.damage.weights import damage_weights
from scripts.fuzzing.kinds import KINDS, WEIGHTS
from scripts.fuzzing.place import contents
from tests.support.scans import ROOT

MAKERS = {**{name: (kind.bad, kind.damage) for name, kind in KINDS.items()}, "weights": (WEIGHTS, damage_weights)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folders with the inputs of a kind as they were written, one for each of its formats."""
    folder = tmp_path_factory.mktemp("whole")

    def written(kind):
        if kind == "ismrmrd":
            pytest.importorskip("ismrmrd")
        for n, (name, writer) in enumerate(MAKERS[kind][0]):
            place = folder / kind / str(n)
            if not place.exists():
                place.mkdir(parents=True)
                if "." not in name:
                    (place / name).mkdir()
                writer(place / name, 3)
        return [(folder / kind / str(n), name) for n, (name, _) in enumerate(MAKERS[kind][0])]

    return written


def made(kind, number, sources, folder):
    """What was done to input `number`, and what its files hold then."""
    rng = np.random.default_rng([0, zlib.crc32(kind.encode()), number])
    source, name = sources[int(rng.integers(len(sources)))]
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        what = MAKERS[kind][1](rng, folder / name)
    return what, contents(folder), contents(source)


@pytest.mark.parametrize("kind", MAKERS)
def test_inputs_are_damaged_and_named(kind, whole, tmp_path):
    sources, said, changed = whole(kind), set(), 0
    for number in range(40):
        what, now, before = made(kind, number, sources, tmp_path / "in")
        said.add(what)
        changed += now != before
    assert changed >= 30 and len(said) >= 25, (changed, sorted(said))


@pytest.mark.parametrize("kind", [k for k in MAKERS if k not in ("fastmri", "ismrmrd", "weights")])
def test_a_number_makes_the_same_input_again(kind, whole, tmp_path):
    """HDF5 files and archives of weights hold times; what is done to them is the same."""
    sources = whole(kind)
    for number in range(12):
        assert made(kind, number, sources, tmp_path / "a") == made(kind, number, sources, tmp_path / "b")


def test_bytes_are_changed_in_many_ways():
    content = bytes(range(256)) * 8
    results = [damaged(np.random.default_rng(n), content)[0] for n in range(200)]
    assert len(set(results)) > 130 and set(results) & set(FOREIGN)
    assert min(map(len, results)) < 100 < len(content) < max(map(len, results))
    assert damaged(np.random.default_rng(0), b"") is not None


def test_command_lines_reach_every_config_and_many_options():
    lines = [damaged_command_line(np.random.default_rng(n), ROOT) for n in range(600)]
    assert {line.configs for line in lines} == set(TASKS)
    names = {line.name for line in lines}
    assert {"num_draws", "operator#gap", "num_views"} <= {n for c in TASKS for n in options_of(c, ROOT)}
    assert len(names) > 150 and any("#" in n for n in names)
