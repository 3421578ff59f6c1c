"""The options of the configs, as `options.json` lists them: the one source of the help and of the tables in the docs.

Each row of a table is a row of the documentation, cell by cell; what can be set plainly has, under `options`, a kind,
the group of the help that it stands in, and a line of help. `python -m scripts.option_tables` brings the tables of the
documentation and this file together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).with_name("options.json")
LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")


@dataclass(frozen=True)
class Option:
    """An id of the configs that can be set plainly.

    Attributes:
        id: in the configs: `num_steps`, `operator#gap`.
        kind: what it takes (interslice.cli.values): its name, and words that are taken besides.
        group: heading that it stands under in the help.
        help: one line.
        unit, default: as the documentation has them, without its marks.
        task: that has the option, or this default for it; None for all.
    """

    id: str
    kind: tuple[str, ...]
    group: str
    help: str
    unit: str
    default: str
    task: str | None

    @property
    def word(self) -> str:
        """On the command line: `num-steps`, `operator-gap`."""
        return re.sub("[_#]", "-", self.id)


@lru_cache(maxsize=1)
def tables() -> list[dict]:
    """The tables, as the file holds them."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def ids_of(row: Mapping) -> list[str]:
    """The ids that a row of a table is about, in its first cell."""
    return re.findall("`([^`]+)`", row["cells"][0])


@lru_cache(maxsize=8)
def options_of(command: str, task: str | None = None) -> dict[str, Option]:
    """The options of a command, by id, in the order of the documentation.

    Args:
        command: run, evaluate, train or adapt.
        task: those that this task has, with its defaults; None for those of all tasks.
    """
    found: dict[str, Option] = {}
    for table in tables():
        if command not in table["commands"] or (task and table["task"] not in (None, task)):
            continue
        for row in table["rows"]:
            for option in _options(table, row, command):
                found.setdefault(option.id, option)
            for name in ids_of(row):  # of a task: another default
                if task and table["task"] == task and (known := found.get(table["prefix"] + name)):
                    found[known.id] = replace(known, default=_cell(table, row, "default", name) or known.default)
    return found


def _options(table: Mapping, row: Mapping, command: str) -> Iterator[Option]:
    for name, option in row.get("options", {}).items():
        if command not in option.get("commands", (command,)):
            continue
        default = _cell(table, row, "adaptation", name) if command == "adapt" else ""
        yield Option(
            id=table["prefix"] + name, kind=tuple(option["kind"]), group=option["group"], help=option["help"],
            unit=_cell(table, row, "unit", name), default=default or _cell(table, row, "default", name),
            task=table["task"],
        )  # fmt: skip


def _cell(table: Mapping, row: Mapping, column: str, name: str) -> str:
    """What a cell says of an id, without the marks of the documentation; empty where the table has no such column."""
    if column not in table["columns"]:
        return ""
    cell = LINK.sub(r"\1", row["cells"][table["columns"].index(column)])
    cell, ids = cell.replace("`", "").replace("\\|", "|"), ids_of(row)
    for sign in ("; ", ", "):  # of several ids, one after the other
        if len(ids) > 1 and len(parts := cell.split(sign)) == len(ids):
            return parts[ids.index(name)]
    return cell
