"""How programs end: the last lines on the screen, the status, and what is left out before them."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import pytest

from tests.support.scans import INFERENCE, ROOT, TRAIN, cut_short, thick_voxels, write_volume

SCRIPT = """
import sys, threading, warnings
from interslice.files.last_words import plain_endings
from interslice.usage import UsageError

def main():
    {body}

if __name__ == "__main__":
    with plain_endings("run it again"):
        main()
"""


def script(tmp_path, body, *words):
    """The command of a script of ours, whose main is `body`."""
    path = tmp_path / "program.py"
    path.write_text(SCRIPT.format(body=textwrap.indent(textwrap.dedent(body), "    ").strip()))
    return [sys.executable, str(path), *words]


def environment(**more):
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | more


def run_script(tmp_path, body, *words, **how):
    return subprocess.run(
        script(tmp_path, body, *words), env=environment(TMPDIR=str(tmp_path), TEMP=str(tmp_path)), capture_output=True,
        encoding="utf-8", timeout=100, **how,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("raise UsageError('n must be 1')", 2, "error: n must be 1\n"),
        ("open('none/x')", 1, "error: none/x: No such file or directory\n"),
        ("raise KeyboardInterrupt", 130, "interrupted: files that were written before are whole; run it again\n"),
        ("sys.exit('3 of 4 failed')", 1, "3 of 4 failed\n"),
        ("sys.exit(5)", 5, ""),
        ("warnings.warn('look here'); warnings.warn('will change', FutureWarning)", 0, "warning: look here\n"),
        ("pass", 0, ""),
    ],
)
def test_nothing_but_the_last_words_is_on_stderr(tmp_path, body, status, said):
    done = run_script(tmp_path, body)
    assert (done.returncode, done.stderr) == (status, said)


def test_the_traceback_of_a_fault_is_kept_in_a_file(tmp_path):
    done = run_script(tmp_path, "print({}['key'])")
    first, second = done.stderr.splitlines()
    assert done.returncode == 1 and first.startswith("this is a fault of the program, please report it: KeyError at")
    path = re.fullmatch("the traceback is in (.*); --debug true shows the traceback", second)[1]
    with open(path, encoding="utf-8") as kept:
        assert "print({}['key'])" in kept.read()


@pytest.mark.parametrize("words", [["--debug", "true"], ["--debug"], ["--debug=yes"], ["a", "--debug", "1", "--b"]])
def test_debug_shows_the_traceback_before_the_last_words(tmp_path, words):
    done = run_script(tmp_path, "print(sys.argv[1:]); raise UsageError('n must be 1')", *words)
    assert done.stdout == f"{[w for w in words if w in ('a', '--b')]}\n"  # the script sees its own options only
    assert done.returncode == 2 and done.stderr.startswith("Traceback")
    assert done.stderr.endswith("\nerror: n must be 1\n")


def test_debug_is_a_switch(tmp_path):
    done = run_script(tmp_path, "print('ran')", "--debug", "perhaps")
    assert (done.returncode, done.stdout) == (2, "") and "error: --debug is on or off" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process can catch")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_with_words(tmp_path, number, status):
    command = script(tmp_path, "print('begun', flush=True); import time; time.sleep(60)")
    program = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which nohup and `&` in a script turn off
    )  # fmt: skip
    program.stdout.readline()
    time.sleep(0.2)
    program.send_signal(number)
    said = program.communicate(timeout=60)[1]
    assert program.returncode == status and said.startswith("interrupted: ") and said.count("\n") == 1


@pytest.mark.parametrize("count", [1, 100_000])
def test_a_reader_that_has_read_enough_hears_no_complaint(tmp_path, count):
    command = script(tmp_path, f"for i in range({count}): print('a line of text')")
    program = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    program.stdout.close()
    said = program.stderr.read()
    program.wait(60)
    assert said == ""


def test_python_users_keep_their_hooks(monkeypatch):
    """In a process that is no command line of the bundle, `begin` changes nothing."""
    from interslice.files.last_words import begin

    before = sys.excepthook, warnings.formatwarning, signal.getsignal(signal.SIGTERM)
    for words in (sys.argv, ["/somewhere/pytest", "run"], ["/x/monai/bundle/__main__.py", "ckpt_export"], []):
        begin(words)
    assert (sys.excepthook, warnings.formatwarning, signal.getsignal(signal.SIGTERM)) == before


BAD = {
    "text": ("--dataset_dir TEXT", 1, "TEXT: this is no volume, but text that begins with 'hello'"),
    "missing": ("--dataset_dir MISSING", 1, "error: MISSING does not exist: set dataset_dir to a volume"),
    "draws": ("--num_draws 0", 2, r"error: num_draws must be a whole number from 1, got 0 \(--num_draws 0\)"),
    "ratio": ("--operator#ratio 20", 2, r"error: ratio: ratio 20 is outside 1.5 to 10; .*\(--operator#ratio 20\)"),
    "format": ("--output_format png", 2, "error: output_format must be one of nifti, dicom, both, got 'png'"),
    "output": ("--output_dir TEXT/x", 1, "error: output_dir TEXT/x cannot be written .*: choose another --output_dir"),
    "weights": ("--checkpoint CUT", 1, "error: weights CUT cannot be read, the file may be truncated"),
    "option": ("--num_draw 8", 2, r"error: unknown option --num_draw: did you mean --num_draws\?"),
    "seed": ("--seed x", 2, r"error: seed must be a whole number from 0, got 'x'"),
    "device": ("--device cuda:99", 2, r"error: device cuda:99 cannot be used \(.*\): leave --device out"),
    "expression": ("--eta $foo", 2, r"error: name 'foo' is not defined \(in eta\)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_a_run_that_cannot_go_on_says_why_in_its_last_line(name, run_bundle, tiny_overrides, thick_file, tmp_path):
    words, status, said = BAD[name]
    places = {"TEXT": tmp_path / "bad.nii.gz", "MISSING": tmp_path / "none.nii", "CUT": tmp_path / "cut.pt"}
    places["TEXT"].write_text("hello")
    overrides = tiny_overrides(thick_file)
    with open(overrides["checkpoint"], "rb") as whole:
        places["CUT"].write_bytes(whole.read())
    cut_short(places["CUT"])
    for short, place in places.items():
        words, said = words.replace(short, str(place)), said.replace(short, re.escape(str(place)))
    option, value = words.split(" ", 1)
    done = run_bundle("inference", INFERENCE, overrides | {option.removeprefix("--"): value})
    assert done.returncode == status and "Traceback" not in done.stdout + done.stderr, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(said, last), last
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_debug_shows_the_traceback_of_a_run(run_bundle, tiny_overrides, thick_file):
    done = run_bundle("inference", INFERENCE, tiny_overrides(thick_file, num_draws=0, debug=True))
    assert done.returncode == 2 and "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith("error: num_draws must be a whole number from 1, got 0 (--num_draws 0)\n")


@pytest.mark.slow
def test_the_screen_of_a_good_run_says_what_was_written(run_bundle, tiny_overrides, thick_file, tmp_path):
    done = run_bundle("inference", INFERENCE, tiny_overrides(thick_file))
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"wrote {tmp_path}/results/thick: run.json, thick_recon.nii.gz"]
    (only,) = done.stderr.strip().splitlines()  # MONAI's own, before it has read a config
    assert only.startswith("parsing config_file")


@pytest.mark.slow
def test_a_training_that_cannot_go_on(run_bundle, tmp_path):
    """The reader fails in a thread, while MONAI makes the parts of the config."""
    for name in "ab":
        write_volume(tmp_path / "scans" / f"{name}.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    overrides = {
        "dataset_dir": tmp_path / "scans", "output_dir": tmp_path / "out", "num_workers": 2,
        "network_def#channels": "[8,16]", "network_def#norm_num_groups": 4, "patch_size": 8, "device": "cpu",
    }  # fmt: skip
    cut_short(tmp_path / "scans" / "a.nii.gz")
    done = run_bundle("training", TRAIN, overrides)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/scans/a.nii.gz: the file cannot be read, is it damaged?"), last


def test_a_screen_that_lacks_a_letter_is_no_reason_to_end(tmp_path):
    command = script(tmp_path, r"print('\u00e4.nii.gz')")
    done = subprocess.run(command, env=environment(PYTHONIOENCODING="ascii"), capture_output=True, timeout=100)
    assert (done.returncode, done.stdout.strip()) == (0, rb"\xe4.nii.gz"), done.stderr
