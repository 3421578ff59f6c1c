"""A file of weights, whatever it holds: a state dict of finite numbers, or one sentence that says why it is none.

Nothing in a file is run: it is read by torch's `weights_only`, which knows tensors and plain containers, or as
safetensors (interslice.prior.safetensors_file). Before that, what is told by the first bytes (TorchScript, ONNX, text,
...) is named, and the sizes that a zip file declares are held against a limit, as are those of the tensors afterwards:
a small file can state large ones. torch does not check the checksums of a zip file, so they are checked here. Source of
the layout: torch.save, "Serialization semantics" in PyTorch's notes; the zip format, PKWARE's APPNOTE.TXT.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from interslice.files.content import POINTERS
from interslice.files.machine import in_gigabytes
from interslice.prior.safetensors_file import is_safetensors, read_safetensors
from interslice.prior.stated import EXTRA_STATE, STORED, decoded

LARGEST = 4.0
"""GB that weights may take, unless a limit is given."""
LARGEST_PICKLE = 64 << 20
"""Bytes of the names and shapes of a checkpoint."""
WRAPPED = ("model", "state_dict", "model_state_dict")
"""Names under which checkpoints hold the state dict beside an epoch and the like."""
PREFIXES = ("module.", "_orig_mod.")
"""Put before every name by torch's DataParallel and by torch.compile."""
OTHERS = {
    b"\x89HDF": "it is an HDF5 file",
    b"\x1f\x8b": "it is compressed by gzip: unpack it first",
    b"BZh": "it is compressed by bzip2: unpack it first",
    b"\xfd7zXZ": "it is compressed by xz: unpack it first",
    b"7z\xbc\xaf": "it is a 7z archive: unpack it first",
    b"\x93NUMPY": "it is a NumPy array",
}
"""How files begin that are no checkpoints, and what they are."""
FILLER = b"bytearray"
"""The one type that torch lets a pickle make of any size, filled; no state dict needs it."""
AGAIN = "save network.state_dict() with torch.save"
NO_TENSOR = f": they hold more than tensors, which could fill the memory: {AGAIN}"
SHOWN = 24
"""Characters of a text that are shown."""


def read_state(path: str | Path, largest: float = LARGEST) -> dict[str, torch.Tensor]:
    """The state dict of a file, or what {"model": state dict} or {"state_dict": ...} holds.

    Args:
        largest: limit of what the tensors, and the members of the file, take; in GB.

    Returns:
        name -> tensor on the CPU, without the prefix of DataParallel and torch.compile. Floating-point tensors are
        float32 and finite; a warning says which type was converted, unless the file itself does.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, another format, truncated, damaged, pickled code, no state dict, larger than `largest`,
            NaN or infinite; with the file's name.
    """
    path = Path(path)
    if os.path.isdir(path):  # which, unlike Path.is_dir, takes names that are too long for ones of no folder
        raise ValueError(f"weights {path} are a folder: name the file in it, such as {path / 'model.pt'}")
    if not os.path.exists(path):
        raise FileNotFoundError(f"weights {path} do not exist: set checkpoint to a model.pt that `run training` wrote")
    if not path.is_file():
        raise ValueError(f"weights {path} are no file, but a device, a pipe or the like")
    try:
        why = no_checkpoint(path, largest)
    except OSError as error:
        raise ValueError(f"weights {path} cannot be read: {error.strerror or error}") from None
    if why is not None:
        raise ValueError(f"weights {path} cannot be read{why}")
    state = unwrapped(loaded(path))
    if not isinstance(state, dict) or not state:
        what = "it is empty" if isinstance(state, dict) else f"it is of the type {type(state).__name__}"
        raise ValueError(f"weights {path} are not a state dict of tensors: save network.state_dict() ({what})")
    check_tensors(state, path, largest)
    return without_prefix(as_float32(state, path))


def no_checkpoint(path: Path, largest: float) -> str | None:
    """Why a file is no checkpoint of torch, as the end of a sentence; None if it may be one."""
    with path.open("rb") as file:
        start = file.read(64)
        size = os.fstat(file.fileno()).st_size
    if not start:
        return ", the file may be truncated: it is empty"
    if size > largest * 1e9:
        return f": they take {in_gigabytes(size)}, and {largest:g} GB are allowed (weights#largest)"
    if start.startswith(b"PK"):
        return no_checkpoint_in_zip(path, largest)
    for sign, fetched_by in POINTERS.items():
        if start.startswith(sign):
            return f": this is a pointer whose data were not fetched by {fetched_by}"
    if start.startswith(b"\x80"):
        with path.open("rb") as file:
            return NO_TENSOR if FILLER in file.read(LARGEST_PICKLE) else None
    for sign, what in OTHERS.items():
        if start.startswith(sign):
            return f": {what}"
    if is_safetensors(start, size):
        return None
    if path.suffix.lower() == ".onnx" or (start[0] == 8 and (b"onnx" in start or b"pytorch" in start)):
        return f": they are an ONNX model, and the network is trained and run by torch: {AGAIN}"
    words = start.lstrip()[:SHOWN].decode("latin-1")
    if words and words.isascii() and all(c.isprintable() or c.isspace() for c in words):
        return f": they are text that begins with {words.splitlines()[0].strip()!r}"
    return None


def no_checkpoint_in_zip(path: Path, largest: float) -> str | None:
    """As `no_checkpoint`, of a zip file: names, declared sizes and checksums of its members."""
    damaged = ", the file may be truncated or damaged: copy or download it again"
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [m.filename for m in members]
            if any(n.endswith("constants.pkl") for n in names):
                return f": they are a TorchScript program, which is code: {AGAIN}"
            pickles = [m for m in members if m.filename.rsplit("/", 1)[-1] == "data.pkl"]
            if len(pickles) != 1 or len(set(names)) < len(names):
                return f": they are a zip file, but not one that torch.save wrote: {AGAIN}"
            declared = sum(m.file_size for m in members)
            if declared > largest * 1e9:
                return (
                    f": unpacked they take {in_gigabytes(declared)}, and {largest:g} GB are allowed (weights#largest)"
                )
            if pickles[0].file_size > LARGEST_PICKLE:
                return f": their names and shapes take {pickles[0].file_size >> 20} MB: {AGAIN}"
            if FILLER in archive.read(pickles[0]):
                return NO_TENSOR
            if archive.testzip() is not None:
                return damaged
    except Exception:  # a zip file can be damaged in as many ways as zipfile can fail
        return damaged
    return None


def loaded(path: Path) -> object:
    """What torch, or safetensors, reads of a file without running any of it."""
    with path.open("rb") as file:
        start, size = file.read(9), os.fstat(file.fileno()).st_size
    if is_safetensors(start, size):
        return read_safetensors(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of types of storage that torch no longer writes
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles fail in as many ways as there are operations
        if holds_code(path, str(error)):
            raise ValueError(
                f"weights {path} hold more than tensors and are not loaded, because they could run code: {AGAIN}"
            ) from None
        raise ValueError(f"weights {path} cannot be read, the file may be truncated or no PyTorch checkpoint") from None


def holds_code(path: Path, refusal: str) -> bool:
    """True if torch refused a readable file for what its pickle would call, and not because it is broken."""
    with path.open("rb") as file:
        is_pickle = file.read(1) == b"\x80"
    return "Unsupported global" in refusal or (is_pickle and "Unsupported operand" in refusal)


def unwrapped(content: object) -> object:
    """The state dict in a checkpoint that names it."""
    if isinstance(content, Mapping) and not any(isinstance(v, torch.Tensor) for v in content.values()):
        return next((content[name] for name in WRAPPED if name in content), content)
    return content


def check_tensors(state: Mapping, path: Path, largest: float) -> None:
    """Raise ValueError unless these are named tensors whose numbers are there, in all not above `largest` GB."""
    for name, tensor in state.items():
        if not isinstance(name, str):
            raise ValueError(f"weights {path} are named by {type(name).__name__}, such as {name!r:.40}: {AGAIN}")
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(
                f"weights {path} are not a state dict of tensors: save network.state_dict() ({name[:80]} is of the "
                f"type {type(tensor).__name__})"
            )
        plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
        if not plain or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
            raise ValueError(f"weights {path}: {name[:80]} is no plain tensor (sparse, quantised or empty): {AGAIN}")
    stated = sum(t.numel() * max(t.element_size(), 4) for t in state.values()) / 1e9
    if stated > largest:
        raise ValueError(
            f"weights {path} state {stated:.1f} GB of numbers, and {largest:g} GB are allowed (weights#largest)"
        )


def as_float32(state: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """The same with every floating-point tensor in float32, which is said; raises ValueError for NaN and infinity."""
    converted, found = {}, set()
    for name, tensor in state.items():
        converted[name] = value = tensor.detach()
        if not value.is_floating_point():
            continue
        if value.dtype != torch.float32:
            found.add(str(value.dtype).removeprefix("torch."))
            converted[name] = value = value.to(torch.float32)
        if bad := int((~torch.isfinite(value)).sum()):
            raise ValueError(
                f"weights {path}: {bad} of the {value.numel()} numbers of {name[:80]} are NaN or infinite: the "
                "training diverged, or the file is damaged; take an earlier checkpoint"
            )
    if found - told(state):
        warnings.warn(f"weights {path} are {' and '.join(sorted(found))}, and are used in float32", stacklevel=3)
    return converted


def told(state: Mapping[str, torch.Tensor]) -> set[str]:
    """The types of numbers that a file itself says it holds: no surprise, and nothing is lost of float16."""
    try:
        return {decoded(state[EXTRA_STATE])[STORED]["dtype"]}
    except (KeyError, ValueError, TypeError):
        return set()


def without_prefix(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without what DataParallel and torch.compile put before every name."""
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return without_prefix({name.removeprefix(prefix): v for name, v in state.items()})
    return state
