"""Weights that are saved again say what they are for, and are the same numbers."""

import warnings

import pytest
import torch

from interslice.prior.network import network_for
from interslice.prior.weights import EXTRA_STATE, Weights, load_weights
from scripts.describe_weights import main
from tests.support.scans import CHANNELS, GROUPS, random_network

NETWORK = ["--channels", *map(str, CHANNELS), "--norm_num_groups", str(GROUPS)]


@pytest.fixture
def bare(tmp_path):
    state = {name: tensor for name, tensor in random_network().state_dict().items() if name != EXTRA_STATE}
    torch.save(state, tmp_path / "bare.pt")
    return tmp_path / "bare.pt"


@pytest.mark.parametrize("half", [False, True])
def test_the_file_tells_all_and_loads_without_a_word(half, bare, tmp_path, capsys):
    for name in ("one.pt", "another.pt"):
        main([str(bare), str(tmp_path / name), *NETWORK, *(["--half"] if half else [])])
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "another.pt").read_bytes()
    assert ((tmp_path / "one.pt").stat().st_size < 0.7 * bare.stat().st_size) == half
    with warnings.catch_warnings(action="error"):
        weights = Weights(tmp_path / "one.pt", "percentiles")
        network = load_weights(network_for(weights), weights)
    assert weights.scale == {"kind": "percentiles"} and weights.grid == {"spacing": None}
    for name, tensor in random_network().named_parameters():
        kept = tensor.detach().half().float() if half else tensor.detach()
        assert torch.equal(network.get_parameter(name).detach(), kept)
    assert "SHA-256" in capsys.readouterr().out


def test_what_is_trained_on_from_it_says_nothing_of_half_precision(bare, tmp_path):
    main([str(bare), str(tmp_path / "half.pt"), *NETWORK, "--half"])
    weights = Weights(tmp_path / "half.pt")
    torch.save(load_weights(network_for(weights), weights).state_dict(), tmp_path / "again.pt")
    assert "stored" not in Weights(tmp_path / "again.pt").about


def test_a_window_and_a_spacing_are_kept(bare, tmp_path):
    words = ["--kind", "hounsfield", "--window", "-900", "800", "--spacing", "1.5"]
    main([str(bare), str(tmp_path / "ct.pt"), *NETWORK, *words])
    weights = Weights(tmp_path / "ct.pt", "hounsfield")
    assert weights.scale == {"kind": "hounsfield", "low": -900.0, "high": 800.0} and weights.grid == {"spacing": 1.5}


def test_what_a_file_says_of_itself_stays_unless_it_is_given(bare, tmp_path):
    words = ["--kind", "hounsfield", "--window", "-900", "800", "--spacing", "1.5"]
    main([str(bare), str(tmp_path / "ct.pt"), *NETWORK, *words])
    main([str(tmp_path / "ct.pt"), str(tmp_path / "same.pt")])
    assert (tmp_path / "same.pt").read_bytes() == (tmp_path / "ct.pt").read_bytes()
    main([str(tmp_path / "ct.pt"), str(tmp_path / "other.pt"), "--spacing", "2"])
    assert Weights(tmp_path / "other.pt").about == Weights(tmp_path / "ct.pt").about | {"grid": {"spacing": 2.0}}
    with pytest.raises(ValueError, match="trained on Hounsfield units"):
        main([str(tmp_path / "ct.pt"), str(tmp_path / "wrong.pt"), "--kind", "percentiles"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--channels", "16", "32"], "belong to another architecture"),
        ([*NETWORK, "--num_res_blocks", "0"], "num_res_blocks must be a whole number from 1"),
        ([*NETWORK, "--kind", "hounsfield", "--window", "5", "-5"], "low and high must be two rising numbers"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(words, said, bare, tmp_path):
    with pytest.raises(ValueError, match=said):
        main([str(bare), str(tmp_path / "x.pt"), *words])
    assert not (tmp_path / "x.pt").exists()


def test_numbers_beyond_half_precision_are_refused(tmp_path):
    network = random_network()
    with torch.no_grad():
        next(network.parameters()).fill_(1e6)
    torch.save(network.state_dict(), tmp_path / "huge.pt")
    with pytest.raises(ValueError, match="too large for float16: leave out --half"):
        main([str(tmp_path / "huge.pt"), str(tmp_path / "x.pt"), *NETWORK, "--half"])
