"""The studies of time: the laws of what they emulate, a run of each on a tiny network, and the tables."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.prior.network import SliceUNet
from scripts.studies import leaner, precision, quality_time, skip_air, speed_tables
from tests.support.helpers import repeatable
from tests.support.scans import head_voxels, random_network, write_volume

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@repeatable
@given(st.lists(FLOATS, min_size=1, max_size=20), st.integers(1, 22))
def test_numbers_are_rounded_to_the_nearest_with_so_many_bits(values, bits):
    """Against numpy's own frexp and round, which rounds halves to even."""
    x = np.array(values, dtype=np.float32)
    mantissa, exponent = np.frexp(x.astype(np.float64))
    expected = np.ldexp(np.round(mantissa * 2.0 ** (bits + 1)), exponent - bits - 1)
    found = precision.rounded(torch.from_numpy(x), bits).numpy()
    assert np.array_equal(found, expected.astype(np.float32))
    assert np.array_equal(precision.rounded(torch.from_numpy(found.copy()), bits).numpy(), found)


def test_bfloat16_is_the_rounding_to_seven_bits():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(precision.rounded(x, 7), x.bfloat16().float())


def test_rounding_keeps_the_layout():
    x = torch.randn(2, 8, 4, 6).contiguous(memory_format=torch.channels_last)
    assert precision.rounded(x).is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_emulated_products_are_of_rounded_factors_and_the_network_stays():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 5)).eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    x = torch.randn(2, 3, 8, 8)
    conv, linear = network[0], network[2]
    hidden = torch.nn.functional.conv2d(precision.rounded(x), precision.rounded(conv.weight), conv.bias).flatten(1)
    expected = torch.nn.functional.linear(precision.rounded(hidden), precision.rounded(linear.weight), linear.bias)
    found = precision.tf32(network)(x)
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.equal(found, network(x))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@torch.no_grad()
def test_shorter_numbers_are_further_off():
    network, x, t = random_network().eval(), torch.randn(2, 1, 16, 16), torch.tensor([10, 700])
    exact = network(x, t)
    errors = [float((way(network)(x, t) - exact).norm() / exact.norm()) for way in (precision.tf32, precision.bfloat16)]
    assert 0 < errors[0] < errors[1] < 0.05


def test_psnr_is_that_of_a_known_error():
    a = torch.zeros(4, 4, 4)
    assert precision.psnr(a + 0.02, a) == pytest.approx(20 * math.log10(2 / 0.02), abs=1e-4)


def test_every_candidate_is_a_network():
    for name, network in leaner.networks().items():
        assert isinstance(network, SliceUNet), name
        side = 2 * network.multiple
        assert network(torch.zeros(1, 1, side, side), torch.zeros(1)).shape == (1, 1, side, side)


@pytest.fixture
def tiny(tmp_path, tiny_weights):
    write_volume(tmp_path / "truth/head.nii.gz", head_voxels((24, 20, 20)))
    ids = {"checkpoint": str(tiny_weights), "device": "$torch.device('cpu')", "operator#ratio": 5}
    return tmp_path / "truth/head.nii.gz", ids


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_quality_and_time_are_measured_and_drawn(tmp_path, tiny, tiny_weights, threads):
    volume, ids = tiny
    output = tmp_path / "docs/quality_time.json"
    words = ["--volume", str(volume), "--networks", "small", "--precisions", "float32", "--steps", "2", "1",
             "--output", str(output)]  # fmt: skip
    quality_time.main([*words, "--before", str(tiny_weights)], **ids)
    written = output.stat().st_mtime_ns
    record = json.loads(output.read_text())
    of = record["results"]["small"]["float32"]
    assert of.keys() == {"1", "2"} and of["2"]["0"].keys() == {"1", "2"}
    assert of["2"]["0"]["1"]["seconds"] < of["2"]["0"]["2"]["seconds"]
    assert record["results"][quality_time.OWN]["float32"]["3"]["0"].keys() == {"4"}
    assert output.with_suffix(".png").stat().st_size > 5000
    alone = quality_time.Bench([], volume, report=False, num_draws=1, num_steps=2, precision="float32",
                               inferer="@sampler", **ids)  # fmt: skip
    assert alone.measure(alone.sample())["psnr"] == pytest.approx(of["2"]["0"]["1"]["psnr"], abs=1e-3)
    quality_time.main([*words, "--before", str(tiny_weights)], **ids)
    assert output.stat().st_mtime_ns == written  # nothing was missing
    text = speed_tables.quality_text(record)
    assert sum(line.startswith("| small | float32 |") for line in text.splitlines()) == 4
    assert "| version 0.4.0 | float32 | 3 | 4 |" in text and "| cubic consistent |" in text


@pytest.mark.slow
def test_precisions_and_boxes_are_measured(tmp_path, tiny, threads, monkeypatch):
    volume, ids = tiny
    monkeypatch.setattr(precision, "SHAPE", (2, 1, 16, 16))
    output = tmp_path / "precision.json"
    precision.main(["--volume", str(volume), "--ways", "float32", "tf32", "bfloat16", "--rounds", "1",
                    "--output", str(output)], **ids)  # fmt: skip
    results = json.loads(output.read_text())["results"]
    assert results["float32"]["to_float32"] is None and "seconds" not in results["tf32"]
    assert results["tf32"]["to_float32"] > results["bfloat16"]["to_float32"] > 20
    assert "| tf32 | – | – |" in speed_tables.precision_text({"results": results})
    found = skip_air.run(volume, ids | {"num_steps": 2, "num_draws": 1})
    assert found.keys() == {"with", "without"} and "to_without" in found["with"]
    text = speed_tables.air_text({"results": {"head": {"margin 8": found}}})
    assert text.splitlines()[2].startswith("| `head` |")


def test_the_page_is_filled_from_what_is_there(tmp_path):
    page = tmp_path / "speed.md"
    page.write_text("".join(f"<!-- {name} -->\nold\n<!-- /{name} -->\n" for name in speed_tables.TEXTS))
    own = {"psnr": 29.0, "psnr_inside": 28.0, "ssim": 0.91, "error_coronal": 0.014, "seconds": 100.0}
    quick = own | {"psnr": 28.9, "seconds": 10.0}
    good = own | {"psnr": 29.5, "seconds": 25.0}
    results = {
        "baselines": {"cubic_consistent": own},
        quality_time.OWN: {"float32": {"3": {"0": {"4": own}}}},
        "small": {"bfloat16": {"1": {"0": {"2": quick}}, "2": {"0": {"2": good}, "1": {"2": good}}}},
    }
    (tmp_path / "quality_time.json").write_text(json.dumps({"results": results}))
    (tmp_path / "leaner.json").write_text(json.dumps({"results": {
        "small": {"parameters": 2_400_000, "float32": 0.5, "bfloat16": 0.3},
        "8-16": {"parameters": 100_000, "float32": 0.2, "bfloat16": 0.1},
    }}))  # fmt: skip
    (tmp_path / "benchmark_before.json").write_text(json.dumps({
        "start_up_s": 6.0, "run": {"device": "CPU, 2 threads"}, "paired": {
            "pairs": 3, "0.4.0": {"whole_run_s": 20.0, "parts_s": {"network": 18.0}},
            "now": {"whole_run_s": 10.0, "parts_s": {"noise": 1.0, "network": 9.0}},
            "now over 0.4.0": {"median": 0.5, "each": [0.5, 0.48, 0.52]},
        },
    }))  # fmt: skip
    assert speed_tables.write_speed(tmp_path) == [page]
    text = page.read_text()
    assert "| small | bfloat16 | 2 | 2 | 25 | 0.25 | 29.50 |" in text
    assert "small network, bfloat16, 2 steps, 2 draws, 29.50 dB in 25 percent of its time" in text
    assert "| 8-16 | 0.10 | 0.200 | 2.50 | 0.100 | 3.00 |" in text
    assert "| network | 18.00 | 9.00 |\n| noise | 0.00 | 1.00 |\n| all | 20.00 | 10.00 |" in text
    assert "CPU, 2 threads: 0.50 of the time (0.48 to 0.52 in 3 pairs), after 6 s" in text
    assert text.count("old") == 2  # of what there is no JSON
