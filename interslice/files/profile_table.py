"""A slice profile from a file: depths in mm off the middle of the slice, and the response at each.

.csv, .txt     two numbers a line, between them a comma, a semicolon or blanks; lines of words and of # are skipped
.json          {"position_mm": [...], "response": [...]}, or a list of pairs
"""

from __future__ import annotations

import json
import re
from pathlib import Path

SUFFIXES = (".csv", ".txt", ".json")
LARGEST = 1_000_000
"""Bytes: a profile has some hundred lines."""


def is_profile_file(name: object) -> bool:
    """Whether this is the name of a file that holds a profile, by its end."""
    return isinstance(name, (str, Path)) and str(name).lower().endswith(SUFFIXES)


def read_profile(path: str | Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Depths in mm, and the response at each.

    Raises:
        ValueError: the file is not there, too large, or holds no pairs of numbers; it names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"profile: there is no file {path}")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"profile: {path} has {path.stat().st_size} bytes, more than a slice profile takes")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"profile: {path} is no text") from None
    pairs = _of_json(path, text) if path.suffix.lower() == ".json" else _of_lines(path, text)
    if not pairs:
        raise ValueError(f"profile: {path} holds no line of two numbers, depth in mm and response")
    return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)


def _of_lines(path: Path, text: str) -> list[tuple[float, float]]:
    pairs = []
    for count, line in enumerate(text.splitlines(), 1):
        fields = [f for f in re.split(r"[,;\s]+", line.split("#")[0].strip()) if f]
        if not fields or (not pairs and not any(c.isdigit() for c in line)):
            continue
        try:
            depth, response = map(float, fields)
        except ValueError:
            if pairs or re.match(r"^[\d.+-]", fields[0]):
                raise ValueError(f"profile: line {count} of {path} is not two numbers: {line.strip()[:60]!r}") from None
            continue  # a header such as "z1 response"
        pairs.append((depth, response))
    return pairs


def _of_json(path: Path, text: str) -> list[tuple[float, float]]:
    try:
        held = json.loads(text)
        if isinstance(held, dict):
            held = list(zip(held["position_mm"], held["response"], strict=True))
        return [(float(depth), float(response)) for depth, response in held]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"profile: {path} is not {{'position_mm': [...], 'response': [...]}} or a list of pairs ({error})"
        ) from None
