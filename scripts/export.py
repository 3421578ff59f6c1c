"""Exports the 2-D prior as TorchScript and as ONNX, and the whole bundle as a zip file; and what model hubs want.

    python -m scripts.export
    python -m scripts.export --torchscript prior.ts --checkpoint runs/prior/model.pt
    python -m scripts.export --config_file configs/inference.json configs/task_svct.json --onnx export/model_ct.onnx
    python -m scripts.export --safetensors my_prior.safetensors --checkpoint runs/prior/model.pt
    python -m scripts.export --hugging_face export/hub --zoo export/zoo

Without any of these options TorchScript, ONNX and zip are written, to `export/`. Run it in the folder of the bundle.
What was exported is read again and compared with the network on batches, sizes and timesteps that it was not exported
with; a file is there only if that went well. ONNX needs three more packages, safetensors one (docs/how_to/export.md).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from io import BytesIO, StringIO
from pathlib import Path

import torch
from monai.bundle import ConfigParser

from interslice.files.last_words import plain_endings
from interslice.files.whole import written_whole
from interslice.prior.safetensors_file import as_safetensors
from interslice.prior.tracing import example_inputs, traced
from interslice.prior.weights import EXTRA_STATE, Weights, load_weights
from scripts.hubs import check_new, write_hugging_face, write_zoo

NAME = "slice_consistent_reconstruction"
"""Of the bundle: the folder in the zip file, and the name for `monai.bundle.load`."""
FOLDERS = ("configs", "docs", "interslice", "models", "notebooks", "sample_data", "scripts", "slicer")
FILES = (
    "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "mkdocs.yml", "pyproject.toml",
    "requirements-dev.txt", "requirements-docs.txt", "requirements-label.txt", "requirements.txt",
)  # fmt: skip
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
HUBS = ("hugging_face", "zoo")
KINDS = ("torchscript", "onnx", "safetensors", "zip", *HUBS)
SIZES = ((1, 2, 2), (1, 5, 3), (3, 4, 7), (8, 2, 2))
"""Batches, rows and columns of the comparison; sides count in multiples of what the network needs."""
TOLERANCE = 1e-4
"""Largest difference of the exported network, as a share of the largest output."""

Run = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporter from printing its stages, and what it would like to have installed."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings(action="ignore"), redirect_stdout(StringIO()):
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def largest_difference(network: torch.nn.Module, run: Run, path: Path) -> float:
    """Largest |run - network| over `SIZES`, for slices (N, 1, H, W) and timesteps (N,) of both.

    Raises:
        ValueError: the two differ, or the network returns zeros alone, so that there is nothing to compare.
    """
    difference, scale = 0.0, 0.0
    for seed, size in enumerate(SIZES):
        x, timesteps = example_inputs(network.multiple, *size, seed=seed + 1)
        with torch.no_grad():
            expected = network(x, timesteps)
        difference = max(difference, float((run(x, timesteps) - expected).abs().max()))
        scale = max(scale, float(expected.abs().max()))
    if scale == 0:
        raise ValueError(
            "the network returns zeros alone, as it does untrained: give trained weights with --checkpoint"
        )
    if not difference <= TOLERANCE * scale:
        raise ValueError(
            f"{path} is not written: it differs from the network by {difference:.2g}, outputs are up to {scale:.2g}"
        )
    return difference


def write_torchscript(path: Path, network: torch.nn.Module, metadata: dict, configs: dict[str, dict]) -> float:
    """Write the traced network, with metadata and configs as extra files; returns the largest difference.

    `torch.jit.load(path)` reads it; `monai.data.load_net_with_metadata` reads the metadata as well.
    """
    extra = {name: json.dumps(content) for name, content in {"metadata.json": metadata, **configs}.items()}
    saved = BytesIO()
    torch.jit.save(traced(network), saved, extra)
    with written_whole(path) as partial:
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(partial, "w") as archive:
            # Where each line of code came from is left out: it names folders of this machine, and nothing needs it.
            for entry in (e for e in source.infolist() if not e.filename.endswith(".debug_pkl")):
                archive.writestr(zipfile.ZipInfo(entry.filename), source.read(entry))
        module = torch.jit.load(str(partial), map_location="cpu")
        return largest_difference(network, torch.no_grad()(module), path)


def write_onnx(path: Path, network: torch.nn.Module, metadata: dict, configs: dict[str, dict]) -> float:
    """Write the network as ONNX: `eps` of `x` (N, 1, H, W) and `timesteps` (N,); returns the largest difference.

    N, H and W are free, H and W as multiples of what the network needs. Metadata and configs are entries of the model's
    metadata.
    """
    import onnxruntime

    sides = {2: torch.export.Dim("rows") * network.multiple, 3: torch.export.Dim("columns") * network.multiple}
    batch = torch.export.Dim("batch")
    with written_whole(path) as partial, quiet():
        program = torch.onnx.export(
            network, example_inputs(network.multiple), dynamo=True, verbose=False,
            input_names=["x", "timesteps"], output_names=["eps"],
            dynamic_shapes=({0: batch, **sides}, {0: batch}),
        )  # fmt: skip
        entries = {"metadata.json": metadata, **configs}
        program.model.metadata_props.update({name: json.dumps(content) for name, content in entries.items()})
        for node in program.model.graph:
            node.metadata_props.clear()  # paths and lines of this machine
        program.save(str(partial), external_data=False)
        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])

        def run(x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(session.run(["eps"], {"x": x.numpy(), "timesteps": timesteps.numpy()})[0])

        return largest_difference(network, run, path)


def bundle_files(root: Path) -> list[Path]:
    """What the bundle needs to run and to be installed, in a fixed order; no tests, results, caches or hidden files.

    Raises:
        FileNotFoundError: a folder or file that belongs to the bundle is missing.
    """
    missing = [name for name in (*FOLDERS, *FILES) if not (root / name).exists()]
    if missing:
        raise FileNotFoundError(f"{root} lacks {', '.join(missing)}: run this in the folder of the whole bundle")
    found = [root / name for name in FILES] + [p for folder in FOLDERS for p in (root / folder).rglob("*")]
    names = sorted(p.relative_to(root) for p in found if p.is_file())
    return [n for n in names if not any(part.startswith(".") or part == "__pycache__" for part in n.parts)]


def write_zip(path: Path, root: Path = Path(".")) -> tuple[int, str]:
    """Write the bundle in `root` as a zip file with one folder, `NAME`; returns the number of files and the SHA-256.

    The same files give the same bytes: the order, the dates and the rights are fixed.
    """
    names = [n for n in bundle_files(root) if (root / n).resolve() != path.resolve()]
    with written_whole(path) as partial:
        with zipfile.ZipFile(partial, "w") as archive:
            for name in names:
                entry = zipfile.ZipInfo(f"{NAME}/{name.as_posix()}")  # dated 1980, the first year that zip files know
                entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
                archive.writestr(entry, (root / name).read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=9)
        return len(names), hashlib.sha256(partial.read_bytes()).hexdigest()


def write_safetensors(path: Path, weights: Weights) -> int:
    """Write weights, with what they say of themselves; returns the number of tensors. They are read again and compared.

    Raises:
        ValueError: what is read is not what was written.
    """
    with written_whole(path) as partial:
        partial.write_bytes(as_safetensors(weights.state, weights.about))
        again = Weights(partial)
        if again.about != weights.about or any(not torch.equal(again.state[n], t) for n, t in tensors_of(weights)):
            raise ValueError(f"{path} is not written: what is read of it differs from {weights.path}")
    return len(list(tensors_of(weights)))


def tensors_of(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of weights, without what these say of themselves."""
    return ((name, tensor) for name, tensor in weights.state.items() if name != EXTRA_STATE)


def read_network(config_files: Sequence[Path], checkpoint: Path | None) -> tuple[torch.nn.Module, Weights]:
    """The `network_def` of the configs with the weights of `checkpoint`, or of theirs, and these; on the CPU."""
    parser = ConfigParser()
    parser.read_config([str(p) for p in config_files])
    if "model" in parser:
        parser["model"] = "small"  # the same file on every machine
    if checkpoint is None and "checkpoint" not in parser:
        raise ValueError(f"{config_files[-1]} names no checkpoint: give the weights with --checkpoint")
    if checkpoint is not None:
        parser["checkpoint"] = str(checkpoint)
    weights = Weights(parser.get_parsed_content("checkpoint"))
    weights.about  # noqa: B018 - before the network is made of it, whose errors MONAI wraps
    return load_weights(parser.get_parsed_content("network_def"), weights).eval(), weights


def check_output(path: Path) -> None:
    """Raises OSError, naming the fix, where `path` cannot be written; creates its folder."""
    if path.is_dir():
        raise OSError(f"{path} is a folder: name the file to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".probe-{path.name}")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror}): choose another path") from None


def main(argv: list[str] | None = None) -> None:
    metadata_file = Path("configs/metadata.json")
    if not metadata_file.is_file():
        raise SystemExit("configs/metadata.json is missing: run this in the folder of the bundle")
    metadata = json.loads(metadata_file.read_text(encoding="utf-8"))
    default = {
        "torchscript": Path("export/model.ts"),
        "onnx": Path("export/model.onnx"),
        "zip": Path(f"export/{NAME}_v{metadata['version']}.zip"),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, path in default.items():
        parser.add_argument(f"--{kind}", type=Path, nargs="?", const=path, metavar="PATH", help=f"default: {path}")
    parser.add_argument("--safetensors", type=Path, metavar="PATH", help="the weights as safetensors")
    parser.add_argument("--hugging_face", type=Path, metavar="FOLDER", help="the bundle for the Hugging Face Hub")
    parser.add_argument("--zoo", type=Path, metavar="FOLDER", help="the bundle for MONAI's model zoo, and its weights")
    parser.add_argument("--checkpoint", type=Path, help="weights to export; default: those that the configs name")
    parser.add_argument(
        "--config_file", type=Path, nargs="+", default=[Path("configs/inference.json")], metavar="PATH",
        help="configs whose network_def is exported; default: configs/inference.json",
    )  # fmt: skip
    args = parser.parse_args(argv)
    paths = {kind: path for kind in KINDS if (path := getattr(args, kind)) is not None} or default
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None] if "onnx" in paths else []
    if missing:
        parser.error(
            f"ONNX needs {', '.join(missing)}: install them as docs/how_to/export.md says, or name what to write "
            "without them, --torchscript --zip"
        )
    for path in (p for p in args.config_file if not p.is_file()):
        parser.error(f"--config_file {path} does not exist")
    for kind, path in paths.items():
        (check_new if kind in HUBS else check_output)(path)
    if paths.keys() & {"torchscript", "onnx", "safetensors"}:
        network, weights = read_network(args.config_file, args.checkpoint)
        configs = {f"{p.stem}.json": ConfigParser.load_config_file(p) for p in args.config_file}
    for kind, path in paths.items():
        if kind == "hugging_face":
            added = write_hugging_face(path, Path("."), bundle_files(Path(".")))
            print(f"wrote {path}: the bundle, with {', '.join(map(str, added))}", flush=True)
            continue
        if kind == "zoo":
            large = write_zoo(path, Path("."), bundle_files(Path(".")), NAME)
            print(f"wrote {path}: {NAME}, and in large_files {', '.join(map(str, large))}", flush=True)
            continue
        if kind == "zip":
            count, digest = write_zip(path)
            report = f"{count} files, SHA-256 {digest}"
        elif kind == "safetensors":
            report = f"{write_safetensors(path, weights)} tensors, the same when read again"
        else:
            write = write_torchscript if kind == "torchscript" else write_onnx
            difference = write(path, network, metadata, configs)
            report = f"largest difference from the network {difference:.2g}"
        print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB; {report})", flush=True)


if __name__ == "__main__":
    with plain_endings():
        main()
