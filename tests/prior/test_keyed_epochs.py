"""What an epoch draws depends on the seed and its number alone."""

import random

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, RandFlipd, RandGaussianNoised

from interslice.prior.keyed_epochs import KeyedEpochs
from interslice.prior.patches import RandSlicePatchesd

VOLUMES = [{"image": torch.rand(1, 9, 10, 11, generator=torch.Generator().manual_seed(n))} for n in range(5)]
EPOCH_LENGTH = 3
"""Batches of two volumes: an epoch ends in the middle of its second pass through the five."""


def loader(num_workers=0, **others):
    draws = [RandSlicePatchesd("image", 8, 2), RandFlipd("image", 0.5, 0), RandGaussianNoised("image", 0.5)]
    dataset = CacheDataset(VOLUMES, Compose(draws), progress=False)
    return DataLoader(dataset, batch_size=2, shuffle=True, drop_last=True, num_workers=num_workers, **others)


def drawn(first, last, seed=0, disturbed=False, **options):
    """Epoch -> all that a training from epoch `first` to `last` draws, in bytes."""
    epochs = {}

    def step(engine, batch):
        epochs.setdefault(engine.state.epoch, []).append(
            batch["image"].numpy().tobytes()
            + torch.randn(3).numpy().tobytes()
            + np.random.rand(3).tobytes()
            + np.float64(random.random()).tobytes()
        )

    def disturb():
        torch.rand(1), np.random.rand(), random.random(), next(iter(loader()))

    torch.manual_seed(first)  # a run that begins elsewhere finds other states
    trainer = Engine(step)
    data = loader(**options)
    KeyedEpochs(seed, data).attach(trainer)
    if disturbed:
        trainer.add_event_handler(Events.EPOCH_COMPLETED(every=2), disturb)
    trainer.load_state_dict({"epoch": first - 1, "epoch_length": EPOCH_LENGTH, "max_epochs": last})
    trainer.run(data)
    return epochs


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"num_workers": 2}, marks=pytest.mark.slow)], ids=["alone", "workers"]
)
def test_epochs_are_the_same_wherever_a_training_begins(options):
    whole = drawn(1, 4, **options)
    assert list(whole) == [1, 2, 3, 4] and all(len(batches) == EPOCH_LENGTH for batches in whole.values())
    assert drawn(3, 4, **options) == {n: whole[n] for n in (3, 4)}
    assert drawn(2, 3, disturbed=True, **options) == {n: whole[n] for n in (2, 3)}


def test_each_draw_is_made_once():
    """No two batches are alike, in an epoch, between epochs, or for two seeds."""
    batches = [b for seed in (0, 1) for epoch in drawn(1, 3, seed).values() for b in epoch]
    assert len(set(batches)) == len(batches) == 2 * 3 * EPOCH_LENGTH


def test_workers_that_live_on_are_refused():
    with pytest.raises(ValueError, match="persistent_workers must be off: .* leave it out of train#dataloader"):
        KeyedEpochs(0, loader(num_workers=1, persistent_workers=True))


@pytest.mark.parametrize("seed", [-1, 0.5, "x"])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="seed must be a whole number from 0"):
        KeyedEpochs(seed, loader())
