"""Damaged command lines: values of wrong kinds, misspelt names, and words that belong nowhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from interslice.files.options import arguments
from scripts.fuzzing.damage.odd import pick

VALUES = (
    "0", "-1", "1", "2.5", "-0.5", "7", "1e9", "1e-30", "1e400", "nan", "-inf", "x", "", " ", "None", "'$None'",
    "$None", "True", "false", "[]", "[1,2]", "[1,2,3]", "[[1],[2]]", "{}", "{'a': 1}", "()", "(1,)",
    "@nothing", "@seed",
    "@read", "/proc/x", "./nowhere", "..", "9" * 30, "0x10", "1,2", "é", "a b", "a#b", "%x", "--", "-", "'",
    "\"", "x" * 300,
)  # fmt: skip
SOLVERS = ("dds", "ddnm_plus", "diffpir", "dps", "red_diff", "daps", "mbir")
TASKS = {
    ("inference",): "scan", ("inference", "evaluate"): "truth", ("inference", "task_svct"): "projections",
    ("inference", "task_csmri"): "kspace", ("inference", "task_svct", "evaluate"): "truth",
    ("inference", "task_csmri", "evaluate"): "truth", ("train",): "none", ("train", "adapt"): "none",
    **{("inference", f"solver_{s}"): "scan" for s in SOLVERS},
}  # fmt: skip
"""Configs, and the data that they are run on."""
PARTS_OF_MONAI = {
    "imports", "initialize", "command_line", "run", "inference", "training", "adaptation", "evaluator", "dataset",
    "dataloader",
    "handlers", "preprocessing", "postprocessing", "evaluation", "read", "read_truth", "simulate", "cases",
    "run_record", "network", "of_measurements",
    "settings", "weights", "scheduler", "displayable_configs", "bundle_root", "of_simulations", "network_def", "train",
    "validate", "trainer", "inferer", "device", "sample_dir", "evaluate", "scale", "schedule", "cut",
}  # fmt: skip
"""Ids that stand for Python objects, not for values; docs/reference/options.md says that they are MONAI's syntax."""
COUNTS = ("num_draws", "iterations", "cg_iterations", "num_steps", "power_iterations")
"""Where a large number is a long run, as asked for."""


@dataclass(frozen=True)
class CommandLine:
    """Configs, the data that they are run on, odd words, and a name of which a refusal has to speak."""

    configs: tuple[str, ...]
    data: str
    words: tuple[str, ...]
    name: str


def damaged_command_line(rng: np.random.Generator, root: Path) -> CommandLine:
    """A command line for the configs in `root` with an option that is odd."""
    configs = pick(rng, tuple(TASKS))
    names = options_of(configs, root)
    name = pick(rng, names)
    way = pick(rng, ("value",) * 12 + ("misspelt",) * 3 + ("word", "no value", "twice"))
    value = pick(rng, VALUES)
    if name.split("#")[-1] in COUNTS and value in ("1e9", "9" * 30, "0x10"):
        value = "2.5"
    if way == "value":
        words = (f"--{name}", value) if rng.random() < 0.8 and not value.startswith("-") else (f"--{name}={value}",)
    elif way == "misspelt":
        name = misspelt(rng, name)
        words = (f"--{name}", pick(rng, ("1", "x", "0.5")))
    elif way == "word":
        name = pick(rng, ("scans", "x.nii.gz", "7"))
        words = (f"{name}",)
    elif way == "no value":
        words = (f"--{name}",)
    else:
        words = (f"--{name}", "x", f"--{name}={value}")
    return CommandLine(configs, TASKS[configs], words, name)


def options_of(configs: Sequence[str], root: Path) -> list[str]:
    """Ids that have plain values, and the arguments of components."""
    merged: dict = {}
    for name in configs:
        merged |= json.loads((root / "configs" / f"{name}.json").read_text(encoding="utf-8"))
    found = []
    for key, node in merged.items():
        if key.startswith("+") or key.split("#")[0] in PARTS_OF_MONAI:
            continue
        if isinstance(node, Mapping) and "_target_" in node:
            found += [f"{key}#{part}" for part in dict.fromkeys([*node, *arguments(node)]) if plain(part, node)]
        elif not isinstance(node, Mapping):
            found.append(key)
    return found


def plain(part: str | None, node: Mapping) -> bool:
    """Whether a part of a component is a value, and not MONAI's own word or a reference to another part."""
    return (
        part is not None
        and not part.startswith("_")
        and not part.endswith(("key", "keys"))
        and not str(node.get(part, "")).startswith(("@", "$"))
    )


def misspelt(rng: np.random.Generator, name: str) -> str:
    """A letter lost, doubled, or swapped with the next; another case; hyphens; a part of nothing."""
    at = int(rng.integers(len(name) - 1))
    return pick(rng, (
        name[:at] + name[at + 1 :], name[: at + 1] + name[at:], name[:at] + name[at + 1] + name[at] + name[at + 2 :],
        name.capitalize(), f"{name}#nothing", f"no_{name}", f"{name}s",
    ))  # fmt: skip
