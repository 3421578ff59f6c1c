"""Which of the shipped weights a run takes."""

import sys
import types

import pytest
from monai.bundle import ConfigParser

from interslice.prior.shipped import SERVERS, shipped_weights
from interslice.usage import UsageError
from tests.support.scans import INFERENCE, ROOT


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "large").mkdir()
    for name in ("model.pt", "large/model.pt"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("model", "device", "file"),
    [
        ("auto", "cpu", "model.pt"),
        ("auto", "cuda", "large/model.pt"),
        ("auto", "cuda:1", "large/model.pt"),
        ("small", "cuda", "model.pt"),
        ("large", "cpu", "large/model.pt"),
    ],
)
def test_the_size_follows_the_device_unless_it_is_named(model, device, file, folder):
    assert shipped_weights(folder, model, device) == str(folder / file)


@pytest.mark.parametrize("server", SERVERS)
def test_programs_that_load_the_weights_themselves_get_the_network_of_those(server, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, server, types.ModuleType(server))
    assert shipped_weights(folder, "auto", "cuda") == str(folder / "model.pt")


def test_a_task_without_large_weights_takes_the_small_ones_and_says_so_if_asked(folder):
    (folder / "large/model.pt").unlink()
    assert shipped_weights(folder, "auto", "cuda") == str(folder / "model.pt")
    with pytest.raises(UsageError, match="model must be small here, got 'large': this task has no large weights"):
        shipped_weights(folder, "large")


@pytest.mark.parametrize(
    ("overlay", "given", "file"),
    [
        (None, {"device": "cpu"}, "models/model.pt"),
        (None, {"device": "cuda"}, "models/large/model.pt"),
        (None, {"model": "large", "device": "cpu"}, "models/large/model.pt"),
        (None, {"model": "large", "checkpoint": "mine.pt"}, "mine.pt"),
        ("configs/task_svct.json", {"device": "cpu"}, "models/ct/model.pt"),
    ],
)
def test_the_configs_take_them_and_a_checkpoint_goes_before(overlay, given, file, monkeypatch):
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config([INFERENCE, *([overlay] if overlay else [])])
    parser.update(given)
    assert parser.get_parsed_content("checkpoint") == file
