"""No name on a command line, in a folder or in a list is run, whatever it begins with."""

import os
import subprocess
import sys

import fire
import pytest
from monai.bundle import run

from interslice.files import last_words
from interslice.files.command_line import parse
from interslice.files.never_run import NOTHING, PATHS, check_names
from interslice.files.root_cause import root_cause
from interslice.usage import UsageError
from tests.support.scans import INFERENCE, ROOT, TRAIN

PROGRAM = "/somewhere/monai/bundle/__main__.py"
RUN = [PROGRAM, "run", "inference", "--config_file", INFERENCE]


QUIET = ["--logging_file", "False"]


@pytest.fixture
def marker(tmp_path):
    """A file that the code of the texts below would make."""
    return tmp_path / "marker"


def texts_of(marker):
    """Texts that MONAI runs, or makes a component of."""
    code = f"$open({str(marker)!r}, 'w').name"
    return {"python": code, "list": f"[{code!r}]", "nested": f"{{'a': [[{code!r}]]}}",
            "component": f"{{'_target_': 'builtins.open', 'file': {str(marker)!r}, 'mode': 'w'}}"}  # fmt: skip


def as_a_command(monkeypatch, words):
    """As `python -m monai.bundle` with these words, up to the end of the process."""
    monkeypatch.setattr(sys, "argv", [PROGRAM, *words])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(last_words, "_hook", lambda *_: None)  # which would stay with this process
    with pytest.raises((SystemExit, RuntimeError)) as ended:
        fire.Fire({"run": run}, command=list(words))
    return root_cause(ended.value)


@pytest.mark.parametrize(
    ("name", "form", "kind"),
    [("dataset_dir", form, "python") for form in ("--{} {}", "--{}={}", "-{} {}", "--+{} {}")]
    + [("bundle_root", form, "python") for form in ("--{} {}", "--{}={}", "-{} {}")]
    + [(name, "--{} {}", kind) for name in ("dataset_dir", "bundle_root") for kind in ("list", "nested", "component")],
)
def test_nothing_is_evaluated_before_the_refusal(name, form, kind, marker, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = texts_of(marker)[kind]
    first, _, second = form.format(name, "\0").partition(" ")
    given = [first.replace("\0", text)] + ([second.replace("\0", text)] if second else [])
    said = as_a_command(monkeypatch, ["run", "inference", "--config_file", INFERENCE, *QUIET, *given])
    assert "./" in said and not marker.exists()


@pytest.mark.parametrize(
    ("name", "config"),
    [(n, INFERENCE) for n in (*PATHS, "series", "unit", "weights#path", "cases::source")]
    + [(n, TRAIN) for n in ("bundle_root", "dataset_dir", "validation_dir", "run-dir", "model_name")],
)
def test_the_same_for_every_name_and_from_any_folder(name, config, marker, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["run", "inference", "--config_file", str(ROOT / config), *QUIET]
    words += ["--bundle_root", str(ROOT)] if name != "bundle_root" else []
    said = as_a_command(monkeypatch, [*words, f"--{name}", texts_of(marker)["python"]])
    assert said.startswith(f"--{name.replace('-', '_')} ") and not marker.exists()


def test_the_code_of_these_tests_would_have_run(marker, monkeypatch):
    """An id that is no name: what is written there is Python, as MONAI documents."""
    monkeypatch.chdir(ROOT)
    words = ["run", "inference", "--config_file", INFERENCE, *QUIET, "--dataset_dir", "/nowhere"]
    text = f"$[0, open({str(marker)!r}, 'w')][0]"
    monkeypatch.setattr(sys, "argv", [PROGRAM, *words, "--seed", text])
    monkeypatch.setattr(last_words, "_hook", lambda *_: None)
    with pytest.raises(Exception, match=""):
        fire.Fire({"run": run}, command=[*words, "--seed", text])
    assert marker.exists()


@pytest.mark.parametrize("text", ["%scan.json#x", "%sample_dir", "['%a.json']", "{'_target_': 'x'}", "{1: '$x'}"])
def test_what_is_looked_up_or_made_is_refused_too(text):
    with pytest.raises(UsageError, match="write ./"):
        check_names([*RUN, "--dataset_dir", text])


def test_any_option_that_names_a_file_of_such_a_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_names([*RUN, "--mine", "$scan.nii"])
    (tmp_path / "$scan.nii").touch()
    with pytest.raises(UsageError, match=r"--mine \$scan.nii: .*is run as Python.* write ./\$scan.nii"):
        check_names([*RUN, "--mine", "$scan.nii"])


def test_an_option_that_is_given_twice_is_looked_at_twice():
    with pytest.raises(UsageError, match="is run as Python"):
        check_names([*RUN, "--dataset_dir", "$x", "--", "--dataset_dir", "good"])


@pytest.mark.parametrize(
    "text",
    ["./$x.nii", "[a]", "['a', 'b']", "(new)", "a,b", "{'a': 1}", "@sample_dir", NOTHING, "a$b%c@d", "#x"],
)
def test_other_names_are_left_alone(text):
    check_names([*RUN, "--dataset_dir", text, "--config_file", "$x", "--device", "$torch.device('cpu')"])


def test_other_programs_are_left_alone():
    check_names(["/usr/bin/pytest", "run", "--dataset_dir", "$x"])
    check_names([PROGRAM])


@pytest.mark.parametrize("words", ["-abc 1", "-a 1", "-abc=1"])
def test_options_of_one_hyphen_are_options_as_for_fire(words):
    assert list(parse(words.split())[1].values()) == ["1"] and not parse(words.split())[0]


@pytest.mark.slow
def test_by_command_line_in_a_loop_over_names(run_bundle, tmp_path, monkeypatch):
    """The loop of a shell over the files of a folder from elsewhere."""
    name = "$open('made','w').name.nii.gz"
    (tmp_path / name).touch()
    loop = (
        f"for f in *; do {sys.executable} -m monai.bundle run inference --config_file {ROOT}/{INFERENCE} "
        f'--bundle_root {ROOT} --dataset_dir "$f" --output_dir out; done'
    )
    done = subprocess.run(loop, shell=True, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 2 and f"write ./{name}" in done.stderr.strip().splitlines()[-1]
    assert os.listdir(tmp_path) == [name]
