"""Whether a refusal speaks in our words: in a sentence that stands in the sources, and not in a library's.

Every text in the code of the package is a pattern: the parts of an f-string that are written, with anything between.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

MIN_LETTERS, MIN_WORDS = 8, 3
"""Shorter texts could stand in the message of a library by chance."""
GENERAL = re.compile(
    "^(left out|wrote) |volumes were skipped|cases failed|have no result|has changed: its results|finished before|"
    "are finished in|this is a fault of the program|Failed to instantiate component|Failed to evaluate"
)
"""Sentences that give no reason."""


def sentences(folders: Iterable[Path]) -> list[re.Pattern[str]]:
    """Patterns of the texts in the Python files of some folders, but for docstrings."""
    found: dict[str, None] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            for pieces in texts(ast.parse(path.read_text(encoding="utf-8"))):
                written = " ".join(pieces)
                letters = sum(c.isalpha() for c in written)
                if letters >= MIN_LETTERS and len(re.findall("[A-Za-z_]{2,}", written)) >= MIN_WORDS:
                    found[".*?".join(re.escape(p) for p in pieces)] = None
    return [re.compile(p) for p in found if not GENERAL.search(re.sub(r"\\(.)", r"\1", p))]


def texts(tree: ast.Module) -> Iterator[list[str]]:
    """The written pieces of each text; a line break ends one."""
    docstrings = {
        id(node.body[0].value) for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and node.body
        and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
    }  # fmt: skip
    inside = {id(v) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for v in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            whole = "".join(v.value if isinstance(v, ast.Constant) else "\0" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | inside:
            whole = node.value
        else:
            continue
        for line in whole.split("\n"):
            if pieces := [p for p in line.split("\0") if p.strip()]:
                yield [p.strip() for p in pieces]


def is_ours(line: str, patterns: Iterable[re.Pattern[str]]) -> bool:
    """Whether a line holds one of our sentences."""
    return any(p.search(line) for p in patterns)
