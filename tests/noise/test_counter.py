"""The generator: known answers, the normal law, and a number that depends on its key and place alone."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from interslice.noise import counter
from interslice.noise.counter import Key, Purpose, box_muller, keyed_normal, keyed_normals, philox
from tests.support.helpers import repeatable

# Counter, key, words: of the Random123 library (Salmon et al., 2011), kat_vectors, philox4x32 10.
KNOWN = {
    "zeros": ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    "ones": ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    "pi": (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
}
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])


@devices
@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_the_words_are_those_of_philox(known, device):
    (first, second, third, fourth), (low, high), words = known
    one, two = (torch.tensor([[c]], device=device) for c in (first, second))
    assert [int(w) for w in philox(one, two, third, fourth, low | high << 32)] == words


@devices
def test_the_numbers_are_normal(device):
    x = keyed_normal((400_000,), Key(5, 3), 2, device).double().cpu()
    assert kstest(x.numpy(), "norm").pvalue > 1e-3
    assert [float((x**p).mean()) for p in (1, 2, 3, 4)] == pytest.approx([0, 1, 0, 3], abs=0.03)
    lanes = torch.corrcoef(x.reshape(-1, 4).T) - torch.eye(4)
    assert lanes.abs().max() < 5 / math.sqrt(100_000)
    assert float((x.reshape(-1, 2) ** 2).T.corrcoef()[0, 1]) == pytest.approx(0, abs=5 / math.sqrt(200_000))


def test_the_ends_of_the_words_are_finite_numbers():
    ends = torch.tensor([0, 1, counter.WORD // 2, counter.WORD - 1, counter.WORD])
    x = box_muller(torch.cartesian_prod(ends, ends, ends, ends).T)
    assert torch.isfinite(x).all()
    assert 6.5 < x.abs().max() < 6.8  # sqrt(2 log 2^33)


@repeatable
@given(
    size=st.integers(0, 60), seed=st.integers(0, 2**63 - 1), step=st.integers(0, 2**55 - 1), data=st.data(),
    purpose=st.sampled_from(Purpose), blocks=st.integers(1, 40),
)  # fmt: skip
def test_a_number_depends_on_its_key_and_place_alone(size, seed, step, purpose, blocks, data):
    indices = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5))
    key = Key(seed, step, purpose)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counter, "CPU_BLOCKS", blocks)
        together = keyed_normals((size,), key, indices)
    longer = torch.stack([keyed_normal((size + 9,), key, i)[:size] for i in indices])
    assert torch.allclose(together, longer, rtol=0, atol=1e-6)


def test_no_two_draws_are_alike():
    keys = [
        Key(s, t, p) for s in (0, 1, 2**32, 2**62) for t in (0, 1, 255, 256, 2**31, 2**32, 2**40) for p in (0, 1, 2)
    ]
    draws = torch.stack([keyed_normals((64,), key, [0, 1, 2**31, 2**32 - 1]) for key in keys]).flatten(0, 1)
    products = (draws @ draws.T / 64).fill_diagonal_(0)
    assert products.abs().max() < 0.85  # one another's copy: 1


@pytest.mark.cuda
def test_devices_agree_to_rounding():
    here, there = (keyed_normals((300, 200), Key(7, 11), range(20), device) for device in ("cpu", "cuda"))
    assert (here - there.cpu()).abs().max() < 2e-5
    assert (here - there.cpu()).abs().mean() < 1e-6
