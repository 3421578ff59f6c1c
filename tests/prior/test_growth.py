"""Volumes that appear while a training runs come into the pool with the next epochs."""

import pytest
import torch
from ignite.engine import Engine, Events

from interslice.files.limits import Limits
from interslice.prior.growth import Growth, check_growth
from interslice.prior.pool import VolumePool
from tests.support.scans import head_voxels, write_volume


def read(item):
    from interslice.files.read import LoadVolumed

    return LoadVolumed("image")(item)


@pytest.fixture
def folder(tmp_path):
    for n, name in enumerate("abv"):
        write_volume(tmp_path / f"{name}.nii.gz", head_voxels((8, 9, 10), n))
    return tmp_path


def trained(folder, appear, epochs=3, enabled=True, **options):
    """Names in the pool in each epoch; `appear(epoch)` is called in the middle of each."""
    known = [[{"image": str(folder / f"{n}.nii.gz")} for n in names] for names in ("ab", "v")]
    pool = VolumePool(known[0], read, coarser=False, num_workers=1, **options)
    growth = Growth(pool, folder, known, enabled)
    seen = []

    def step(engine, _):
        seen.append(pool.names)
        appear(engine.state.epoch)

    trainer = Engine(step)
    growth.attach(trainer)
    if enabled:  # what is read beside the training is waited for here
        trainer.add_event_handler(Events.EPOCH_STARTED, lambda: [f.exception() for f in growth.waiting])
    trainer.run([0], max_epochs=epochs)
    return seen, pool


def test_what_appears_is_found_in_the_next_epoch_and_trained_on_in_the_one_after(folder):
    def appear(epoch):
        if epoch < 3:
            write_volume(folder / f"new{epoch}.nii.gz", head_voxels((5, 6, 7), epoch + 5))

    seen, pool = trained(folder, appear, epochs=4)
    assert seen == [["a", "b"], ["a", "b"], ["a", "b", "new1"], ["a", "b", "new1", "new2"]]
    assert pool.shape[-1].tolist() == [5, 6, 7] and len(pool.weight) == 4


def test_those_of_the_validation_never_come_in(folder):
    seen, _ = trained(folder, lambda _: None)
    assert seen == [["a", "b"]] * 3


def test_off_nothing_is_looked_for(folder):
    seen, _ = trained(folder, lambda epoch: write_volume(folder / "n.nii.gz", head_voxels((8, 9, 10))), enabled=False)
    assert seen == [["a", "b"]] * 3


def test_what_cannot_be_read_is_left_out_and_said_once(folder):
    with pytest.warns(UserWarning, match="bad.nii.gz is left out: ") as said:
        seen, _ = trained(folder, lambda _: (folder / "bad.nii.gz").write_bytes(b"x"), epochs=5)
    assert seen == [["a", "b"]] * 5 and sum("bad.nii.gz" in str(w.message) for w in said) == 1


def test_a_full_pool_takes_no_more_and_goes_on(folder):
    room = Limits(max_memory=2 * 4 * 8 * 9 * 10 / 1e9 + 1e-9)  # that of the first two
    with pytest.warns(UserWarning, match="the pool is full: 1 new volumes are left out"):
        seen, pool = trained(
            folder, lambda _: write_volume(folder / "n.nii.gz", head_voxels((16, 18, 20))), limits=room
        )
    assert seen == [["a", "b"]] * 3 and torch.isfinite(pool.weight).all()


def test_a_growing_folder_needs_volumes_to_validate_on():
    with pytest.raises(ValueError, match="grow is on, .* --validation_dir"):
        check_growth("yes", None)
    check_growth(True, "validation")
    check_growth("no", None)
