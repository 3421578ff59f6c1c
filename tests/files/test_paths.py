"""Names of files and folders stay text, whatever Python Fire makes of them on the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fire.parser
import pytest
from monai.bundle import ConfigParser

from interslice.files.paths import path_of
from tests.support.scans import ROOT, thick_voxels, write_volume

NAMES = ["1001", "1e5", "1.10", "0x10", "1_000", "a,b", "[x]", "(1,2)", "{a}", "True", "scan-1", "001", "1e400", "-5",
         "results#2", "scan#1.nii.gz", "(new)", "./a#2", "/a/b#c/d", "a@#b", "'it'", "a%b", "@scan.nii"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spelling", ["--dataset_dir {}", "--dataset-dir {}", "--dataset_dir={}"])
def test_a_name_is_what_was_typed(name, spelling):
    config = ConfigParser({"dataset_dir": fire.parser.DefaultParseValue(name)})
    config.parse()
    value = config.get_parsed_content("dataset_dir")
    words = ["python", "run", "inference", "--seed", "1", *spelling.format(name).split(" ", 1), "--output_dir", "o"]
    assert path_of("dataset_dir", value, words) == Path(name)


def test_a_value_that_the_command_line_did_not_make_stands():
    words = ["program", "--output_dir", "results#2", "--checkpoint", "a,b"]
    for value in ("other", "results#2", "result", Path("results")):
        assert path_of("output_dir", value, words) == Path(value)
    assert path_of("dataset_dir", "results", words) == Path("results")
    with pytest.raises(ValueError, match="checkpoint must be a path, got"):
        path_of("checkpoint", ("a", "c"), words)


def test_of_an_option_given_twice_the_last_counts():
    assert path_of("output_dir", "b", ["run", "--output_dir", "a#1", "--output_dir=b#2"]) == Path("b#2")


def test_from_python_digits_are_text_and_other_values_are_refused():
    assert path_of("output_dir", 1001, []) == Path("1001") and path_of("output_dir", Path("a"), []) == Path("a")
    for value in (1e5, ["x"], True, None):
        with pytest.raises(ValueError, match="output_dir must be a path, got .*: give it as text, or begin it with ./"):
            path_of("output_dir", value, [])
    with pytest.raises(ValueError, match="output_dir must name a file or a folder, got ''"):
        path_of("output_dir", "", [])


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "results"), [("1001", "7"), ("patient#2", "results#2")])
def test_a_run_on_folders_whose_names_mean_something_to_others(folder, results, tmp_path, tiny_weights, monkeypatch):
    write_volume(tmp_path / folder / "scan#1.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    write_volume(tmp_path / "patient" / "other.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    (tmp_path / "weights#1.pt").write_bytes(tiny_weights.read_bytes())
    command = [
        sys.executable, "-m", "monai.bundle", "run", "inference", "--config_file", str(ROOT / "configs/inference.json"),
        "--bundle_root", str(ROOT), "--dataset_dir", folder, "--output_dir", results, "--checkpoint", "weights#1.pt",
        "--num_steps", "1", "--num_draws", "1", "--report", "False", "--device", "cpu",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(results[:1])] == [results]
    assert (tmp_path / results / "scan#1" / "scan#1_recon.nii.gz").is_file()
    record = json.loads((tmp_path / results / "scan#1" / "run.json").read_text())
    assert record["source"] == str(tmp_path / folder / "scan#1.nii.gz")
    assert record["settings"]["checkpoint"] == "weights#1.pt"
