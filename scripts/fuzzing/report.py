"""The counts of many inputs: as a table, and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scripts.fuzzing.judge import LATE, VERDICTS
from scripts.fuzzing.runs import Record
from scripts.studies.tables import fill, table

MARKER = "fuzz"


def summary(records: Sequence[Record], seed: int, version: str, before: dict | None = None) -> dict:
    """{"record": counts by kind and failures, for JSON; "table": in Markdown}.

    `before`: the record of a campaign whose failures these are, run again.
    """
    before = before or {"inputs": len(records), "kinds": {}, "failures": [], "longest_s": 0, "largest_mb": 0}
    kinds = {kind: Counter(counts) for kind, counts in before["kinds"].items()}
    for failure in before["failures"]:
        kinds[failure["kind"]][failure["verdict"]] -= 1
    for one in records:
        kinds.setdefault(one.kind, Counter())[one.verdict] += 1
    record = {
        "version": version,
        "seed": seed,
        "inputs": before["inputs"],
        "run_again": before.get("run_again", 0) + len(before["failures"]),
        "longest_s": max([before["longest_s"], *(r.seconds for r in records)]),
        "largest_mb": max([before["largest_mb"], *(r.peak_mb for r in records)]),
        "kinds": {kind: {v: counts[v] for v in VERDICTS if counts[v] or v != LATE} for kind, counts in kinds.items()},
        "failures": [r.to_json() for r in records if r.failed],
    }
    return {"record": record, "table": table_of(record)}


def table_of(record: dict) -> str:
    """Markdown: a row for each kind, and their sum."""
    shown = [v for v in VERDICTS if v != LATE or any(counts.get(LATE) for counts in record["kinds"].values())]
    rows = [[kind, str(sum(c.values())), *(str(c.get(v, 0)) for v in shown)] for kind, c in record["kinds"].items()]
    total = [sum(c.get(v, 0) for c in record["kinds"].values()) for v in shown]
    rows.append(["all", str(record["inputs"]), *map(str, total)])
    return table(["kind", "inputs", *shown], rows)


def write_table(page: Path, record: dict) -> bool:
    """Put the table between the markers of a page; False if they are not there."""
    note = (
        f"Version {record['version']}, seed {record['seed']}: {record['inputs']} inputs, the longest run "
        f"{record['longest_s']:.0f} s, the largest {record['largest_mb'] / 1024:.1f} GB. Made by "
        f"`python -m scripts.fuzz --count {record['inputs']} --seed {record['seed']} --output docs/fuzz.json`."
    )
    if again := record.get("run_again"):
        note += f" Of these, {again} failed at first; the fault was mended, and they were run again (`--again`)."
    return fill(page, MARKER, f"{note}\n\n{table_of(record)}")


def read(path: Path) -> dict:
    """The record of an earlier campaign."""
    return json.loads(path.read_text(encoding="utf-8"))
