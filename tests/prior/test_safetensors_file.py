"""Weights as safetensors are the same weights: what they hold, what they say of themselves, and what they give."""

import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from interslice.prior.network import network_for
from interslice.prior.safetensors_file import ABOUT, as_safetensors
from interslice.prior.weights import EXTRA_STATE, Weights, load_weights
from tests.support.scans import CHANNELS, GROUPS, INFERENCE, ROOT, random_network

ABOUT_ME = {
    "network": {"channels": list(CHANNELS), "num_res_blocks": 1, "norm_num_groups": GROUPS},
    "schedule": {"num_train_timesteps": 500, "schedule": "linear_beta", "beta_start": 0.0001, "beta_end": 0.02},
    "scale": {"kind": "hounsfield", "low": -900, "high": 1100},
    "grid": {"spacing": 2.5},
}
STATE = dict(random_network().state_dict())
CONTENT = as_safetensors(STATE, ABOUT_ME)


def written(path, content=CONTENT):
    path.write_bytes(content)
    return path


def test_what_was_written_is_read_with_all_that_it_says_of_itself(tmp_path):
    weights = Weights(written(tmp_path / "model.safetensors"))
    assert (weights.network, weights.schedule) == (ABOUT_ME["network"], ABOUT_ME["schedule"])
    assert (weights.scale, weights.grid) == (ABOUT_ME["scale"], ABOUT_ME["grid"])
    tensors = {name: tensor for name, tensor in STATE.items() if name != EXTRA_STATE}
    loaded = load_weights(network_for(weights), weights).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    others = load_file(tmp_path / "model.safetensors")  # as any other program reads it
    assert others.keys() == tensors.keys() and all(torch.equal(others[name], t) for name, t in tensors.items())


@pytest.mark.parametrize("name", ["models/model.pt", "models/large/model.pt", "models/ct/model.pt"])
def test_the_shipped_weights_are_the_same_to_the_bit(name, tmp_path, recwarn):
    """Those of the large prior are float16, and stay half as large."""
    weights = Weights(ROOT / name)
    path = written(tmp_path / "x.safetensors", as_safetensors(weights.state, weights.about))
    again = Weights(path, weights.scale["kind"])
    assert again.about == weights.about and again.state.keys() == weights.state.keys()
    assert all(torch.equal(again.state[n], weights.state[n]) for n in weights.state if n != EXTRA_STATE)
    assert path.stat().st_size < (ROOT / name).stat().st_size * 1.01 and not recwarn.list
    with pytest.raises(ValueError, match="were trained on .*, and this task brings"):
        Weights(path, "percentiles" if weights.scale["kind"] == "hounsfield" else "hounsfield").about  # noqa: B018


def test_a_file_of_others_is_taken_as_a_bare_state_dict_is(tmp_path):
    tensors = {f"module.{name}": t for name, t in STATE.items() if name != EXTRA_STATE}
    save_file(tensors, tmp_path / "model.safetensors")
    weights = Weights(tmp_path / "model.safetensors")
    load_weights(random_network(seed=2), weights)
    assert weights.scale == {} and EXTRA_STATE not in weights.state


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "do not say in readable words what they are for"),
        ("é" * 9, "do not say in readable words what they are for"),
        (json.dumps({"network": {"channels": [3], "norm_num_groups": 2}}), "say of themselves what cannot be"),
        (" " * (1 << 21), "say of themselves 2097152 characters"),
    ],
)
def test_what_metadata_say_is_held_to_be_foreign(text, words, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={ABOUT: text})
    with pytest.raises(ValueError, match=words):
        Weights(path).about  # noqa: B018


def test_numbers_that_are_none_and_files_that_are_too_large_are_refused(tmp_path):
    bad = STATE | {"conv_in.conv.bias": torch.full_like(STATE["conv_in.conv.bias"], float("nan"))}
    with pytest.raises(ValueError, match="8 of the 8 numbers of conv_in.conv.bias are NaN or infinite"):
        Weights(written(tmp_path / "a.safetensors", as_safetensors(bad, ABOUT_ME))).state  # noqa: B018
    with pytest.raises(ValueError, match="GB are allowed"):
        Weights(written(tmp_path / "b.safetensors"), largest=1e-5).state  # noqa: B018


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, len(CONTENT) - 1), byte=st.integers(0, 255), keep=st.integers(0, len(CONTENT)))
def test_damage_is_refused_in_one_sentence_or_does_no_harm(place, byte, keep, tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "model.safetensors"
    for content in (CONTENT[:place] + bytes([byte]) + CONTENT[place + 1 :], CONTENT[:keep]):
        try:
            weights = Weights(written(path, content))
            load_weights(network_for(weights), weights)
        except ValueError as error:
            assert str(error).startswith(f"weights {path}") and "\n" not in str(error), error


def test_the_same_weights_give_the_same_bytes():
    """The library orders metadata by chance, so that two in a row could be alike: their order is looked at."""
    assert as_safetensors(dict(reversed(STATE.items())), ABOUT_ME) == CONTENT
    length = int.from_bytes(CONTENT[:8], "little")
    assert length % 8 == 0 and list(json.loads(CONTENT[8 : 8 + length])["__metadata__"]) == ["format", ABOUT]


def test_without_the_library_what_to_install_is_said(tmp_path, monkeypatch):
    path = written(tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(
        ValueError, match=r"the library for them is missing: pip install safetensors==\S+ \(the extra \[safetensors\]\)"
    ):
        Weights(path).state  # noqa: B018
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ValueError, match="pip install safetensors=="):
        as_safetensors(STATE, ABOUT_ME)


@pytest.mark.slow
def test_a_run_gives_the_same_volume_to_the_bit(run_here, tiny_overrides, tiny_weights, thick_file, tmp_path):
    import nibabel as nib

    weights = Weights(tiny_weights)
    checkpoint = written(tmp_path / "tiny.safetensors", as_safetensors(weights.state, weights.about))
    for name, path in (("pt", tiny_weights), ("safetensors", checkpoint)):
        run_here(
            "inference", INFERENCE, tiny_overrides(thick_file, checkpoint=str(path), output_dir=str(tmp_path / name))
        )
    one, other = (nib.load(tmp_path / n / "thick/thick_recon.nii.gz").get_fdata() for n in ("pt", "safetensors"))
    assert np.array_equal(one, other)
