"""Weights as safetensors: the same numbers as in a .pt file, in a format that holds nothing but tensors and text.

    8 bytes      length N of the header, little endian
    N bytes      JSON: tensor -> type, shape, place; "__metadata__": name -> text
    the rest     numbers

What a .pt file says of itself under "_extra_state" (interslice.prior.stated) stands as JSON in the metadata, under
"interslice". Read and written by the library safetensors (Apache-2.0), which checks the header against the file.
Source of the layout: the README of huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from interslice.prior.stated import EXTRA_STATE, LONGEST_TEXT, STORED, encoded

ABOUT = "interslice"
"""Of the metadata: what the weights say of themselves."""
INSTALL = "pip install safetensors==0.8.0 (the extra [safetensors])"


def is_safetensors(start: bytes, size: int) -> bool:
    """Whether a file that begins so, at least 9 bytes of `size`, is safetensors."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, and under "_extra_state" what its metadata say.

    Raises:
        ValueError: damaged, or the library is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise ValueError(f"weights {path} are safetensors, and the library for them is missing: {INSTALL}") from None
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            text = (file.metadata() or {}).get(ABOUT)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"weights {path} cannot be read, the file may be truncated or damaged ({error!s:.200})"
        ) from None
    if text is None:
        return state
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"weights {path} say of themselves {len(text)} characters, and {LONGEST_TEXT} are allowed")
    # As text, whatever it says: it is held to be foreign where that of any file is.
    return state | {EXTRA_STATE: torch.tensor(list(text.encode("utf-8")), dtype=torch.uint8)}


def as_safetensors(state: Mapping[str, torch.Tensor], about: Mapping[str, Mapping]) -> bytes:
    """The content of a file; the same weights give the same bytes.

    Args:
        state: the state dict, with or without "_extra_state".
        about: what the file says of itself; with {"stored": {"dtype": "float16"}} that is how numbers are kept.

    Raises:
        ValueError: the library is not installed.
    """
    try:
        from safetensors.torch import save
    except ImportError:
        raise ValueError(f"safetensors need a library that is missing: {INSTALL}") from None
    half = about.get(STORED, {}).get("dtype") == "float16"
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).detach().cpu().contiguous().clone()
        for name, tensor in state.items()
        if name != EXTRA_STATE
    }
    text = bytes(encoded(dict(about)).tolist()).decode("utf-8")
    return _in_order(save(tensors, metadata={"format": "pt", ABOUT: text}))


def _in_order(content: bytes) -> bytes:
    """The same file with its metadata in a fixed order: the library's differs from process to process."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    written = json.dumps(header, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)  # numbers begin at a multiple of 8 bytes
    return len(written).to_bytes(8, "little") + written + content[8 + length :]
