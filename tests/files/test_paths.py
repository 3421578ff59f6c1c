"""Names of files and folders stay text, whatever Python Fire makes of them on the command line."""

import os
import subprocess
import sys
from pathlib import Path

import fire.parser
import pytest

from bundle.files.paths import path_of
from tests.support.scans import ROOT, thick_voxels, write_volume

NAMES = ["1001", "1e5", "1.10", "0x10", "1_000", "a,b", "[x]", "(1,2)", "{a}", "True", "scan-1", "001", "1e400", "-5"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spelling", ["--dataset_dir {}", "--dataset-dir {}", "--dataset_dir={}"])
def test_a_name_is_what_was_typed(name, spelling):
    value = fire.parser.DefaultParseValue(name)
    words = ["python", "run", "inference", "--seed", "1", *spelling.format(name).split(" ", 1), "--output_dir", "o"]
    assert path_of("dataset_dir", value, words) == Path(name)


def test_from_python_digits_are_text_and_other_values_are_refused():
    assert path_of("output_dir", 1001, []) == Path("1001") and path_of("output_dir", Path("a"), []) == Path("a")
    for value in (1e5, ["x"], True, None):
        with pytest.raises(ValueError, match="output_dir must be a path, got .*: give it as text, or begin it with ./"):
            path_of("output_dir", value, [])
    with pytest.raises(ValueError, match="output_dir must name a file or a folder, got ''"):
        path_of("output_dir", "", [])


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "results"), [("1001", "7"), ("1e5", "1_0")])
def test_a_run_on_folders_whose_names_are_numbers(folder, results, tmp_path, tiny_weights, monkeypatch):
    write_volume(tmp_path / folder / "scan.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    command = [
        sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", str(ROOT / "configs/inference.json"),
        "--bundle_root", str(ROOT), "--dataset_dir", folder, "--output_dir", results, "--checkpoint", str(tiny_weights),
        "--num_steps", "1", "--num_draws", "1", "--report", "False", "--device", "cpu",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / results / "scan" / "scan_recon.nii.gz").is_file()
