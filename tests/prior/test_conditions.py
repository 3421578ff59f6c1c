"""What a resumed training must share with the one before is refused if it differs, and the rest is told."""

import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.prior.conditions import FIXED, LENGTH, NOTED, compare, conditions_of, fingerprint_of, other_data
from interslice.prior.training import check_training
from interslice.usage import UsageError
from tests.support.scans import random_network

PATH = Path("run/checkpoint_epoch=2.pt")
SETTINGS = {
    "seed": 0, "teacher": None, "epoch_length": 5, "learning_rate": 0.01, "ema_momentum": 0.1, "patch_size": 16,
    "batch_size": 6, "foreground": 0.1, "coarser": True, "coarser_sizes": [1.0, 2.2], "volume_weights": {},
    "resample_shear": False, "grow": False, "compile": False, "num_workers": 0, "max_epochs": 4, "max_minutes": None,
    "val_interval": 1, "resume": True,
}  # fmt: skip


@pytest.fixture
def volumes(tmp_path):
    for n, name in enumerate("abc"):
        (tmp_path / f"{name}.nii").write_bytes(b"x" * (n + 1))
    return [{"image": str(tmp_path / f"{name}.nii")} for name in "abc"]


def conditions(volumes=(), network=None, device="cpu", **settings):
    return conditions_of(SETTINGS | settings, network or random_network(), [volumes[:2], volumes[2:]], device)


def test_every_setting_is_fixed_noted_or_known_to_change_no_weight():
    assert set(SETTINGS) == {*FIXED, *NOTED, *LENGTH, "val_interval", "num_workers", "resume"}
    assert check_training(8, **SETTINGS) == SETTINGS


@pytest.mark.parametrize("name", FIXED)
def test_another_training_is_refused_by_the_ids_that_differ(name):
    before = SETTINGS[name]
    other = (
        not before
        if isinstance(before, bool)
        else {"coarser_sizes": [1.0, 2.0], "volume_weights": {"a": 2.0}}.get(name, 2 * SETTINGS["seed"] + 1)
    )
    with pytest.raises(ValueError) as refused:
        compare(PATH, conditions(), conditions(**{name: other}))
    assert str(refused.value) == (
        f"{PATH} was trained otherwise than this run: {name} was {SETTINGS[name]} and is {other}; give {name} as "
        "before to go on, or train anew in another output_dir"
    )


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"channels": (8, 24)}, r"network#channels was \[8, 16\] and is \[8, 24\]"),
        ({"scale": {"kind": "hounsfield"}}, "scale#kind was None and is hounsfield"),
        ({"grid": {"spacing": 2.0}}, "grid#spacing was None and is 2.0"),
        ({"schedule": {"beta_end": 0.1}}, "schedule#beta_end was None and is 0.1"),
    ],
)
def test_another_network_is_refused(about, words):
    with pytest.raises(ValueError, match=words):
        compare(PATH, conditions(), conditions(network=random_network(**about)))


def test_a_checkpoint_of_a_version_with_other_ids_is_refused_by_them():
    before = conditions()
    before["fixed"]["patches_per_volume"] = 4
    with pytest.raises(ValueError, match="is of another version, which had patches_per_volume: .* train anew"):
        compare(PATH, before, conditions())


def test_what_may_change_is_told(volumes):
    before = conditions(volumes)
    threads = torch.get_num_threads()
    for now, words in (
        (conditions(volumes, grow=True), "grow was False and is True"),
        (conditions(volumes[1:]), r"the data was 2 volumes \(\w{16}\) and 1 volumes \(\w{16}\) and is 2 volumes"),
        (conditions(volumes, device="cuda:1"), "the device was cpu and is cuda"),
        (conditions(volumes, max_epochs=9), "was to take 4 epochs, and is to take 9 epochs: from here on the learning"),
        (conditions(volumes, max_minutes=0.5), "was to take 4 epochs, and is to take 0.5 minutes: from here on"),
    ):
        with pytest.warns(UserWarning, match=words):
            compare(PATH, before, now)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(PATH, before, conditions(volumes, val_interval=3, num_workers=7, resume=False))
    assert before["noted"]["the number of threads"] == threads


def test_a_network_that_says_nothing_of_itself_has_conditions_too():
    assert conditions(network=torch.nn.Linear(1, 1))["fixed"].keys() == set(FIXED)


def test_conditions_are_read_back_from_a_file_as_they_were(tmp_path, volumes):
    torch.save(conditions(volumes), tmp_path / "c.pt")
    assert torch.load(tmp_path / "c.pt", weights_only=True) == conditions(volumes)


@given(st.permutations("abc"))
def test_data_are_known_by_names_sizes_and_order_wherever_they_lie(tmp_path_factory, order):
    here, there = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("there")
    for folder in (here, there):
        for n, name in enumerate("abc"):
            (folder / name).mkdir()
            (folder / name / "1.dcm").write_bytes(b"x" * n)
    volumes = [{"image": str(here / name)} for name in "abc"]
    moved = [{"image": str(there / name)} for name in order]
    assert (fingerprint_of(volumes) == fingerprint_of(moved)) == (list(order) == list("abc"))
    grown = there / "c" / "2.dcm"
    grown.write_bytes(b"")
    assert fingerprint_of([{"image": str(there / name)} for name in "abc"]) != fingerprint_of(volumes)


@pytest.mark.parametrize("inside", ["", "1.dcm"])
def test_a_single_scan_is_known_by_its_content_too(tmp_path, inside):
    """Scans of one protocol may share name and size."""

    def noted(folder, content):
        path = tmp_path / folder / "scan.nii"
        (path / inside).parent.mkdir(parents=True)
        (path / inside).write_bytes(content)
        volumes = [{"image": str(path)}]
        return conditions_of(SETTINGS, random_network(), [volumes, volumes], "cpu")

    a, moved, b = noted("a", b"one"), noted("moved", b"one"), noted("b", b"two")
    assert other_data(a, moved) == "" and a["noted"]["the data"] == b["noted"]["the data"]
    assert other_data(a, b) == f"the scan was {a['noted']['the scan']} and is {b['noted']['the scan']}"
    del a["noted"]["the scan"]  # as checkpoints of before
    assert other_data(a, b) == other_data({}, b) == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(PATH, a, b)


def test_what_is_no_list_of_volumes_is_refused():
    with pytest.raises(UsageError, match="volumes must be lists of volumes.*got -1"):
        conditions_of(SETTINGS, random_network(), -1, "cpu")
