"""What ranks share is shared out once and comes together again, the same on all of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice import ranks
from interslice.files.shared_memory import SharedMemory
from interslice.files.shared_unfinished import SharedUnfinished
from interslice.files.unfinished import Unfinished
from interslice.prior import SlicePrior
from interslice.usage import UsageError
from tests.support.helpers import alpha_bars
from tests.support.kill import forks
from tests.support.ranks import on_ranks
from tests.support.scans import random_network

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
            out = torch.empty(shape)
            ranks.gather(mine, shape[dim], dim, out=out)
            assert torch.equal(out, whole)
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
    assert torch.equal(ranks.gather(part, 3, out=torch.empty(3, 4)), part)
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
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert str(ranks.device_of_rank("cuda")) == "cuda:3"
    assert str(ranks.device_of_rank("cpu")) == "cpu"


def test_more_ranks_than_gpus_are_refused(monkeypatch):
    for name in ranks.STARTED:
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="3 processes on this machine, which has GPUs for 2.*nproc_per_node=2"):
        ranks.device_of_rank("cuda")


@forks
@pytest.mark.parametrize("number", [2, 3])
def test_a_prior_across_ranks_denoises_as_one(number, tmp_path):
    """And takes the gradient as one does; with as many slices as ranks, with fewer, and with a share that is uneven."""
    network = random_network().eval()
    x, v = torch.randn(2, 7, 16), torch.randn(2, 7, 16)

    def denoised(across):
        prior = SlicePrior(alpha_bars(), slice_batch_size=2, across_ranks=across)
        with torch.no_grad():
            x0 = [prior(network, x, 100, axis) for axis in range(3)]
        return [t.numpy() for t in (*x0, *(prior.pull_back(network, x, 100, axis, v) for axis in range(3)))]

    alone = denoised(False)
    for found in on_ranks(number, lambda: denoised(True), tmp_path):
        for a, b in zip(found, alone, strict=True):
            torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=1e-4, atol=1e-5)


@forks
def test_all_go_on_from_the_state_that_rank_0_keeps(tmp_path, monkeypatch):
    """Of shared slices; of shared cases each from its own."""
    monkeypatch.setattr(Unfinished, "begin", lambda *_: {"done": ranks.rank(), "x": torch.full((2,), ranks.rank())})
    offered = []
    monkeypatch.setattr(Unfinished, "offer", lambda _, state: offered.append(state))

    def begun():
        found = []
        for share in ("slices", "cases"):
            keeper = SharedUnfinished(tmp_path, share=share)
            state = keeper.begin(None, None, 5, torch.device("cpu"))
            keeper.offer(state)
            found += [state["done"], state["x"].tolist(), len(offered)]
        return found

    first, second = on_ranks(2, begun, tmp_path)
    assert first == [0, [0, 0], 1, 0, [0, 0], 2]
    assert second == [0, [0, 0], 0, 1, [1, 1], 1]


@forks
def test_ranks_of_shared_slices_go_by_the_least_memory(tmp_path):
    """Or volumes would lie on the host of one and on the GPU of the other, and never meet."""

    def found():
        now = [5.0 - ranks.rank()]
        slices, cases = (SharedMemory(lambda _: now[0], "cpu", share) for share in ("slices", "cases"))
        now[0] += 10
        return slices("cpu"), cases("cpu")

    assert on_ranks(2, found, tmp_path) == [(4.0, 15.0), (4.0, 14.0)]


@forks
@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="takes two GPUs")
def test_gpus_gather_by_nccl(fresh_python):
    code = """
import torch, torch.distributed as dist, torch.multiprocessing as mp
from interslice import ranks
def work(r, path):
    torch.cuda.set_device(r)
    ranks.join(dist.FileStore(path, 2), r, 2, "cpu:gloo,cuda:nccl")
    whole = torch.arange(15.0, device="cuda").reshape(5, 3)
    assert torch.equal(ranks.gather(whole[ranks.share(5)], 5), whole)
    assert torch.equal(ranks.gather(whole[ranks.share(5)].cpu(), 5), whole.cpu())
    assert ranks.agreed(r) == 0
    ranks.end()
if __name__ == "__main__":
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        context = mp.get_context("fork")
        processes = [context.Process(target=work, args=(r, folder + "/meet")) for r in range(2)]
        for p in processes: p.start()
        for p in processes: p.join(100)
        assert [p.exitcode for p in processes] == [0, 0]
"""
    fresh_python(code)
