"""Options of the command line that no config knows: MONAI takes a misspelt one in silence, and runs without it."""

from __future__ import annotations

import inspect
import json
import os
import re
from ast import literal_eval
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pydoc import locate

from monai.bundle import ConfigParser, run

from interslice.files.command_line import SEPARATOR, becomes, is_run, parse
from interslice.files.never_run import PATHS, check_names
from interslice.usage import UsageError

OWN = tuple(inspect.signature(run).parameters)
"""Arguments of `monai.bundle run` itself, in their order as words without a name."""
SPECIAL = ("_target_", "_disabled_", "_mode_", "_requires_", "_desc_", "_meta_")
DESCRIBES = (
    "describes simulated scans, and this run takes measured ones, which bring their own: leave it out, or add "
    "configs/evaluate.json to simulate"
)
MENDS = (
    "is for measured scans, and this run simulates them from known volumes, which need none of it: leave it out, or "
    "leave out configs/evaluate.json"
)
EXTENDED = ("bundle_root", "sample_dir", "run_dir")
"""Paths to which configs add names, so that they are used as they arrive; training's output_dir is another."""


def check_options(words: Sequence[str]) -> None:
    """Refuse a command line that asks for what no config knows.

    Args:
        words: sys.argv. What is no `monai.bundle run` is not looked at.

    Raises:
        UsageError: says all that is wrong, and what may have been meant.
    """
    if not is_run(words):
        return
    check_names(words)
    surplus, options = parse(words[2:])
    if len(surplus) > 1:
        raise UsageError(
            f"these words belong to no option: {' '.join(surplus[1:])}\n"
            "an option takes one value: where a pattern such as scans/*.nii.gz was meant, give the folder"
        )
    typed = options
    if (path := options.get("args_file")) is not None:
        options = ConfigParser.load_config_file(path) | options
    if "config_file" not in options:
        return
    config = ConfigParser.load_config_files(as_value(options["config_file"]))
    _check_ranks(config)
    run_id = options.get("run_id", surplus[0] if surplus else "run")
    if not runs(config, run_id):
        known = ", ".join(f"`run {name}`" for name, value in config.items() if value == "$@run")
        raise UsageError(f"there is no {run_id} to run: these configs have {known or '`run`'}")
    given = [key for key in options if key not in OWN]
    said = [line for key in given if (line := complaint(key, config, options))]
    said += [
        f"--{key} None is left out by MONAI: write '$None' for nothing, or ./None for a file of that name"
        for key in given
        if options[key] == "None"
    ]
    said += [line for key in typed if key in PATHS and (line := no_path(key, typed[key], config, options))]
    said += no_use(given, config, options)
    if said:
        raise UsageError("\n".join(said))


def check_ids(config_files: Sequence[str], options: Mapping[str, object]) -> None:
    """Refuse ids that no config knows, or none uses, of values that no command line of MONAI's carries.

    Args:
        config_files: as MONAI merges them.
        options: id -> value.

    Raises:
        UsageError: as `check_options`.
    """
    config = ConfigParser.load_config_files(list(config_files))
    _check_ranks(config)
    said = [line for key in options if (line := complaint(key, config, options))] + no_use(options, config, options)
    if said:
        raise UsageError("\n".join(said))


def no_use(given: Iterable[str], config: Mapping, options: Mapping) -> list[str]:
    """What is said of the options to which no part refers, and of those that describe what is not simulated here."""
    said = [line for key in given if (line := without_use(key, config, options))]
    kind, why = ("of_measurements", MENDS) if "read_truth" in config else ("of_simulations", DESCRIBES)
    return said + [f"--{key} {why}" for key in given if belongs(key, config.get(kind, ()))]


def _check_ranks(config: Mapping) -> None:
    """Raise UsageError where torchrun has started several processes, and no config makes them share the work."""
    ranks = int(os.environ.get("WORLD_SIZE", 1)) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    if ranks > 1 and "interslice.ranks.start" not in json.dumps(config):
        kind = "train" if "train" in config else "inference"
        raise UsageError(
            f"torchrun has started {ranks} processes, which would all do the same: add configs/multi_gpu_{kind}.json "
            "as the last config"
        )


def belongs(key: str, ids: Sequence[str]) -> bool:
    """Whether an option sets one of these ids, or a part of it."""
    parts = SEPARATOR.split(key)
    return any(parts[: len(own)] == own for own in map(SEPARATOR.split, ids))


def runs(config: Mapping, run_id: str) -> bool:
    """Whether an id does something when it is run: MONAI runs others, such as the part `train`, without a word."""
    node = config
    for part in SEPARATOR.split(run_id):
        if isinstance(node, Sequence) and not isinstance(node, str) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        else:
            return False
    return "_target_" in node if isinstance(node, Mapping) else isinstance(node, list) or str(node)[:1] in ("$", "@")


def no_path(key: str, text: str, config: Mapping, options: Mapping) -> str | None:
    """Why the text of an option cannot be taken for a path, in words; None if it can."""
    if re.fullmatch(r"@\w*((#|::)\w*)*", text) and SEPARATOR.split(text[1:])[0] not in {*config, *options}:
        return f"--{key} {text}: what begins with @ names an id, and none is {text[1:]}; for a file write ./{text}"
    if (key in EXTENDED or (key == "output_dir" and "run_dir" in config)) and str(becomes(text)) != text:
        fix = "name the folder without #, or link to it" if "#" in text else f"write ./{text}"
        return f"--{key} {text} arrives as {becomes(text)!r}, and other names are added to it: {fix}"
    return None


def without_use(key: str, config: Mapping, options: Mapping) -> str | None:
    """What is said of an option to which no part of these configs refers, as another task's; None of any other."""
    value = config.get(key)
    if key not in config or isinstance(value, (Mapping, list)) or str(value).startswith("$@"):
        return None
    if re.search(rf"[@%]{re.escape(key)}\b", json.dumps(config) + str(options)):
        return None
    return f"--{key} changes nothing here: no part of these configs uses it"


def as_value(text):
    """A list as it is written on the command line, or the text itself."""
    try:
        return literal_eval(text) if str(text).startswith(("[", "(")) else text
    except (ValueError, SyntaxError):
        return [part.strip() for part in text.strip("[]()").split(",")]  # the shell took the quotes


def complaint(key: str, config: Mapping, options: Mapping) -> str | None:
    """What is wrong with an option, in words, and what may have been meant; None if it is known."""
    parts = SEPARATOR.split(key.lstrip("+~"))
    node = config
    for depth, part in enumerate(parts):
        if depth and any("::".join(SEPARATOR.split(other)) == "::".join(parts[:depth]) for other in options):
            return None  # the part was itself given, whatever it is now
        if isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(node, Mapping):
            known = [*node, *arguments(node)]
            if part in SPECIAL or ("_target_" in node and None in known):
                return None
            if "_target_" in node and part in known:
                return None
            if not depth and re.search(rf"@{re.escape(part)}\b", json.dumps(config) + str(options)):
                return None  # an id of the user's own
            return f"unknown option --{key}{suggestion(parts[:depth], part, [n for n in known if n], config)}"
        elif isinstance(node, Sequence) and not isinstance(node, str):
            if not part.isdigit() or int(part) >= len(node):
                return f"unknown option --{key}: {'#'.join(parts[:depth])} has the parts 0 to {len(node) - 1}"
            node = node[int(part)]
        else:
            return None  # a value, or a reference: MONAI says what it cannot change
    return None


def arguments(node: Mapping) -> Iterator[str | None]:
    """What the component that a config describes can be given; None stands for anything."""
    target = locate(node["_target_"]) if isinstance(node.get("_target_"), str) else None
    try:
        parameters = inspect.signature(target).parameters.values() if target is not None else ()
    except (TypeError, ValueError):
        parameters = ()
    if target is None or any(p.kind is p.VAR_KEYWORD for p in parameters):
        yield None
    yield from (p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))


def suggestion(parents: Sequence[str], part: str, known: Sequence[str], config: Mapping) -> str:
    """The names that are most like an unknown one: of its own place, and of the parts of components."""
    names = {name.lower(): name for name in known if not name.startswith("_")}
    near = [names[n] for n in get_close_matches(part.lower(), names, n=1, cutoff=0.75)]
    found = ["#".join([*parents, name]) for name in near]
    if not parents:
        components = (c for c, node in config.items() if isinstance(node, Mapping) and "_target_" in node)
        found += [f"{c}#{part}" for c in components if part in (*config[c], *arguments(config[c]))]
    return (
        f": did you mean {' or '.join(f'--{name}' for name in found)}?"
        if found
        else ": docs/reference/options.md lists all"
    )
