"""The console command: what it starts, how it says what is wrong, and that it starts at once."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from interslice import __version__
from interslice.cli import main as command
from interslice.cli.jobs import config_file, job_of
from interslice.usage import UsageError
from tests.support.scans import ROOT


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    """Runs words in this process as far as the job that they ask for: `jobs("run", "a.nii")`; from an empty folder."""
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(command, "run_job", seen.append)

    def asked(*words):
        command.cli.main([*words], prog_name="interslice", standalone_mode=False)
        return seen.pop()

    return asked


def interslice(*words, cwd=ROOT, **environment):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, "-m", "interslice", *words], cwd=cwd, env=environment, capture_output=True,
                          encoding="utf-8", timeout=300)  # fmt: skip


def names(job):
    return [path.rsplit("/", 1)[1].removesuffix(".json") for path in job.configs]


def test_task_and_solver_choose_configs(jobs):
    assert names(jobs("run")) == ["inference"]
    assert names(jobs("run", "--task", "ct", "--solver", "dds")) == ["inference", "task_svct", "solver_dds"]
    assert names(jobs("run", "--task=stacks")) == ["inference", "task_stacks"]
    assert names(jobs("evaluate", "--task", "kspace")) == ["inference", "task_csmri", "evaluate"]
    assert names(jobs("run", "--solver", "ddnm_plus")) == ["inference", "solver_ddnm_plus"]
    assert names(jobs("run", "--config", "trajectory"))[1:] == ["trajectory"]
    assert names(jobs("train", "v", "--task", "ct")) == ["train", "train_ct"]
    assert names(jobs("adapt")) == ["train", "adapt"]
    assert [jobs("evaluate").run_id, jobs("train", "v").run_id, jobs("adapt").run_id] == [
        "inference", "training", "adaptation",
    ]  # fmt: skip


def test_every_task_and_every_solver_has_its_config():
    assert len(command.solvers()) == len(list((ROOT / "configs").glob("solver_*.json"))) > 5
    shipped = {path.name for path in (ROOT / "configs").glob("task_*.json")}
    assert shipped == {n + ".json" for t in command.TASKS for n in names(job_of("run", t)) if n != "inference"}


def test_ids_are_written_as_the_configs_or_the_shell_writes_them(jobs):
    for word in ("--num-draws", "--num_draws"):
        assert jobs("run", word, "3").values["num_draws"] == 3
    for word in ("--operator-gap", "--operator#gap", "--operator_gap"):
        assert jobs("run", word, "-0.5").values["operator#gap"] == -0.5
    assert jobs("run", "--set", "operator#gap=1").values["operator#gap"] == 1
    assert jobs("run", "--set", "sampler#progress=False").values["sampler#progress"] is False
    assert jobs("run", "--set", "start=@baselines#smoothest").values["start"] == "@baselines#smoothest"


@pytest.mark.parametrize(
    ("words", "value", "scans"),
    [
        (["--evidence", "a.nii"], True, 1),
        (["--no-evidence", "a.nii"], False, 1),
        (["--evidence", "True", "a.nii"], True, 1),
        (["--evidence", "no"], False, 0),
        (["--evidence=yes"], True, 0),
        (["--evidence=0"], False, 0),
    ],
)
def test_switches_may_have_a_word_as_in_the_configs(words, value, scans, jobs):
    job = jobs("run", *words)
    assert job.values["evidence"] is value and ("dataset_dir" in job.values) == bool(scans)


@pytest.mark.parametrize("name", ["$(touch x)", "@noise", "%x", "1e5", "a#b", "true", "evidence"])
def test_a_scan_may_be_called_anything(name, jobs):
    assert eval(jobs("run", "--", name).values["dataset_dir"][1:]) == name  # the literal that stands for it
    assert jobs("run", "--", name).said["dataset_dir"] == name


def test_several_scans_become_a_list_while_the_run_lasts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr(command, "run_job", lambda job: seen.append(Path(job.said["dataset_dir"]).read_bytes()))
    for name in ("a b.nii", "$c.nii"):
        (tmp_path / name).touch()
    command.cli.main(["run", "a b.nii", "$c.nii"], standalone_mode=False)
    assert seen == [f"{tmp_path}/a b.nii\0{tmp_path}/$c.nii\0".encode()]
    with pytest.raises(UsageError, match="none.nii does not exist"):
        command.cli.main(["run", "a b.nii", "none.nii"], standalone_mode=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--nmu-draws", "3"], "No such option '--nmu-draws'"),
        (["run", "--seed", "x"], "seed must be a whole number, got 'x'"),
        (["run", "--preset", "slow"], "preset must be one of best, fast, sharp, got 'slow'"),
        (["run", "--num-views", "30"], "--num-views is an option of --task ct, not of thick"),
        (["run", "--set", "gap"], "--set gap: write a name, = and a value"),
        (["run", "--set", "unit=$__import__('os')"], "what begins with $ is not run from here"),
        (["run", "--config", "none"], "--config none: there is no such file; configs of the bundle are adapt,"),
        (["run", "--task", "mri"], "Invalid value for '--task'"),
        (["run", "--evidence=maybe"], "Option '--evidence' does not take a value"),
        (["train"], "Missing argument 'FOLDER'"),
        (["adapt", "a", "b"], "a prior is adapted to one scan, got 2"),
        (["adapt", "--task", "ct"], "No such option '--task'"),
        (["nothing"], "No such command 'nothing'"),
    ],
)
def test_what_was_asked_wrongly_ends_with_two(words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["interslice", *words])
    with pytest.raises(SystemExit) as end:
        command.main()
    heard = capsys.readouterr().err
    assert end.value.code == 2 and heard.startswith("error: ") and said in heard and "Traceback" not in heard


def test_interrupts_end_with_their_status(monkeypatch, capsys):
    def interrupted(job):
        raise KeyboardInterrupt("1 of 2 volumes are written")

    monkeypatch.setattr(command, "run_job", interrupted)
    monkeypatch.setattr(sys, "argv", ["interslice", "run"])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 130 and "interrupted: 1 of 2 volumes are written" in capsys.readouterr().err


def test_debug_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setattr(command, "run_job", lambda job: 1 / 0)
    for words in (["run", "--debug", "scan.nii"], ["run", "--debug=true", "scan.nii"]):
        monkeypatch.setattr(sys, "argv", ["interslice", *words])
        with pytest.raises(SystemExit):
            command.main()
        assert "ZeroDivisionError" in capsys.readouterr().err.split("Traceback", 1)[1]


def test_a_config_of_ones_own_is_a_file(tmp_path):
    (tmp_path / "mine.json").write_text("{}")
    assert config_file(str(tmp_path / "mine.json")) == str(tmp_path / "mine.json")
    assert not job_of("run", configs=[str(tmp_path / "mine.json")]).own and job_of("run", configs=["trajectory"]).own


def test_help_and_version_and_tasks_come_without_torch():
    """Else they would take seconds."""
    code = "import sys; sys.argv = ['interslice', *{0!r}]\nfrom interslice.cli.main import main\ntry: main()\n" + (
        "finally: import json; print(json.dumps(sorted(m for m in ('torch', 'monai', 'numpy') if m in sys.modules)))"
    )
    for words in (["--help"], ["run", "--help"], ["--version"], ["tasks"]):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code.format(words)], capture_output=True, encoding="utf-8",
                              env=environment, timeout=60)  # fmt: skip
        assert done.returncode == 0 and json.loads(done.stdout.splitlines()[-1]) == [], done.stderr
        assert len(done.stdout.splitlines()) > 1


def test_version_and_tasks():
    runner = CliRunner()
    assert runner.invoke(command.cli, ["--version"], prog_name="interslice").output == f"interslice {__version__}\n"
    told = runner.invoke(command.cli, ["tasks"]).output
    assert all(re.search(rf"^  {task} +\w", told, re.MULTILINE) for task in command.TASKS)
    assert all(solver in told for solver in command.solvers())


@pytest.mark.parametrize(
    ("words", "index", "found"),
    [
        ("interslice ru", 1, "plain,run"),
        ("interslice run --pre", 2, "plain,--preset"),
        ("interslice run --preset f", 3, "plain,fast"),
        ("interslice run --checkpoint m", 3, "file,m"),
    ],
)
def test_shells_complete_commands_options_and_values(words, index, found):
    done = interslice(_INTERSLICE_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(index))
    assert found in done.stdout.splitlines()


@pytest.mark.parametrize("name", ["operator#_target_", "operator::_target_", "noise_field#_mode_", "_meta_"])
def test_what_a_part_is_made_of_is_not_set_from_here(jobs, name):
    with pytest.raises(UsageError, match="is set in a file for --config alone"):
        jobs("run", "--set", f"{name}=subprocess.call")


def test_the_folder_of_results_has_the_name_of_the_configs_too(jobs):
    for option in ("-o", "--output", "--output-dir", "--output_dir"):
        assert jobs("run", option, "there").said["output_dir"] == "there"


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["run", "--debug", "a.nii"], ["run", "--debug=true", "a.nii"]),
        (["run", "--debug", "true", "a.nii"], ["run", "--debug=true", "a.nii"]),
        (["run", "a.nii", "--debug", "No"], ["run", "a.nii", "--debug=No"]),
        (["run", "--debug=false"], ["run", "--debug=false"]),
    ],
)
def test_debug_takes_its_word_or_none(words, left):
    assert command.debug_first(words) == left


def test_debug_reaches_the_configs(jobs):
    assert jobs("run", "--debug", "a.nii").values["debug"] is True
    assert "debug" not in jobs("run", "a.nii").values


@pytest.mark.parametrize(("name", "module", "words"), [
    ("bids", "interslice.bids.app", ["a", "b", "participant", "--preset", "fast"]),
    ("pacs", "interslice.pacs.__main__", ["run", "--url", "https://x", "--", "--preset", "fast"]),
])  # fmt: skip
def test_other_programs_of_the_package_get_their_words_untouched(name, module, words, monkeypatch):
    import importlib

    seen = []
    monkeypatch.setattr(importlib.import_module(module), "main", seen.append)
    command.cli.main([name, *words], prog_name="interslice", standalone_mode=False)
    assert seen == [words]
