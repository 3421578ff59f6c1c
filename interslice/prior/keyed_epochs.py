"""What a training draws in an epoch is a function of (seed, epoch), and not of what ran before.

    every generator := SeedSequence(seed, epoch)          at the start of each epoch       (O'Neill, 2015; numpy)

and of several ranks (interslice.ranks) a function of (seed, epoch, rank): each draws patches of its own, rank 0 those
of a training of one.

So a training that goes on from an epoch draws what one that was never interrupted draws, and validation, however often
it comes, takes nothing from its draws. There is no state to save.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from torch.utils.data import DataLoader

from interslice.files.values import whole_number
from interslice.ranks import rank


class KeyedEpochs:
    """Handler of a trainer: begins the draws of every epoch anew, from its key.

    It sets the global generators of torch (all devices), numpy and Python, which draw noise, timesteps, volumes and
    patches, and those of the dataset's MONAI transforms; and starts the loader anew, which else goes on in the middle
    of a pass. Of a loader with workers, these seed their transforms from torch's generator.

    Args:
        seed: of the training, from 0.
        dataloader: the trainer's.

    Raises:
        ValueError: the loader keeps its workers, and with them their draws, from epoch to epoch.
    """

    def __init__(self, seed: int, dataloader: DataLoader) -> None:
        self.seed, self.dataloader = whole_number("seed", seed), dataloader
        if getattr(dataloader, "persistent_workers", False):
            raise ValueError(
                "persistent_workers must be off: workers that live on keep their draws, and a resumed training would "
                "differ; leave it out of train#dataloader"
            )

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        others = (rank(),) if rank() else ()
        key = np.random.SeedSequence((self.seed, engine.state.epoch), spawn_key=others)
        everywhere, of_transforms = key.generate_state(2).tolist()
        torch.manual_seed(everywhere)
        np.random.seed(everywhere)
        random.seed(everywhere)
        set_rnd(self.dataloader.dataset, of_transforms)
        engine.set_data(self.dataloader)
