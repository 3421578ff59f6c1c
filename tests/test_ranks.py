"""What ranks share is shared out once and comes together again, the same on all of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bundle import ranks
from bundle.usage import UsageError
from tests.support.kill import forks
from tests.support.ranks import on_ranks

SHAPES = [((5, 3, 4), 0), ((3, 7, 2), 1), ((2, 3, 1), 2), ((2, 2, 9), -1)]
"""Of wholes, and along which of their dimensions they are shared: even and not, and with fewer items than ranks."""


@given(count=st.integers(0, 1000), of=st.integers(1, 64))
def test_shares_are_all_there_is_once_and_even(count, of):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "world_size", lambda: of)
        shares = [range(count)[ranks.share(count, r)] for r in range(of)]
    assert [item for items in shares for item in items] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@forks
@pytest.mark.parametrize("number", [2, 3])
def test_parts_come_together_as_the_whole(number, tmp_path):
    wholes = [torch.randn(shape) for shape, _ in SHAPES]

    def together():
        found = []
        for whole, (shape, dim) in zip(wholes, SHAPES, strict=True):
            mine = whole.movedim(dim, 0)[ranks.share(shape[dim])].movedim(0, dim)
            found.append(ranks.gather(mine, shape[dim], dim).clone().numpy())
        board = ranks.Board("here")
        taken = [board.take("items") for _ in range(5)]
        board.write(f"of/{ranks.rank()}", "ä")
        ranks.barrier()
        assert sorted(sum(ranks.all_of(taken), [])) == list(range(5 * number))
        assert board.taken("items") == 5 * number
        assert [board.read(f"of/{r}") for r in range(number + 1)] == ["ä"] * number + [None]
        assert ranks.agreed(ranks.rank() + 7) == 7
        assert ranks.all_of(ranks.rank() ** 2) == [r**2 for r in range(number)]
        return found

    for found in on_ranks(number, together, tmp_path):
        assert all((a == b.numpy()).all() for a, b in zip(found, wholes, strict=True))


def test_one_rank_has_everything_and_sends_nothing():
    part = torch.randn(3, 4)
    assert ranks.gather(part, 3) is part
    assert (ranks.rank(), ranks.world_size(), ranks.share(5), ranks.all_of(2)) == (0, 1, slice(0, 5), [2])


def test_a_part_of_another_length_is_refused():
    with pytest.raises(ValueError, match="has items 0 to 4 of 4, got 3"):
        ranks.gather(torch.zeros(3), 4)


def test_without_torchrun_the_command_is_said(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    for ask in (ranks.device_of_rank, lambda: ranks.start("cpu")):
        with pytest.raises(UsageError, match="RANK.* not set.*torchrun --standalone --nproc_per_node=2"):
            ask()


def test_each_rank_has_its_own_gpu(monkeypatch):
    for name in ranks.STARTED:
        monkeypatch.setenv(name, "3")
    assert str(ranks.device_of_rank("cuda")) == "cuda:3"
    assert str(ranks.device_of_rank("cpu")) == "cpu"


def test_more_ranks_than_gpus_are_refused(monkeypatch):
    for name in ranks.STARTED:
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="3 processes on this machine, which has GPUs for 2.*nproc_per_node=2"):
        ranks.start("cuda:0")
