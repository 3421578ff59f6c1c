"""The folders that model hubs want: the whole bundle for the Hugging Face Hub, and MONAI's model zoo.

    Hugging Face    the bundle, a README.md with metadata in front, each models/**/*.pt as .safetensors beside it
    zoo             slice_consistent_reconstruction/    the bundle without its weights, and large_files.yml, which says
                                                        where they are and their SHA-256
                    large_files/models/...              the weights, for whoever hosts them and fills in the addresses

Nothing is sent anywhere. Sources: the Hub's documentation, "Model Cards"; the zoo's guide on large files, and
`monai.bundle.download_large_files`, which reads the list.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from interslice.files.whole import folder_written_whole
from interslice.prior.safetensors_file import as_safetensors
from interslice.prior.weights import Weights

TAGS = ("monai", "medical", "medical-imaging", "mri", "ct", "diffusion", "super-resolution", "inverse-problems",
        "image-reconstruction", "dicom", "nifti")  # fmt: skip
CARD, ROOT_PAGE = "docs/README.md", "README.md"
LINK = re.compile(r"(\]\()(?![a-z][a-z+.-]*:|#)([^)\s]+)(\))")
"""A link in Markdown to a file, relative to the page."""
RESULTS = (
    # file, part of it, method, what was reconstructed: as it is called, and in words
    ("docs/results.json", ("shipped prior",), "slerp", "colin27",
     "Colin 27, T1, 5 mm slices simulated from 1 mm, held out"),
    ("docs/results_ct.json", ("30 views, parallel, 1e5 photons",), "recon", "lidc-idri-0001",
     "LIDC-IDRI-0001, chest CT, 30 parallel views simulated with 1e5 photons, held out"),
)  # fmt: skip
LARGE = "large_files.yml"
LARGE_COMMENT = """# The weights, which are not in this folder. Put each file of large_files/ where it can be
# downloaded, and its address into `url`; then `python -m monai.bundle download_large_files` fetches and checks them.
"""


def write_hugging_face(folder: Path, root: Path, names: Sequence[Path]) -> list[Path]:
    """Write what a repository of the Hub holds; returns the files that the bundle does not have, in order.

    Args:
        folder: new, or empty.
        root: of the bundle.
        names: its files, relative to the root.
    """
    check_new(folder)
    with folder_written_whole(folder) as new:
        _copy(names, root, new)
        added = [Path(ROOT_PAGE)]
        (new / ROOT_PAGE).write_text(model_card(root), encoding="utf-8")
        for name in names:
            if is_weights(name):
                weights = Weights(root / name)
                added.append(name.with_suffix(".safetensors"))
                (new / added[-1]).write_bytes(as_safetensors(weights.state, weights.about))
    return added


def write_zoo(folder: Path, root: Path, names: Sequence[Path], bundle: str) -> list[Path]:
    """Write what the zoo holds, and beside it what it only names; returns the files that it names.

    Args:
        folder: new, or empty.
        root: of the bundle.
        names: its files, relative to the root.
        bundle: its name.
    """
    check_new(folder)
    large = [name for name in names if is_weights(name)]
    with folder_written_whole(folder) as new:
        _copy([name for name in names if name not in large], root, new / bundle)
        _copy(large, root, new / "large_files")
        (new / bundle / LARGE).write_text(LARGE_COMMENT + as_yaml({"large_files": [
            {"path": name.as_posix(), "url": "", "hash_val": sha256(root / name), "hash_type": "sha256"}
            for name in large
        ]}), encoding="utf-8")  # fmt: skip
    return large


def model_card(root: Path) -> str:
    """The Hub's README.md: metadata, the bundle's page, and its model card, whose links are made those of the root."""
    page, card = ((root / name).read_text(encoding="utf-8") for name in (ROOT_PAGE, CARD))
    return f"---\n{as_yaml(card_metadata(root))}---\n{page.rstrip()}\n\n{relinked(card, posixpath.dirname(CARD))}"


def card_metadata(root: Path) -> dict:
    """What the Hub shows and searches. No `datasets`: these are names on the Hub, and what was used is not there."""
    name = json.loads((root / "configs/metadata.json").read_text(encoding="utf-8"))["name"]
    results = [_result(root, *which) for which in RESULTS]
    return {
        "license": "apache-2.0",
        "library_name": "monai",
        "pipeline_tag": "image-to-image",
        "tags": list(TAGS),
        "model-index": [{"name": name, "results": results}],
    }


def _result(root: Path, file: str, part: Sequence[str], method: str, kind: str, words: str) -> dict:
    """One evaluation, the mean over its seeds, as the tables of the documentation have it."""
    found = json.loads((root / file).read_text(encoding="utf-8"))
    for key in part:
        found = found[key]
    volumes = [seed["metrics"][method]["volume"] for seed in found.values()]
    metrics = [("psnr", "PSNR (dB)", 2), ("ssim", "SSIM", 3)]
    return {
        "task": {"type": "image-to-image", "name": "Reconstruction of a volume"},
        "dataset": {"type": kind, "name": words},
        "metrics": [
            {"type": key, "name": title, "value": round(fmean(v[key] for v in volumes), digits)}
            for key, title, digits in metrics
        ],
    }


def relinked(text: str, folder: str) -> str:
    """A page of a folder with its links to files as a page of the root has them."""
    return LINK.sub(lambda m: m[1] + posixpath.normpath(posixpath.join(folder, m[2])) + m[3], text)


def as_yaml(content: dict) -> str:
    """Mappings and lists of text and numbers as YAML, with scalars as in JSON: what is asked here needs no library."""
    return "".join(f"{line}\n" for line in _yaml_lines(content))


def _yaml_lines(content: object) -> Iterator[str]:
    items = content.items() if isinstance(content, dict) else ((None, value) for value in content)
    for key, value in items:
        start = "-" if key is None else f"{key}:"
        if not isinstance(value, (dict, list)):
            yield f"{start} {json.dumps(value, ensure_ascii=False)}"
        elif key is None:
            first, *others = _yaml_lines(value)
            yield from [f"- {first}", *(f"  {line}" for line in others)]
        else:
            yield from [start, *(f"  {line}" for line in _yaml_lines(value))]


def is_weights(name: Path) -> bool:
    """Whether a file of the bundle is one of the shipped weights."""
    return name.parts[0] == "models" and name.suffix == ".pt"


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_new(folder: Path) -> None:
    """Raise OSError for a folder that holds something: it would be replaced."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OSError(f"{folder} is there, and not empty: name a new folder")


def _copy(names: Sequence[Path], root: Path, to: Path) -> None:
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, to / name)
