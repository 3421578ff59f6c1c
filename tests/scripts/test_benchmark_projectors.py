"""The comparison of projectors: what is timed is named, with the device that it ran on."""

import json

import pytest
import torch

from interslice.usage import UsageError

pytestmark = pytest.mark.slow  # all of ITK is loaded


@pytest.fixture
def script(monkeypatch):
    module = pytest.importorskip("scripts.studies.benchmark_projectors")
    monkeypatch.setattr(module, "SHAPES", {"tiny": (12, 12, 4)})
    return module


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.cuda),
    ],
)
def test_it_names_what_it_timed_and_where(script, device, tmp_path, capsys):
    script.main(["--repeats", "1", "--device", device, "--output", str(tmp_path / "a.json")])
    found = json.loads((tmp_path / "a.json").read_text())
    assert json.loads(capsys.readouterr().out) == found
    expected = f"{torch.get_num_threads()} threads" if device == "cpu" else torch.cuda.get_device_name()
    assert found["device"].startswith(expected) and found["threads"] == torch.get_num_threads()
    names = {case: set(seconds) for case, seconds in found["seconds"].items()}
    if device == "cpu":
        assert names == {
            "parallel, tiny": {"ours", "RTK", "scikit-image"}, "cone, tiny": {"ours, numba", "ours, torch", "RTK"}
        }  # fmt: skip
    else:
        assert {"ours, GPU", "ours, CPU"} <= names["parallel, tiny"] and "ours, CPU, numba" in names["cone, tiny"]
    times = [t for case in found["seconds"].values() for pair in case.values() for t in pair.values()]
    assert all(0 < t < 60 for t in times)


def test_a_device_that_is_not_there_is_refused_before_the_work(script):
    with pytest.raises(UsageError, match="device cuda:99 cannot be used"):
        script.main(["--device", "cuda:99"])
