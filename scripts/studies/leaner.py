"""How long leaner networks than the shipped ones would take: what a distillation has to be worth.

    python -m scripts.studies.leaner          docs/leaner.json

Networks with random weights, on 8 slices of 208 x 80, in one thread, all in turn: seconds of the processor, the least
of several calls. bfloat16 is `torch.autocast`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from interslice.files.last_words import plain_endings
from interslice.prior.network import MODELS, SliceUNet
from scripts.studies.precision import ROUNDS, SHAPE, bfloat16, timed
from scripts.studies.record import Record

CANDIDATES = ((16, 32, 64), (8, 32, 64, 128), (16, 16, 64, 128), (16, 16, 32, 64), (16, 16, 32, 32), (8, 16, 32, 64),
              (8, 16, 32, 64, 64))  # fmt: skip
"""Channels, one residual block a level."""


def networks() -> dict[str, SliceUNet]:
    """The shipped sizes and the candidates, by name or channels."""
    options = MODELS | {"-".join(map(str, c)): {"channels": list(c), "num_res_blocks": 1} for c in CANDIDATES}
    return {name: SliceUNet(**o).eval().to(memory_format=torch.channels_last) for name, o in options.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--output", type=Path, default=Path("docs/leaner.json"))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = networks()
    ways = {"float32": found, "bfloat16": {name: bfloat16(network) for name, network in found.items()}}
    times = timed({f"{way} {name}": n for way, of in ways.items() for name, n in of.items()}, args.rounds, SHAPE)
    record = Record(args.output, {"shape": SHAPE, "threads": 1})
    for name, network in found.items():
        seconds = {way: float(f"{times[f'{way} {name}']['seconds']:.3g}") for way in ways}
        record.add([name], {"parameters": sum(p.numel() for p in network.parameters()), **seconds})
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with plain_endings("the same command begins anew"):
        main()
