"""Weights: good files load, and no other file does, whatever it holds."""

import pickle

import pytest
import torch
from ignite.engine import Engine

from bundle.prior.weights import LoadWeights, load_weights
from tests.support.scans import Marker, cut_short, random_network


def differ(a, b):
    return any(not torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}], ids=["plain", "model"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_good_file_gives_the_network_that_was_saved(tmp_path, wrap, zipped):
    saved, network = random_network(seed=1), random_network(seed=2)
    path = tmp_path / "model.pt"
    torch.save(wrap(saved.state_dict()), path, _use_new_zipfile_serialization=zipped)
    assert differ(saved, network)
    load_weights(network, path)
    assert not differ(saved, network)


def test_the_handler_loads_before_the_first_iteration(tiny_weights):
    network, seen = random_network(seed=2), []
    engine = Engine(lambda engine, batch: seen.append(differ(network, random_network())))
    LoadWeights(network, str(tiny_weights)).attach(engine)
    assert differ(network, random_network())
    engine.run([0])
    assert seen == [False]


def test_a_missing_file_names_the_setting(tmp_path):
    with pytest.raises(FileNotFoundError, match="model.pt do not exist: set checkpoint"):
        load_weights(random_network(), tmp_path / "model.pt")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_truncated_file_is_refused_as_such(tmp_path, share, zipped):
    path = tmp_path / "model.pt"
    torch.save(random_network().state_dict(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="cannot be read, the file may be truncated"):
        load_weights(random_network(), cut_short(path, share))


def pickled(content, path):
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("save", [torch.save, pickled])
def test_pickled_code_is_refused_and_not_run(tmp_path, save):
    path, marker = tmp_path / "model.pt", tmp_path / "marker"
    save({"model": Marker(marker)}, path)
    with pytest.raises(ValueError, match="hold more than tensors .* could run code"):
        load_weights(random_network(), path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Marker(marker)))  # noqa: S301 - what an unsafe reader would have done
    assert marker.exists()


def test_the_refusal_of_code_does_not_teach_how_to_run_it(tmp_path):
    torch.save(Marker(tmp_path / "marker"), tmp_path / "model.pt")
    with pytest.raises(ValueError) as refused:
        load_weights(random_network(), tmp_path / "model.pt")
    assert "weights_only" not in str(refused.value)  # torch's advice is to switch the safety off


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"<html>not found</html>"])
def test_a_file_that_is_no_checkpoint_is_not_taken_for_code(tmp_path, content):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        load_weights(random_network(), path)


@pytest.mark.parametrize(
    "content",
    [[1, 2], torch.zeros(3), {"epoch": 3}, {"model": None}, {"network": {"w": torch.zeros(1)}, "epoch": 3}],
    ids=["list", "tensor", "numbers", "model is None", "training checkpoint"],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"are not a state dict of tensors: save network\.state_dict\(\)"):
        load_weights(random_network(), tmp_path / "model.pt")


@pytest.mark.parametrize("channels", [(8, 16, 16), (16, 16), (8,)], ids=["deeper", "wider", "shallower"])
def test_weights_of_another_architecture_are_refused_in_few_words(tmp_path, channels):
    torch.save(random_network(channels=channels).state_dict(), tmp_path / "model.pt")
    network = random_network(seed=2)
    with pytest.raises(ValueError, match="belong to another architecture than network_def") as refused:
        load_weights(network, tmp_path / "model.pt")
    assert len(str(refused.value)) < 1000  # and not the names of all the layers
