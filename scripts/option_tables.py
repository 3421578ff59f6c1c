"""Brings the tables of options in docs/ and `interslice/cli/options.json`, which the help is made of, together.

    python -m scripts.option_tables             # says what differs, with status 1
    python -m scripts.option_tables --write     # the tables from the file
    python -m scripts.option_tables --take      # the file from the tables; options keep their kind and their help

A table stands in docs/ between `<!-- options: NAME -->` and `<!-- /options -->`. A row that is new in the file has no
option yet: give it one where the id can be set plainly (interslice/cli/options.py).
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from interslice.cli.options import FILE, tables
from interslice.files.last_words import plain_endings
from interslice.files.whole import written_whole

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"<!-- options: (\w+) -->\n(.*?)<!-- /options -->\n", re.DOTALL)


def rendered(table: dict) -> str:
    """A table of the file as the documentation shows it."""
    lines = [f"| {' | '.join(table['columns'])} |", "|" + "---|" * len(table["columns"])]
    lines += ["|" + "".join(f" {cell} |" if cell else " |" for cell in row["cells"]) for row in table["rows"]]
    return "".join(f"{line}\n" for line in lines)


def rows_of(text: str) -> list[list[str]]:
    """The cells of the rows of a table in the documentation."""
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in text.splitlines()[2:]]


def taken(table: dict, text: str) -> dict:
    """A table of the file with the rows of the documentation."""
    known = {row["cells"][0]: row.get("options") for row in table["rows"]}
    rows = [{"cells": cells} | ({"options": o} if (o := known.get(cells[0])) else {}) for cells in rows_of(text)]
    return table | {"rows": rows}


def written(found: list[dict]) -> str:
    """The file: a line for each row."""
    parts = []
    for table in found:
        head = json.dumps({k: v for k, v in table.items() if k != "rows"}, ensure_ascii=False)[1:-1]
        rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in table["rows"])
        parts.append(f'{{{head}, "rows": [\n{rows}\n]}}')
    return "[\n" + ",\n".join(parts) + "\n]\n"


def pages(docs: Path = DOCS) -> dict[Path, str]:
    """The pages that hold tables."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(docs.rglob("*.md"))}
    return {path: text for path, text in texts.items() if BLOCK.search(text)}


def differences(docs: Path = DOCS) -> list[str]:
    """What the documentation and the file say differently."""
    shown = {name: text for page in pages(docs).values() for name, text in BLOCK.findall(page)}
    names = [table["name"] for table in tables()]
    said = [f"no page has the table {name}" for name in names if name not in shown]
    said += [f"{FILE.name} has no table {name}" for name in shown if name not in names]
    for table in tables():
        if table["name"] in shown and shown[table["name"]] != rendered(table):
            here, there = {tuple(row["cells"]) for row in table["rows"]}, set(map(tuple, rows_of(shown[table["name"]])))
            rows = sorted({row[0] for row in here ^ there}) or ["the order of its rows, or its head"]
            said.append(f"{table['name']}: {', '.join(rows)}")
    return said


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--write", action="store_true", help="write the tables into the documentation")
    way.add_argument("--take", action="store_true", help="take the rows of the documentation into the file")
    args = parser.parse_args(argv)
    by_name = {table["name"]: table for table in tables()}
    if args.take:
        shown = {name: text for page in pages().values() for name, text in BLOCK.findall(page)}
        found = [taken(table, shown[name]) if name in shown else table for name, table in by_name.items()]
        with written_whole(FILE) as partial:
            partial.write_text(written(found), encoding="utf-8")
    elif args.write:
        for path, text in pages().items():
            new = BLOCK.sub(lambda m: f"<!-- options: {m[1]} -->\n{rendered(by_name[m[1]])}<!-- /options -->\n", text)
            with written_whole(path) as partial:
                partial.write_text(new, encoding="utf-8")
    elif said := differences():
        raise SystemExit("the documentation and interslice/cli/options.json differ:\n  " + "\n  ".join(said))


if __name__ == "__main__":
    with plain_endings():
        main()
