"""Shorter numbers and other back ends: what they change in a volume, and the time of a pass.

    python -m scripts.studies.precision          docs/precision.json; the embedded sample, preset fast

The same reconstruction with the same draws, once by each way of computing the network. Reference is float32 by torch.
TF32, which no CPU has, is emulated: what enters convolutions and linear layers, and their weights, is rounded to the
nearest number of 10 bits of mantissa; products and sums stay in float32, as on the hardware. bfloat16 is
`torch.autocast`, which leaves normalisation in float32. OpenVINO is tried where it is installed (it is no requirement).

    to_float32     PSNR (dB) of the volume against that of the reference
    psnr           against the truth
    seconds        of the processor, for a network call on 8 slices of 208 x 80: the least of several, all ways in turn
    first          seconds of a clock that the first call takes
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from interslice.files.last_words import plain_endings
from interslice.report.evaluation import DATA_RANGE
from scripts.studies.bench import Bench
from scripts.studies.record import Record, sha256

Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
SAMPLE = Path("sample_data/mri/truth/colin27_t1.nii.gz")
SHAPE = (8, 1, 208, 80)
"""Of the calls that are timed: slices of the sample."""
ROUNDS = 8
TF32_BITS = 10


def rounded(x: torch.Tensor, bits: int = TF32_BITS) -> torch.Tensor:
    """The nearest float32 with `bits` bits of mantissa, halves to even, in the layout of x; finite x."""
    cut = 23 - bits
    whole = x.detach().view(torch.int32)
    half = (1 << (cut - 1)) - 1 + ((whole >> cut) & 1)
    return ((whole + half) >> cut << cut).view(torch.float32)


def tf32(network: nn.Module) -> Network:
    """A copy whose convolutions and linear layers take rounded numbers."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data = rounded(module.weight)
            module.register_forward_pre_hook(lambda _, given: (rounded(given[0]), *given[1:]))
    return network


def bfloat16(network: nn.Module) -> Network:
    """torch.autocast."""

    def call(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return network(x, t).float()

    return call


def openvino(network: nn.Module, precision: str) -> Network:
    """OpenVINO's CPU plug-in, shapes left open."""
    import openvino as ov

    example = torch.zeros(2, 1, 64, 64), torch.zeros(2, dtype=torch.long)
    model = ov.convert_model(network, example_input=example, input=[[-1, 1, -1, -1], [-1]])
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = ov.compile_model(model, "CPU", options)
    return lambda x, t: torch.from_numpy(compiled((x.contiguous().numpy(), t.numpy()))[0].copy())


WAYS: dict[str, Callable[[nn.Module], Network]] = {
    "float32": lambda network: network,
    "tf32": tf32,
    "bfloat16": bfloat16,
    "compiled": torch.compile,
    "openvino float32": lambda network: openvino(network, "f32"),
    "openvino bfloat16": lambda network: openvino(network, "bf16"),
}
EMULATED = ("tf32",)
"""Not timed."""


def available() -> list[str]:
    """Names of WAYS that can be taken here."""
    there = importlib.util.find_spec("openvino") is not None
    return [name for name in WAYS if there or not name.startswith("openvino")]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of one volume against another, dB."""
    return float(10 * torch.log10(DATA_RANGE**2 / (a - b).square().mean()))


@torch.no_grad()
def timed(networks: dict[str, Network], rounds: int, shape: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """`seconds` and `first`, as above; all networks in turn."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)
    t = torch.full(shape[:1], 100)

    def seconds(network: Network, clock: Callable[[], float]) -> float:
        start = clock()
        network(x, t)
        return clock() - start

    first = {name: seconds(network, time.perf_counter) for name, network in networks.items()}
    least = dict.fromkeys(networks, float("inf"))
    for _ in range(rounds):
        for name, network in networks.items():
            least[name] = min(least[name], seconds(network, time.process_time))
    return {name: {"seconds": least[name], "first": first[name]} for name in networks}


def main(argv: list[str] | None = None, **others) -> None:
    """`others`, ids of the configs, are for tests with a tiny network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", type=Path, default=SAMPLE)
    parser.add_argument("--model", default="small")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--ways", nargs="+", default=available(), choices=WAYS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--output", type=Path, default=Path("docs/precision.json"))
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    ids = {"model": args.model, "preset": args.preset, "precision": "float32", "report": False}
    bench = Bench([], args.volume, **ids | others)
    settings = {"volume": args.volume.name, "sha256": sha256(args.volume), "model": args.model, "preset": args.preset,
                "threads": args.threads}  # fmt: skip
    record = Record(args.output, settings)
    ways = {name: WAYS[name](bench.network) for name in args.ways}
    times = timed({n: w for n, w in ways.items() if n not in EMULATED}, args.rounds, SHAPE)
    reference = bench.sample()
    for name, network in ways.items():
        bench.network = network
        volume = reference if name == "float32" else bench.sample()
        found = {"psnr": psnr(volume, bench.truth), "to_float32": None, **times.get(name, {})}
        if name != "float32":
            found["to_float32"] = psnr(volume, reference)
        record.add([name], {k: v if v is None else float(f"{v:.4g}") for k, v in found.items()})
        print(name, record.get([name]), flush=True)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command begins anew"):
        main()
