"""A command whose options are those of the configs: typed, in groups, and explained by `options.json`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from interslice.cli.options import Option, options_of
from interslice.cli.values import value_of

ON, OFF = ("true", "yes"), ("false", "no")
METAVARS = {"whole": "INTEGER", "number": "NUMBER", "numbers": "A,B,...", "path": "PATH", "text": "TEXT",
            "value": "VALUE", "reference": "@ID"}  # fmt: skip

GROUPS = (
    "The scan", "Thick slices", "Several stacks", "CT", "k-space", "Simulated scans", "Training", "Quality and time",
    "Results", "Evaluation", "Going on", "The prior", "Noise and solver", "The machine",
)  # fmt: skip
"""Headings of the help, in their order."""


class Kind(click.ParamType):
    """What an option of the configs takes. The text stays as it is, once it is known to be right."""

    def __init__(self, option: Option) -> None:
        self.name, self.option = option.kind[0], option

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        head, *words = self.option.kind
        return f"[{'|'.join(words)}]" if head == "choice" else "|".join([METAVARS[head], *words])

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        value_of(self.option.id, self.option.kind, value)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        head, *words = self.option.kind
        if head == "path":
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]


class ConfigCommand(click.Command):
    """A click command with the options of the configs besides its own.

    Args:
        command_name: the command in `options.json`.
    """

    def __init__(self, *args, command_name: str, **settings) -> None:
        super().__init__(*args, **settings)
        self.command_name, self._task = command_name, None
        taken = {name for param in self.params for name in (param.name, *param.opts)}
        self.options = {
            option_name(o): o for o in options_of(command_name).values() if f"--{o.word}" not in taken
        }  # fmt: skip
        self.params += [as_click(name, option) for name, option in self.options.items()]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = [*args]
        for word, after in zip(args, [*args[1:], ""]):
            if word.startswith("--task"):
                self._task = word.partition("=")[2] or after
        return super().parse_args(ctx, self._switched(args))

    def invoke(self, ctx: click.Context) -> None:
        ids = {name: option.id for name, option in self.options.items()}
        ctx.params = {ids.get(name, name): value for name, value in ctx.params.items()}
        return super().invoke(ctx)

    def _switched(self, args: Sequence[str]) -> list[str]:
        """Switches with a word behind them, `--resume True`, as switches alone: so the configs' examples hold here."""
        switches = {option.word for option in self.options.values() if option.kind == ("switch",)}
        found: list[str] = []
        rest = [*args]
        while rest:
            word = rest.pop(0)
            if word == "--":
                return [*found, word, *rest]
            name, equals, value = word.partition("=")
            name = re.sub("[_#]", "-", name.removeprefix("--")) if word.startswith("--") else ""
            if name not in switches:
                found.append(word)
                continue
            if not equals and rest and rest[0].lower() in (*ON, *OFF):
                value = rest.pop(0)
            known = value.lower() in (*ON, *OFF, "1", "0", "")
            found.append(f"--{'no-' * (value.lower() in (*OFF, '0'))}{name}" if known else word)
        return found

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [p for p in self.get_params(ctx) if p.name not in self.options and isinstance(p, click.Option)]
        with formatter.section("Options"):
            formatter.write_dl([record for p in own if (record := p.get_help_record(ctx))])
        task = self._task or "thick"
        groups: dict[str, list] = {}
        shown = options_of(self.command_name, task)
        for param in self.params:
            option = shown.get(self.options[param.name].id) if param.name in self.options else None
            if option is not None:
                groups.setdefault(option.group, []).append((param.get_help_record(ctx)[0], explained(option)))
        for group in sorted(groups, key=GROUPS.index):
            with formatter.section(group):
                formatter.write_dl(groups[group], col_max=34)


def option_name(option: Option) -> str:
    """The name of an id as an argument of Python."""
    return re.sub(r"\W", "_", option.id)


def as_click(name: str, option: Option) -> click.Option:
    """The option of an id."""
    if option.kind == ("switch",):
        return click.Option([name, f"--{option.word}/--no-{option.word}"], default=None)
    return click.Option([name, f"--{option.word}"], type=Kind(option), default=None)


def explained(option: Option) -> str:
    """The line of help of an option, with its unit and its default."""
    unit = option.unit if len(option.unit) < 8 and option.unit not in ("path", *option.help.split()) else ""
    default = re.sub(r" \([^)]*\)", "", option.default)
    said = [part for part in (unit, f"default: {default}" if default else "") if part]
    return f"{option.help} [{'; '.join(said)}]" if said else option.help
