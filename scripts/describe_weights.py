"""Saves weights of a SliceUNet again, with what they say of themselves: how the shipped files are made of trained ones.

    python -m scripts.describe_weights trained.pt models/model.pt --spacing 1
    python -m scripts.describe_weights large.pt models/large/model.pt --spacing 1 --half \
        --channels 32 64 128 128 --num_res_blocks 2

Inference reads network, noise schedule, intensities and voxel size from the file (interslice/prior/weights.py); a bare
state dict does not say them. Of a file that does, what is not given here is kept. The same input gives the same file,
to the byte. `--half` stores float16, half the size: the network is float32 again when it is loaded.
"""

from __future__ import annotations

import argparse
import hashlib
from io import BytesIO
from pathlib import Path

import torch

from interslice.files.last_words import plain_endings
from interslice.files.whole import written_whole
from interslice.prior.network import SliceUNet
from interslice.prior.stated import DEFAULTS, SCALES, STORED, check_stated
from interslice.prior.weights import EXTRA_STATE, Weights, check_fits, encoded


def described(weights: Weights, about: dict, half: bool = False) -> dict[str, torch.Tensor]:
    """The state dict of `weights` that says `about` of itself, in float16 if `half`.

    Raises:
        ValueError: `about` is no prior, the weights are another network's, or numbers are too large for float16.
    """
    check_stated(DEFAULTS | about)
    with torch.device("meta"):
        network = SliceUNet(**about["network"])
    state = check_fits(network, weights)
    if half:
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        if lost := [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]:
            raise ValueError(f"{weights.path}: numbers of {lost[0]} are too large for float16: leave out --half")
        about = about | {STORED: {"dtype": "float16"}}
    return {EXTRA_STATE: encoded(about), **{name: tensor.contiguous() for name, tensor in state.items()}}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--channels", type=int, nargs="+")
    parser.add_argument("--num_res_blocks", type=int)
    parser.add_argument("--norm_num_groups", type=int)
    parser.add_argument("--kind", choices=SCALES, help="the intensities that it was trained on")
    parser.add_argument("--window", type=float, nargs=2, metavar="HU", help="of hounsfield: what became -1 and 1")
    parser.add_argument("--spacing", type=float, help="mm, if all volumes had one voxel size")
    parser.add_argument("--half", action="store_true")
    args = parser.parse_args(argv)
    source = Weights(args.source, args.kind)
    own, stated = source.about, EXTRA_STATE in source.state  # what is not given stays as the file says it
    given = {name: getattr(args, name) for name in own["network"] if getattr(args, name, None) is not None}
    window = dict(zip(("low", "high"), args.window)) if args.window else {}
    about = {
        "network": own["network"] | given,
        "schedule": own["schedule"],
        "scale": {"kind": args.kind or "percentiles"} | own["scale"] | window,
        "grid": own["grid"] if stated and args.spacing is None else {"spacing": args.spacing},
    }
    content = BytesIO()  # a file would take its own name into the archive
    torch.save(described(source, about, args.half), content)
    with written_whole(args.output) as partial:
        partial.write_bytes(content.getvalue())
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    print(f"wrote {args.output}: {len(content.getvalue()) / 1e6:.1f} MB, SHA-256 {digest}")


if __name__ == "__main__":
    with plain_endings("OUTPUT holds the weights"):
        main()
