"""Digests of parts: two parts with one digest do the same, in this process or in another one.

A part is told by its class, by the file of code that the class stands in, and by its public attributes, at any depth; a
network by its layers and their weights. Names with an underscore in front and cached properties hold what was computed
from these, at a time that is chance, and are left out: a part of your own must not hide there what its result depends
on.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from enum import Enum
from functools import cached_property
from pathlib import Path

import monai
import numpy as np
import torch

import interslice

BYTES = 8
"""Of a digest. Among a million parts the chance that two share one is 3e-8."""
PLAIN = (
    type(None), bool, int, float, complex, str, bytes, slice, Path, np.generic, torch.device, torch.dtype, torch.Size,
)  # fmt: skip
"""What `repr` tells."""


def digest(*parts: object) -> str:
    """16 hexadecimal digits of the parts.

    Raises:
        TypeError: something has no attributes that it could be told by.
    """
    found = hashlib.blake2b(digest_size=BYTES)
    for part in parts:
        for piece in told(part):
            found.update(piece)
    return found.hexdigest()


def told(part: object, within: tuple[int, ...] = ()) -> Iterator[bytes | memoryview]:
    """What tells a part; `within`: ids of the parts that it is in, to which it may lead back."""
    yield f"<{type(part).__module__}.{type(part).__qualname__} ".encode()
    if id(part) in within:
        yield b"again"
    elif isinstance(part, Enum):
        yield part.name.encode()
    elif isinstance(part, PLAIN):
        yield repr(part).encode()
    elif isinstance(part, torch.Tensor):
        yield f"{part.dtype} {tuple(part.shape)} ".encode()
        yield memoryview(part.detach().cpu().resolve_conj().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(part, np.ndarray):
        yield f"{part.dtype} {part.shape} ".encode()
        yield np.ascontiguousarray(part).tobytes()
    else:
        for piece in pieces(part):
            yield from told(piece, (*within, id(part)))
    yield b">"


def pieces(part: object) -> list:
    """What a container, a function, a network or any other object consists of."""
    if isinstance(part, Mapping):
        return [item for pair in part.items() for item in pair]
    if isinstance(part, Sequence):
        return list(part)
    if isinstance(part, Set):
        return sorted(part, key=repr)
    if isinstance(part, functools.partial):
        return [part.func, part.args, part.keywords]
    if isinstance(part, types.MethodType):
        return [part.__func__, part.__self__]
    if isinstance(part, types.FunctionType):
        cells = [cell.cell_contents for cell in part.__closure__ or ()]
        return [part.__qualname__, code_of(part.__module__), part.__code__, part.__defaults__, cells]
    if isinstance(part, types.CodeType):
        return [part.co_code, part.co_consts, part.co_names]
    if isinstance(part, (type, types.BuiltinFunctionType, types.ModuleType)):
        name = getattr(part, "__qualname__", part.__name__)
        return [name, code_of(getattr(part, "__module__", None) or part.__name__), getattr(part, "__self__", None)]
    if isinstance(part, torch.nn.Module):
        return [piece for name, module in part.named_modules() for piece in (name, *layer(module))]
    if hasattr(part, "__wrapped__"):  # a cache of results around a function
        return [part.__wrapped__]
    if not hasattr(part, "__dict__"):
        raise TypeError(f"{part!r} has no attributes by which it could be told from others of its class")
    return [code_of(type(part).__module__), public(part)]


def layer(module: torch.nn.Module) -> list:
    """What a layer of a network consists of, without the layers within."""
    values = {k: v for k, v in public(module).items() if isinstance(v, (*PLAIN, list, tuple, np.ndarray))}
    weights = [dict(module.named_parameters(recurse=False)), dict(module.named_buffers(recurse=False))]
    return [type(module), values, *weights]


def public(part: object) -> dict:
    """Attributes of an object, but for what it computed of them."""
    classes = type(part).__mro__
    computed = {name for c in classes for name, value in vars(c).items() if isinstance(value, cached_property)}
    return {k: v for k, v in vars(part).items() if not k.startswith("_") and k not in computed}


@functools.cache
def code_of(module: str) -> str:
    """Digest of the file of a module; nothing of one that has none, as a notebook."""
    path = Path(getattr(sys.modules.get(module), "__file__", None) or "")
    return hashlib.blake2b(path.read_bytes(), digest_size=BYTES).hexdigest() if path.is_file() else ""


@functools.cache
def of_versions() -> str:
    """Digest of the code of this package, and of the versions of the libraries that compute."""
    code = [path.read_bytes() for path in sorted(Path(interslice.__file__).parent.rglob("*.py"))]
    return digest(code, sys.version_info[:2], torch.__version__, monai.__version__, np.__version__)
