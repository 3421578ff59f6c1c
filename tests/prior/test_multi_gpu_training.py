"""Training on several ranks: the steps are those of one process with all their patches, and one of them writes."""

import pytest
import torch
from monai.engines.utils import DiffusionPrepareBatch

from interslice import ranks
from interslice.prior.clock import Clock, cosine_decay
from interslice.prior.keyed_epochs import KeyedEpochs
from tests.support.kill import forks
from tests.support.ranks import on_ranks
from tests.support.scans import ROOT, TRAIN, tiny_training, whole_message

SHARED = [TRAIN, "configs/multi_gpu_train.json"]
PATCHES = 4
"""In a step, of all ranks together."""


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    return tiny_training(tmp_path, device="cpu", max_epochs=2, batch_size=PATCHES)


class Share:
    """Batches of the patches that are this rank's, of those that all train on: PATCHES a step."""

    dataset = ()

    def __iter__(self):
        generator = torch.Generator().manual_seed(3)
        while True:
            yield {"image": torch.rand(PATCHES, 1, 16, 16, generator=generator)[ranks.share(PATCHES)]}


class NoiseOfPatch(DiffusionPrepareBatch):
    """Noise and timestep of a patch follow from the patch, whoever trains on it."""

    def get_noise(self, images):
        return torch.stack([torch.randn(i.shape, generator=self._of(i)) for i in images])

    def get_timesteps(self, images):
        return torch.cat([torch.randint(1000, (1,), generator=self._of(i)) for i in images])

    def _of(self, image):
        return torch.Generator().manual_seed(int(image.sum() * 1e4))


def weights(folder, epoch):
    content = torch.load(folder / f"checkpoint_epoch={epoch}.pt", weights_only=True)
    return {name: value for name, value in content["network"].items() if isinstance(value, torch.Tensor)}


@forks
@pytest.mark.slow
def test_a_step_is_that_of_one_process_with_all_the_patches(settings, run_here, tmp_path, monkeypatch):
    here = "tests.prior.test_multi_gpu_training"
    settings |= {
        "train#dataloader": {"_target_": f"{here}.Share"},
        "train#prepare_batch": {"_target_": f"{here}.NoiseOfPatch", "num_train_timesteps": 1000},
        "train#optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.5},
        "max_epochs": 1,
        "epoch_length": 3,
    }
    run_here("training", TRAIN, settings | {"output_dir": str(tmp_path / "one")})
    shared = settings | {"output_dir": str(tmp_path / "two")}
    on_ranks(2, lambda: run_here("training", SHARED, shared), tmp_path)
    one, two = weights(tmp_path / "one", 1), weights(tmp_path / "two", 1)
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(ranks, "share", lambda count: slice(count // 2))
    run_here("training", TRAIN, settings | {"output_dir": str(tmp_path / "half")})
    half = weights(tmp_path / "half", 1)
    assert any(not torch.allclose(one[name], half[name], rtol=1e-2, atol=1e-4) for name in one)


@forks
@pytest.mark.slow
def test_one_rank_writes_and_a_resumed_training_has_the_same_bits(settings, run_here, tmp_path, capfd):
    def train(folder, **others):
        def on_rank():
            run_here("training", SHARED, settings | {"output_dir": str(tmp_path / folder)} | others)

        on_ranks(2, on_rank, tmp_path)

    train("whole")
    said = capfd.readouterr().out
    assert said.count("2 ranks of 4 patches: the effective batch is 8") == 1 == said.count("wrote")
    files = sorted(p.name for p in (tmp_path / "whole").iterdir() if "tfevents" not in p.name)
    assert files == ["checkpoint_epoch=1.pt", "checkpoint_epoch=2.pt", "history.jsonl", "model.pt", "samples.png"]
    assert len(list((tmp_path / "whole").glob("*tfevents*"))) == 1
    conditions = torch.load(tmp_path / "whole/checkpoint_epoch=2.pt", weights_only=True)["conditions"]
    assert conditions["fixed"]["the number of ranks"] == 2

    (tmp_path / "resumed").mkdir()
    (tmp_path / "resumed/checkpoint_epoch=1.pt").write_bytes((tmp_path / "whole/checkpoint_epoch=1.pt").read_bytes())
    train("resumed", resume=True)
    torch.testing.assert_close(weights(tmp_path / "resumed", 2), weights(tmp_path / "whole", 2), rtol=0, atol=0)
    with pytest.raises(RuntimeError) as refused:
        run_here("training", TRAIN, settings | {"output_dir": str(tmp_path / "resumed"), "resume": True})
    assert "the number of ranks was 2 and is 1" in whole_message(refused.value)


@forks
def test_ranks_draw_patches_of_their_own_and_rank_0_those_of_one(tmp_path):
    class Trainer:
        class state:
            epoch = 3

        def set_data(self, _):
            pass

    class Loader:
        dataset = ()

    def drawn():
        KeyedEpochs(5, Loader())(Trainer())
        return torch.rand(4).tolist()

    alone = drawn()
    first, second = on_ranks(2, drawn, tmp_path)
    assert first == alone != second


@forks
def test_ranks_go_by_one_clock(tmp_path):
    """By clocks of their own one would end while the other waits for it, and each would learn at a rate of its own."""

    def ends():
        clock = Clock(max_minutes=1.0)
        clock.load_state_dict({"seconds": 30.0 if ranks.rank() == 0 else 90.0})
        ended = []
        clock.end(type("Engine", (), {"terminate": lambda self: ended.append(True)})())
        return ended, cosine_decay(10, clock)(1)

    first, second = on_ranks(2, ends, tmp_path)
    assert first == second == ([], pytest.approx(0.51))
