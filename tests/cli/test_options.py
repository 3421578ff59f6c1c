"""options.json is complete: every plain id of the configs is in it, and all of it in a config; docs say the same."""

import json
import re

import pytest
from click.testing import CliRunner
from monai.bundle import ConfigParser

from interslice.cli.command import GROUPS
from interslice.cli.jobs import TASKS, job_of
from interslice.cli.main import cli
from interslice.cli.options import ids_of, options_of, tables
from interslice.files.options import complaint
from scripts import option_tables
from tests.support.scans import ROOT

COMMANDS = {"run": [*TASKS], "evaluate": [*TASKS], "train": ["thick", "ct"], "adapt": ["thick"]}
PAIRS = [(command, task) for command, names in COMMANDS.items() for task in names]
NOT_PLAIN = {
    "bundle_root", "debug", "dataset_dir", "output_dir",  # the command has its own way of asking for them
    "of_simulations",  # says what others are
    "observer",  # a part, which --config trajectory brings
}  # fmt: skip


def merged(command, task):
    return ConfigParser.load_config_files(job_of(command, task).configs)


def is_plain(value):
    if isinstance(value, str):
        return value[:1] not in ("$", "@", "%")
    if isinstance(value, list):
        return all(isinstance(item, (int, float)) for item in value)
    return not isinstance(value, dict)


@pytest.mark.parametrize(("command", "task"), PAIRS)
def test_every_plain_id_is_an_option_and_every_option_is_in_the_configs(command, task):
    config, options = merged(command, task), options_of(command, task)
    plain = {name for name, value in config.items() if is_plain(value) and "#" not in name and name[0] != "+"}
    assert plain - set(options) - NOT_PLAIN == set()
    unknown = {name: said for name in options if (said := complaint(name, config, {}))}
    assert unknown == {}


def test_every_id_of_the_tables_is_in_a_config():
    known = set()
    for path in (ROOT / "configs").glob("*.json"):
        known |= set(re.findall(r"[+\w#]+", path.read_text(encoding="utf-8")))
    words = {part for name in known for part in name.split("#")}
    for table in tables():
        for row in table["rows"] if not table["prefix"] else ():
            assert set(ids_of(row)[0].split("#")[:1]) <= words, row["cells"][0]


def test_the_documentation_shows_the_same_tables():
    assert option_tables.differences() == [], "python -m scripts.option_tables --take, or --write"


def test_a_row_that_differs_is_named_and_taken(tmp_path):
    text = (ROOT / "docs/reference/options.md").read_text(encoding="utf-8")
    changed = text.replace("| `eta` | share | 1.0 |", "| `eta` | share | 0.5 |")
    (tmp_path / "moved.md").write_text(changed, encoding="utf-8")
    assert changed != text and option_tables.differences(tmp_path) == ["inference: `eta`"]
    table = next(t for t in tables() if t["name"] == "inference")
    block = dict(option_tables.BLOCK.findall(changed))["inference"]
    found = next(row for row in option_tables.taken(table, block)["rows"] if ids_of(row) == ["eta"])
    assert found["cells"][2] == "0.5" and found["options"]["eta"]["kind"] == ["number"]


def test_the_file_is_as_the_script_writes_it():
    assert option_tables.FILE.read_text(encoding="utf-8") == option_tables.written(tables())
    assert json.loads(option_tables.written(tables())) == tables()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_line_of_help_and_stands_in_a_group(command):
    by_word = {}
    for option in options_of(command).values():
        assert option.group in GROUPS and 5 < len(option.help) < 90 and not option.help.endswith(".")
        assert by_word.setdefault(option.word, option.id) == option.id
    taken = [name for param in cli.commands[command].params for name in param.opts]
    assert len(taken) == len(set(taken)) and all(f"--{word}" in taken for word in by_word)


@pytest.mark.parametrize(("command", "task"), PAIRS)
def test_the_help_of_a_task_shows_its_options_and_no_others(command, task):
    words = [command, *(["--task", task] if command != "adapt" else []), "--help"]
    shown = set(re.findall(r"^  --([\w-]+)", CliRunner().invoke(cli, words).output, re.MULTILINE))
    here = {o.word for o in options_of(command, task).values()}
    assert here <= shown
    assert shown & {o.word for o in options_of(command).values()} == here


def test_defaults_of_a_task_are_those_of_its_table():
    assert options_of("run", "ct")["antithetic"].default == "off"
    assert options_of("run", "thick")["antithetic"].default == "on"
    assert options_of("adapt", "thick")["max_epochs"].default == "4"
    assert options_of("run", "ct")["checkpoint"].default == "models/ct/model.pt"
    assert options_of("run", "ct")["operator#source_to_detector"].default == "1050"
