"""A file of weights, whatever it holds, is taken as it is meant or refused in one sentence; nothing in it is run."""

import io
import json
import pickle
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interslice.prior.network import network_for
from interslice.prior.weights import EXTRA_STATE, LoadWeights, Weights, load_weights
from interslice.prior.weights_file import read_state
from tests.support.scans import random_network

STATE = dict(random_network().state_dict())
TENSORS = {name: v for name, v in STATE.items() if name != EXTRA_STATE}
FIRST = next(iter(TENSORS))


def content_of(state, **how):
    file = io.BytesIO()
    torch.save(state, file, **how)
    return file.getvalue()


ZIPPED = content_of(STATE)
LEGACY = content_of(STATE, _use_new_zipfile_serialization=False)


def cast(to):
    return {name: v.to(to) if name != EXTRA_STATE else v for name, v in STATE.items()}


def zip_of(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def members_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def refusal(content, path):
    """The one sentence that refuses a file, wherever on the way to a network."""
    path.write_bytes(content)
    with pytest.raises(ValueError) as refused:
        weights = Weights(path)
        load_weights(network_for(weights), weights)
    message = str(refused.value)
    assert message.startswith(f"weights {path}") and "\n" not in message and len(message) < 600, message
    return message


TRACED = io.BytesIO()
torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), TRACED)
ARRAYS = io.BytesIO()
np.savez(ARRAYS, a=np.zeros(3))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"hello", "text that begins with 'hello'"),
        (b"a,b,c\n1,2,3\n", "text that begins with 'a,b,c'"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "pointer whose data were not fetched by Git LFS"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
        (b"\x1f\x8b\x08" + bytes(99), "compressed by gzip: unpack it first"),
        ((60).to_bytes(8, "little") + b'{"a":{"dtype":"F32"}}' + bytes(60), "the file may be truncated or damaged"),
        (b"\x08\x07\x12\x07pytorch\x1a\x05" + bytes(99), "an ONNX model"),
        (TRACED.getvalue(), "a TorchScript program, which is code"),
        (ARRAYS.getvalue(), "a zip file, but not one that torch.save wrote"),
        (ZIPPED[:-9], "truncated or damaged"),
        (LEGACY[:15984], "the file may be truncated or no PyTorch checkpoint"),
        (bytes(5000), "the file may be truncated or no PyTorch checkpoint"),
        (pickle.dumps({"a": 1}), "hold more than tensors and are not loaded"),
        (content_of({"a": bytearray(3)}), "more than tensors, which could fill the memory"),
        (content_of({"a": bytearray(3)}, _use_new_zipfile_serialization=False), "could fill the memory"),
        (b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "could fill the memory"),
        (content_of({}), "it is empty"),
        (content_of([1]), "it is of the type list"),
        (content_of(dict(enumerate(TENSORS.values()))), "are named by int, such as 0"),
        (content_of(STATE | {"epoch": 3}), "epoch is of the type int"),
        (content_of({"optimizer": STATE}), "optimizer is of the type dict"),
    ],
)
def test_what_is_no_state_dict_is_named(content, words, tmp_path):
    assert words in refusal(content, tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.int(), "of the type int32 in place of floating-point numbers"),
        (lambda v: v.bool(), "of the type bool in place of"),
        (lambda v: v.to(torch.complex64), "of the type complex64 in place of"),
        (lambda v: v * float("nan"), "numbers of conv_in.* are NaN or infinite"),
        (lambda v: v / 0, "are NaN or infinite"),
        (lambda v: v.double() * 1e300, "are NaN or infinite"),  # in the network's float32
        (lambda v: v.to_sparse(), "is no plain tensor"),
        (lambda v: v.to("meta"), "is no plain tensor"),
        (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), "is no plain tensor"),
        (lambda v: v[None], r"first \[1, 8, 1, 3, 3\] in place of \[8, 1, 3, 3\]"),
        (lambda v: torch.zeros(1).expand(10**6, 10**6), "state 4000.0 GB of numbers, and 4 GB are allowed"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_of_another_kind_are_named(change, words, tmp_path):
    assert re.search(words, refusal(content_of(STATE | {FIRST: change(STATE[FIRST])}), tmp_path / "model.pt"))


def test_whole_numbers_do_not_load_as_zeros(tmp_path):
    said = refusal(content_of(cast(torch.int32)), tmp_path / "model.pt")
    assert f"{FIRST}, conv_in.conv.bias, " in said and f"and {len(TENSORS) - 3} more of the type int32" in said


@pytest.mark.parametrize("to", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_and_that_is_said(to, tmp_path):
    torch.save(cast(to), tmp_path / "model.pt")
    with pytest.warns(UserWarning, match=f"are {str(to)[6:]}, and are used in float32"):
        network = load_weights(random_network(seed=2), tmp_path / "model.pt")
    for name, tensor in TENSORS.items():
        assert torch.equal(network.state_dict()[name], tensor.to(to).float())


@pytest.mark.parametrize("outer", [None, "model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_others_wrap_around_a_state_dict_is_taken_off(outer, prefix, tmp_path):
    state = {prefix + name: v for name, v in STATE.items()}
    torch.save(state if outer is None else {outer: state, "epoch": 3, "optimizer": {"lr": 1}}, tmp_path / "model.pt")
    weights = Weights(tmp_path / "model.pt")
    network = load_weights(network_for(weights), weights)
    assert all(torch.equal(network.state_dict()[name], v) for name, v in TENSORS.items())


def test_a_network_that_is_wrapped_itself_is_loaded(tmp_path):
    torch.save(STATE, tmp_path / "model.pt")
    wrapped = torch.nn.Sequential()
    wrapped.add_module("module", random_network(seed=2))
    state = {name.removeprefix("module."): v for name, v in wrapped.state_dict().items()}
    assert not torch.equal(state[FIRST], STATE[FIRST])
    load_weights(wrapped, tmp_path / "model.pt")
    assert torch.equal(wrapped.module.state_dict()[FIRST], STATE[FIRST])


def test_missing_and_surplus_names_are_given_the_first_few(tmp_path):
    names = list(TENSORS)
    left = {n: v for n, v in STATE.items() if n not in names[:5]} | {"mine": torch.zeros(2)}
    said = refusal(content_of(left), tmp_path / "model.pt")
    assert f"they lack {', '.join(names[:3])} and 2 more; they have mine besides" in said


def test_the_handler_refuses_when_it_is_made(tmp_path):
    """And so before the volumes of a run are read."""
    torch.save(random_network(channels=(16, 16)).state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="another architecture"):
        LoadWeights(random_network(), tmp_path / "model.pt")


# -- sizes ------------------------------------------------------------------------------------------
def test_a_small_file_that_unpacks_to_much_is_refused_by_what_it_declares(tmp_path):
    bomb = zip_of(members_of(ZIPPED) | {"archive/data/999": bytes(30 << 20)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 200_000
    path = tmp_path / "model.pt"
    path.write_bytes(bomb)
    with pytest.raises(ValueError, match=r"unpacked they take [\d.]+ MB, and 0\.02 GB are allowed \(weights#largest\)"):
        read_state(path, 0.02)
    read_state(path, 0.04)
    path.write_bytes(ZIPPED + bytes(10))
    with pytest.raises(ValueError, match="and 1e-05 GB are allowed"):
        read_state(path, 1e-5)


@pytest.mark.parametrize("largest", [0, -1, "x"])
def test_the_limit_is_a_number(largest, tmp_path):
    with pytest.raises(ValueError, match="largest must be a number of GB above 0"):
        Weights(tmp_path / "model.pt", largest=largest)


def test_members_are_held_against_their_checksums(tmp_path):
    """torch itself would take a flipped bit for a weight."""
    at = ZIPPED.index(TENSORS[FIRST].numpy().tobytes()[:64])
    flipped = ZIPPED[: at + 2] + bytes([ZIPPED[at + 2] ^ 1]) + ZIPPED[at + 3 :]
    assert "damaged" in refusal(flipped, tmp_path / "model.pt")


# -- what they say of themselves --------------------------------------------------------------------
def saying(**parts):
    text = json.dumps(random_network().about | parts).encode()
    return content_of(STATE | {EXTRA_STATE: torch.tensor(list(text), dtype=torch.uint8)})


OWN = random_network().about["network"]
LINEAR = {"schedule": "linear_beta", "beta_start": 1e-4, "beta_end": 0.02}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"network": OWN | {"channels": [10**6, 10**6]}}, "channels must be 1 to 8 whole numbers up to 4096"),
        ({"network": OWN | {"channels": [8] * 500}}, "channels must be"),
        ({"network": OWN | {"channels": [6, 16]}}, "divisible by norm_num_groups, 4"),
        ({"network": OWN | {"channels": [4096] * 8}}, "belong to another architecture"),  # and 4 GB were not taken
        ({"network": OWN | {"num_res_blocks": 10**9}}, "num_res_blocks must be a whole number from 1 to 16"),
        ({"network": OWN | {"norm_num_groups": 0}}, "norm_num_groups must be a whole number from 1, got 0"),
        ({"network": OWN | {"hidden": 3}}, "a network has no hidden"),
        ({"schedule": LINEAR | {"beta_end": 5.0}}, "alpha-bars that fall from 1 and stay above 0"),
        ({"schedule": LINEAR | {"beta_start": float("nan")}}, "alpha-bars that fall"),
        ({"schedule": LINEAR | {"schedule": "steep"}}, "alpha-bars that fall"),
        ({"schedule": LINEAR | {"num_train_timesteps": 10**9}}, "schedule must give 2 to 100000 alpha-bars"),
        ({"scale": {"kind": "kelvin"}}, "kind must be one of percentiles, hounsfield, got 'kelvin'"),
        ({"scale": {"kind": "hounsfield", "low": 5, "high": 1}}, "low and high must be two rising numbers"),
        ({"grid": {"spacing": -1}}, "spacing must be a number of mm above 0"),
    ],
)
def test_nonsense_about_themselves_is_named(parts, words, tmp_path):
    assert words in refusal(saying(**parts), tmp_path / "model.pt")


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 5000, b"1" * 6000, b'{"grid": 1}'])
def test_text_that_json_cannot_take_is_refused(text, tmp_path):
    content = content_of(STATE | {EXTRA_STATE: torch.tensor(list(text), dtype=torch.uint8)})
    assert "do not say in readable words" in refusal(content, tmp_path / "model.pt")


def test_other_places_than_files(tmp_path):
    with pytest.raises(ValueError, match="are a folder: name the file in it"):
        read_state(tmp_path)
    with pytest.raises(FileNotFoundError, match="do not exist"):
        read_state(tmp_path / ("x" * 300))


# -- damage -----------------------------------------------------------------------------------------
PICKLED = members_of(ZIPPED)
DATA = next(name for name in PICKLED if name.endswith("data.pkl"))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_damage_is_refused_in_one_sentence_or_changes_nothing_else(data, tmp_path_factory):
    """Bytes of the pickle, with right checksums, and of whole files; numbers of an old file are not protected."""
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    kind = data.draw(st.sampled_from(["pickle", "zip", "legacy", "cut"]))
    content = {"pickle": PICKLED[DATA], "legacy": LEGACY[:4000]}.get(kind, ZIPPED)
    at = data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4))
    if kind == "cut":
        content = content[: at[0]]
    changed = bytearray(content)
    for place in at if kind != "cut" else ():
        changed[place] ^= data.draw(st.integers(1, 255))
    if kind == "pickle":
        changed = zip_of(PICKLED | {DATA: bytes(changed)})
    path.write_bytes(bytes(changed) + (LEGACY[4000:] if kind == "legacy" else b""))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            weights = Weights(path)
            network = load_weights(network_for(weights), weights)
    except (ValueError, FileNotFoundError) as refused:
        assert str(refused).startswith(f"weights {path}") and "\n" not in str(refused)
    else:
        assert all(t.isfinite().all() and t.is_floating_point() for t in network.parameters())
