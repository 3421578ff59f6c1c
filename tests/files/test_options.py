"""What was asked on the command line is done, or said to be unknown before any work."""

import re
import shlex

import pytest
from monai.bundle import ConfigParser

from interslice.files.command_line import parse
from interslice.files.options import check_options
from interslice.usage import UsageError
from tests.support.scans import ROOT

RUN = ["/somewhere/monai/bundle/__main__.py", "run"]
INFERENCE = ["inference", "--config_file", "configs/inference.json"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--num_draw 8", "unknown option --num_draw: did you mean --num_draws?"),
        ("--outputdir x", "unknown option --outputdir: did you mean --output_dir?"),
        ("--Seed 5", "unknown option --Seed: did you mean --seed?"),
        ("--Seed=5", "unknown option --Seed: did you mean --seed?"),
        ("--gap 1.0", "unknown option --gap: did you mean --operator#gap?"),
        ("--operator#gapp 1", "unknown option --operator#gapp: did you mean --operator#gap?"),
        ("--operator::gapp 1", "unknown option --operator::gapp: did you mean --operator#gap?"),
        ("--operator#gap -inf", "unknown option --inf"),
        ("--qwertz", "unknown option --qwertz: docs/reference/options.md lists all"),
        ("--dataset_dir a.nii b.nii c.nii", "these words belong to no option: b.nii c.nii"),
        (
            "--region_dir None",
            "--region_dir None is left out by MONAI: write '$None' for nothing, or ./None for a file",
        ),
        ("--num_draw 8 --sed 1", "--num_draws?\nunknown option --sed: did you mean --seed?"),
    ],
)
def test_what_no_config_knows_ends_the_run(words, said):
    with pytest.raises(UsageError) as ended:
        check_options([*RUN, *INFERENCE, *words.split()])
    assert said in str(ended.value)


@pytest.mark.parametrize(
    "words",
    ["", "--num-draws 4", "--operator#gap 1.0", "--operator::thickness=4", "--dataloader#num_workers 2", "--seed -1",
     "--mine 3 --num_steps @mine", "--operator {} --operator#anything 1", "--window#0 -1", "--_meta_#version 9"],
)  # fmt: skip
def test_what_a_config_knows_passes(words):
    check_options([*RUN, *INFERENCE, *words.split()])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dataset_dir", "$open('x')"], "is run as Python by MONAI; .* write ./\\$open"),
        (["--checkpoint=$a.pt"], "--checkpoint \\$a.pt: what begins with \\$ is run as Python"),
        (["--output_dir", "@results"], "none is results; for a file write ./@results"),
        (["--bundle_root", "clone#2"], "arrives as 'clone', .*: name the folder without #, or link to it"),
        (["--sample_dir", "/a/b#2"], "arrives as '/a/b::2', .*: name the folder without #"),
        (["--sample_dir", "1e5"], "arrives as 100000.0, and other names are added to it: write ./1e5"),
    ],
)
def test_texts_that_are_no_paths_to_monai_are_refused(words, said):
    with pytest.raises(UsageError, match=said):
        check_options([*RUN, *INFERENCE, *words])


@pytest.mark.parametrize(
    ("run_id", "config", "known"),
    [
        ("train", "train", "`run training`"),
        ("seed", "train", "`run training`"),
        ("infer", "inference", "`run inference`"),
        ("run#9", "inference", "`run inference`"),
    ],
)
def test_what_does_nothing_when_it_is_run_is_refused(run_id, config, known):
    """MONAI ends well, without a word, where the id of a part such as `train` is run."""
    with pytest.raises(UsageError, match=f"there is no {run_id} to run: these configs have {known}"):
        check_options([*RUN, run_id, "--config_file", f"configs/{config}.json"])


@pytest.mark.parametrize("words", [["inference"], ["run"], [], ["--run_id", "inference"], ["run#0"]])
def test_what_can_be_run_passes(words):
    check_options([*RUN, *words, "--config_file", "configs/inference.json"])


def test_the_output_dir_of_training_is_used_as_it_arrives():
    training = [*RUN, "training", "--config_file", "configs/train.json", "--output_dir"]
    with pytest.raises(UsageError, match="--output_dir results#2 arrives as 'results'"):
        check_options([*training, "results#2"])
    check_options([*training, "1001"])


@pytest.mark.parametrize(
    "words",
    ["--output_dir results#2", "--checkpoint $None", "--dataset_dir @a.nii", "--output_dir ./$x", "--sample_dir 1",
     "--dataset_dir @sample_dir", "--mine a --output_dir @mine", "--dataset_dir a%b"],
)  # fmt: skip
def test_other_texts_are_paths(words):
    check_options([*RUN, *INFERENCE, *words.split()])


@pytest.mark.parametrize("task, option", [("stacks", "times 2"), ("csmri", "series 3"), ("svct", "noise_level 0.1")])
def test_an_option_that_another_task_has_is_refused(task, option):
    files = str(["configs/inference.json", f"configs/task_{task}.json"])
    with pytest.raises(UsageError, match=f"--{option.split()[0]} changes nothing here"):
        check_options([*RUN, "inference", "--config_file", files, *f"--{option}".split()])


@pytest.mark.parametrize("program", ["/usr/bin/pytest", "/somewhere/monai/bundle/other.py"])
def test_other_programs_have_options_of_their_own(program):
    check_options([program, "run", *INFERENCE, "--num_draw", "8"])


def test_words_are_read_as_fire_reads_them():
    assert parse(["a", "--x-y", "1", "--z=2=3", "--flag", "--w", "-5", "-q", "b"]) == (
        ["a"], {"x_y": "1", "z": "2=3", "flag": "True", "w": "-5", "q": "b"},
    )  # fmt: skip


def test_every_command_of_the_documentation_has_options_that_exist():
    found = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"python -m monai\.bundle (run .*?)(?:`|\n|$)", text):
            check_options([RUN[0], *shlex.split(line, comments=True)])
            found += 1
    assert found > 20


@pytest.mark.slow
def test_a_run_ends_before_it_makes_anything(run_bundle, tmp_path):
    done = run_bundle("inference", INFERENCE[2], {"output_dir": str(tmp_path / "out"), "num_draw": 8})
    assert done.returncode == 2 and "did you mean --num_draws?" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("task_svct", "--beam fan"), ("task_svct", "--photons 1e5"), ("task_svct", "--operator#column_offset 3"),
        ("task_svct", "--operator::num_columns 3"), ("task_csmri", "--acceleration 8"),
        ("task_csmri", "--kspace_noise 0"), (None, "--measurement_noise 0.1"),
    ],
)  # fmt: skip
def test_settings_of_simulations_are_refused_where_nothing_is_simulated(task, words):
    files = ["configs/inference.json", *([f"configs/{task}.json"] if task else [])]
    name = words.split()[0]
    with pytest.raises(UsageError, match=f"{name} describes simulated scans, .* or add configs/evaluate.json"):
        check_options([*RUN, "inference", "--config_file", str(files), *words.split()])
    check_options([*RUN, "inference", "--config_file", str([*files, "configs/evaluate.json"]), *words.split()])


@pytest.mark.parametrize("words", ["--truncation leave", "--remove_rings true", "--beam_hardening 120.0",
                                   "--raw#every 2", "--raw::rebin fan"])  # fmt: skip
def test_what_mends_measured_scans_is_refused_where_they_are_simulated(words):
    files = ["configs/inference.json", "configs/task_svct.json"]
    check_options([*RUN, "inference", "--config_file", str(files), *words.split()])
    with pytest.raises(UsageError, match=f"{words.split()[0]} is for measured scans, .* leave out configs/evaluate"):
        check_options([*RUN, "inference", "--config_file", str([*files, "configs/evaluate.json"]), *words.split()])


def test_settings_of_simulations_and_of_measurements_exist():
    for task in ("inference", "task_svct", "task_csmri"):
        of_both = ["configs/inference.json", f"configs/{task}.json"]
        for kind, files in (("of_simulations", [*of_both, "configs/evaluate.json"]), ("of_measurements", of_both)):
            for name in ConfigParser.load_config_files(files).get(kind, ()):
                check_options([*RUN, "inference", "--config_file", str(files), f"--{name}", "1"])
