"""Reads a series from an archive (PACS) over DICOMweb, reconstructs it, and stores the result beside it.

What is done and what is not: docs/how_to/pacs.md. `python -m interslice.pacs` is the same command.

    interslice pacs find --url https://pacs.example/dicom-web --patient P4711
    interslice pacs run --url https://pacs.example/dicom-web --study 1.2.3 --series 1.2.3.4 -- --preset fast
    interslice pacs fetch --url https://pacs.example/dicom-web --study 1.2.3 --series 1.2.3.4 --folder scan
    interslice pacs store --url https://pacs.example/dicom-web --folder results/scan

Who asks is told by INTERSLICE_PACS_USER and INTERSLICE_PACS_PASSWORD, or INTERSLICE_PACS_TOKEN, in the environment.
Research software: what it stores says so in each image, and is not for diagnosis.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from interslice.files.dicom_write import KINDS
from interslice.files.last_words import plain_endings
from interslice.files.switch import is_on
from interslice.files.write import check_writable
from interslice.pacs.archive import Archive
from interslice.pacs.fetch import Series, fetch, one, search
from interslice.pacs.reconstruct import check_options, reconstruct
from interslice.pacs.store import Derived, derived, derived_series, store


def main(words: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    words = list(sys.argv[1:] if words is None else words)
    end = words.index("--") if "--" in words else len(words)
    asked, options = arguments().parse_args(words[:end]), words[end + 1 :]
    if options and asked.command != "run":
        arguments().error("only run takes options of the reconstruction, after --")
    check_options(options)
    archive = Archive(
        asked.url, ca=asked.ca, cert=asked.cert, allow_http=is_on(asked.allow_http, "--allow_http"),
        timeout=asked.timeout, tries=asked.tries,
    )  # fmt: skip
    if asked.command == "find":
        found = search(archive, **named(asked))
        print("\n".join(map(str, found)) or f"{archive.host} holds no series that matches")
    elif asked.command == "fetch":
        receive(archive, one(search(archive, **named(asked)), archive.host), asked.folder)
    elif asked.command == "store":
        for made in derived_series(asked.folder, tuple(asked.kinds)):
            send(archive, made)
    else:
        run(archive, asked, options)


def run(archive: Archive, asked: argparse.Namespace, options: Sequence[str]) -> None:
    """Fetch, reconstruct, store; the source is kept only where that is asked for."""
    output_dir = check_writable(asked.output_dir)
    series = one(search(archive, **named(asked)), archive.host)
    with ExitStack() as stack:
        output_dir.mkdir(parents=True, exist_ok=True)
        place = asked.source_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix=".source-", dir=output_dir))
        source = Path(place) / series.series
        receive(archive, series, source)
        folders = reconstruct(source, output_dir, options)
    chosen = [folder for folder in folders if folder.name.endswith(tuple(f"_{kind}" for kind in asked.kinds))]
    if not chosen:
        raise RuntimeError(
            f"the reconstruction made no series of the kinds {', '.join(asked.kinds)}: nothing is stored"
        )
    for folder in chosen:
        send(archive, derived(folder))


def receive(archive: Archive, series: Series, folder: Path) -> None:
    """Fetch a series, with a bar, and say so."""
    print(f"reading {series}", flush=True)
    with tqdm(desc="reading", unit="image", leave=False, delay=2) as bar:
        count = fetch(archive, series, folder, lambda n, of: moved(bar, n, of))
    print(f"read {count} images into {folder}", flush=True)


def send(archive: Archive, made: Derived) -> None:
    """Store a series, with a bar, and say so."""
    with tqdm(desc="storing", unit="image", leave=False, delay=2) as bar:
        new = store(archive, made, lambda n, of: moved(bar, n, of))
    before = f", {len(made.files) - new} of them before" if new < len(made.files) else ""
    print(
        f"stored {len(made.files)} images{before}: {made.description!r}, series {made.series} of study {made.study}",
        flush=True,
    )


def moved(bar: tqdm, count: int, total: int) -> None:
    """Show how far it is; a second try begins anew."""
    bar.total = total
    bar.update(count - bar.n)


def named(asked: argparse.Namespace) -> dict[str, str | None]:
    """Which series is meant."""
    return {name: getattr(asked, name) for name in ("study", "series", "patient", "description")}


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="interslice pacs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (
        ("find", "list series"),
        ("fetch", "write the images of a series into a folder"),
        ("store", "add derived series to the archive"),
        ("run", "fetch a series, reconstruct it, and store the result; options of the reconstruction after --"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("--url", required=True, help="where DICOMweb begins: https://pacs.example/dicom-web")
        command.add_argument("--ca", metavar="FILE", help="certificates to trust, in place of the usual ones")
        command.add_argument("--cert", metavar="FILE", help="certificate and key of this client, PEM")
        command.add_argument("--allow_http", default="no", help="yes: also without encryption; off")
        command.add_argument("--timeout", type=float, default=60, help="seconds without an answer; 60")
        command.add_argument("--tries", type=int, default=4, help="of a request, where another can help; 4")
        if name != "store":
            command.add_argument("--study", metavar="UID", help="StudyInstanceUID")
            command.add_argument("--series", metavar="UID", help="SeriesInstanceUID")
            command.add_argument("--patient", metavar="ID", help="PatientID")
            command.add_argument("--description", metavar="TEXT", help="SeriesDescription; * and ? stand for letters")
        if name in ("fetch", "store"):
            command.add_argument("--folder", type=Path, required=True, help="of the images; of results")
        if name == "run":
            command.add_argument("--output_dir", type=Path, default=Path("results"), help="folder of results; results")
            command.add_argument("--source_dir", type=Path, help="keep the images that were read there")
        if name in ("store", "run"):
            command.add_argument(
                "--kinds", nargs="+", default=["recon"], choices=list(KINDS), help="what to store; recon"
            )
    return parser


if __name__ == "__main__":
    with plain_endings():
        main()
