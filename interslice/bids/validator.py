"""The official validator of BIDS data sets, where it is installed: `pip install bids-validator-deno`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

COMMANDS = ("bids-validator-deno", "bids-validator")
"""Names that it is installed by, by Python's package index and by npm or by hand."""
SHOWN = 20


def find_validator() -> str | None:
    """The validator's command: beside this Python, or on the PATH; None where there is none."""
    beside = str(Path(sys.executable).parent)
    return next(
        (path for name in COMMANDS for where in (beside, None) if (path := shutil.which(name, path=where))), None
    )


def errors_in(folder: Path, command: str) -> list[str]:
    """What the validator finds wrong, one line a file; warnings are no errors.

    Raises:
        ValueError: it could not look at the folder.
    """
    words = [command, str(folder.absolute()), "--format", "json", "--ignoreWarnings"]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace")
    try:
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (ValueError, KeyError, TypeError):
        said = (done.stderr or done.stdout).strip()
        raise ValueError(
            f"{command} did not work ({said[-300:] or 'it said nothing'}): --skip-bids-validation"
        ) from None
    return [_in_words(issue) for issue in issues if issue.get("severity", "error") == "error"]


def listed(errors: Iterable[str]) -> str:
    """The first errors, and the number of the others."""
    errors = list(errors)
    more = [f"and {len(errors) - SHOWN} more"] if len(errors) > SHOWN else []
    return "\n".join(f"  {line}" for line in [*errors[:SHOWN], *more])


def _in_words(issue: dict) -> str:
    parts = (issue.get("location"), issue.get("code"), issue.get("subCode"), issue.get("issueMessage"))
    return " ".join(str(part).strip() for part in parts if part)
