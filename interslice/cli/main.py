"""The console command: `interslice run scan.nii.gz -o results`.

Whatever it is given reaches the configs as values, and none of it is evaluated (interslice.cli.values). It starts at
once: torch and MONAI are imported when a command needs them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence

import click

from interslice import __version__
from interslice.cli.command import ConfigCommand
from interslice.cli.jobs import OUTPUT, TASKS, Job, give_options, give_part, job_of, one_source, run_job
from interslice.cli.values import inert
from interslice.files.last_words import plain_endings
from interslice.home import home
from interslice.usage import UsageError

NAMES = {"help_option_names": ["-h", "--help"], "token_normalize_func": lambda name: re.sub("[_#]", "-", name)}
"""Options may be written as the configs write their ids: `--num_draws`, `--operator#gap`."""
SWITCHES = ("true", "yes", "1", "false", "no", "0")
WORDS: list[str] = []
"""The options of the command that runs, as the last lines name them."""


@click.group(context_settings=NAMES | {"max_content_width": 110})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Reconstructs 3-D medical volumes from incomplete measurements: thick MRI slices, few CT views, k-space.

    Research software, not for diagnosis.
    """


def solvers() -> list[str]:
    """Names of the solvers that have a config."""
    return sorted(p.stem.removeprefix("solver_") for p in (home() / "configs").glob("solver_*.json"))


def shared(command: str) -> Callable:
    """The options that every command of the configs has, besides theirs."""
    tasks = [*TASKS] if command in ("run", "evaluate") else ["thick", "ct"]
    options = [
        click.option("-o", "--output", "--output-dir", "output_dir", type=click.Path(), metavar="FOLDER",
                     default=OUTPUT[command], show_default=True, help="Where results go."),
        click.option("--config", "configs", multiple=True, metavar="NAME", type=click.Path(),
                     help="One more config, as often as given: a file of your own, which is code, or a name of the "
                     "bundle's, such as trajectory."),
        click.option("--set", "parts", multiple=True, metavar="ID=VALUE",
                     help="Any other id of the configs, or a part of one: operator#gap=1.0."),
        click.option("--dry-run", is_flag=True, help="Say what would be done, how long it takes and how much memory; "
                     "write nothing."),
        click.option("--debug", is_flag=True, help="Show tracebacks, and all that libraries say."),
    ]  # fmt: skip
    if command != "adapt":
        options.insert(1, click.option("--task", type=click.Choice(tasks), default="thick", show_default=True,
                                       help="What is reconstructed; its options are those of the help."))  # fmt: skip
    if command in ("run", "evaluate"):
        options.insert(2, click.option("--solver", type=click.Choice(solvers()), help="Another diffusion solver."))

    def add(function: Callable) -> Callable:
        for option in reversed(options):
            function = option(function)
        return function

    return add


@cli.command(cls=ConfigCommand, command_name="run", short_help="Reconstruct SCANS.")
@click.argument("scans", nargs=-1, type=click.Path())
@shared("run")
def run(scans: Sequence[str], **given) -> None:
    """Reconstruct SCANS: files, DICOM folders, folders of many, or a list of them (.txt).

    Without any, the scan that comes with the bundle.
    """
    do("run", scans, **given)


@cli.command(cls=ConfigCommand, command_name="evaluate", short_help="Simulate scans of known volumes, and judge.")
@click.argument("truth", nargs=-1, type=click.Path())
@shared("evaluate")
def evaluate(truth: Sequence[str], **given) -> None:
    """Simulate scans of volumes that are known, the TRUTH, reconstruct them, and say how far off the results are."""
    do("evaluate", truth, **given)


@cli.command(cls=ConfigCommand, command_name="train")
@click.argument("folder", type=click.Path())
@shared("train")
def train(folder: str, **given) -> None:
    """Train a prior on the volumes in FOLDER."""
    do("train", [folder], **given)


@cli.command(cls=ConfigCommand, command_name="adapt", short_help="Adapt the prior to one SCAN.")
@click.argument("scan", nargs=-1, type=click.Path())
@shared("adapt")
def adapt(scan: Sequence[str], **given) -> None:
    """Adapt the prior to one SCAN: it writes OUTPUT/<case>/<case>_prior.pt, for `run --checkpoint`."""
    if len(scan) > 1:
        raise UsageError(f"a prior is adapted to one scan, got {len(scan)}")
    do("adapt", scan, **given)


@cli.command()
def tasks() -> None:
    """List what can be reconstructed, and with what."""
    from interslice.cli.tasks import told

    click.echo(told(solvers()))


@cli.command(short_help="Check the installation.")
@click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps; by default the one that runs use.")
@click.option("-o", "--output", type=click.Path(), default="eval", show_default=True, help="Where results would go.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def doctor(device: str | None, output: str, debug: bool) -> None:
    """Check the installation in less than a minute, and say what is wrong."""
    from interslice.cli.doctor import main as examine

    examine([*(["--device", device] if device else []), "--output_dir", output])


AS_IT_IS = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}
"""Of commands that read their words themselves."""


@cli.command(context_settings=AS_IT_IS, add_help_option=False, short_help="A BIDS app: a data set in, derivatives out.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def bids(words: Sequence[str]) -> None:
    """`bids_dir output_dir participant`, and more: see its --help."""
    from interslice.bids.options import read

    read(list(words))  # --help ends here, before what takes seconds to import
    from interslice.bids.app import main as app

    app(list(words))


@cli.command(context_settings=AS_IT_IS, add_help_option=False, short_help="Read from a PACS, and store to it.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def pacs(words: Sequence[str]) -> None:
    """`find`, `fetch`, `store` or `run` over DICOMweb: see its --help."""
    from interslice.pacs.__main__ import main as archive

    archive(list(words))


@cli.command(short_help="Open a local page to try it.")
@click.option("--port", type=int, default=0, metavar="NUMBER", help="Of this machine; by default any that is free.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open nothing.")
@click.option("-o", "--output", type=click.Path(), metavar="FOLDER", help="Where results are kept; by default they go "
              "with the page.")  # fmt: skip
@click.option("--max-gigabytes", metavar="NUMBER", help="Of an upload, and of a file that a run reads; 4 by default.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.argument("options", nargs=-1)
def page(port: int, no_browser: bool, output: str | None, max_gigabytes: str | None, debug: bool,
         options: Sequence[str]) -> None:  # fmt: skip
    """Open a page of this machine alone: drop a scan, reconstruct it, look at it, download it.

    OPTIONS, after --, are those of `interslice run` for all runs: interslice page -- --device cuda.
    """
    from interslice.page.__main__ import main as serve

    asked = run.make_context("run", [*options], parent=click.get_current_context().parent).params
    if asked["scans"]:
        raise UsageError(f"after -- come options of `interslice run`, got {asked['scans'][0]}: scans go to the page")
    words = ["--port", str(port), *["--no-browser"] * no_browser]
    words += [f"--output={output}"] * (output is not None) + [f"--max-gigabytes={max_gigabytes}"] * bool(max_gigabytes)
    serve([*words, "--", *options])


def do(command: str, scans: Sequence[str], *, output_dir: str, configs: Sequence[str], parts: Sequence[str],
       dry_run: bool, debug: bool, task: str = "thick", solver: str | None = None, **given) -> None:  # fmt: skip
    """Make a job of a command line, and run it, or say what it would do."""
    job = job_of(command, task, solver, configs)
    with one_source(scans) as source:
        if source is not None:
            job.give("dataset_dir", inert(source), source)
        job.give("output_dir", inert(output_dir), output_dir)
        give_options(job, {name: value for name, value in given.items() if value is not None})
        for part in parts:
            give_part(job, part)
        if debug or click.get_current_context().find_root().obj:
            job.give("debug", True, "true")
        WORDS[:] = job.words()
        _carry_out(job, dry_run)


def _carry_out(job: Job, dry_run: bool) -> None:
    if dry_run:
        from interslice.cli.dry_run import tell

        tell(job)
    else:
        run_job(job)


def main() -> None:
    """Run the command of sys.argv; the process ends as docs/reference/endings.md says."""
    WORDS.clear()
    sys.argv[1:] = debug_first(sys.argv[1:])
    with plain_endings(go_on="--skip-finished leaves out the cases that are finished", words=WORDS) as debug:
        try:
            status = cli.main(prog_name="interslice", standalone_mode=False, obj=debug)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.ctx.get_help())
            status = 2
        except click.ClickException as error:
            raise UsageError(f"{error.format_message()}{_more(error)}") from None
        except click.Abort as error:
            raise error.__cause__ or error.__context__ or KeyboardInterrupt() from None
    if isinstance(status, int) and status:
        raise SystemExit(status)


def debug_first(words: Sequence[str]) -> list[str]:
    """`--debug` with its value, as `plain_endings` takes it from a command line: without one it is on."""
    found: list[str] = []
    for word in words:
        if found and found[-1] == "--debug=true" and word.lower() in SWITCHES:
            found[-1] = f"--debug={word}"
        else:
            found.append("--debug=true" if word == "--debug" else word)
    return found


def _more(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"\n`{context.command_path} --help` lists what there is" if context is not None else ""
