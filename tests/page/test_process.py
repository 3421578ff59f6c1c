"""`interslice page` as a process: its address, its end, and what is left of it."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from interslice.cli import main as command
from interslice.page import __main__ as program
from interslice.usage import UsageError
from tests.support.scans import ROOT


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_its_files_and_its_run_end_with_it(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "interslice", "page", "--no-browser", "--", "--num-steps", "3"]
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, encoding="utf-8") as page:
        url = re.match(r"the page is at (http://127\.0\.0\.1:\d+/)([\w-]{32})/\n", page.stdout.readline())
        (folder,) = tmp_path.glob("interslice-page-*")
        assert folder.stat().st_mode & 0o077 == 0
        send(url, "runs", b'{"task": "thick", "preset": "fast", "files": [{"name": "a.nii", "size": 3}]}')
        send(url, "runs/1/files/0", b"abc", "PUT")
        assert (folder / "run-1/scan/a.nii").read_bytes() == b"abc"
        send(url, "runs/1/start", b"{}")
        (run,) = psutil.Process(page.pid).children()
        assert run.cmdline()[7:9] == ["--num-steps", "3"]
        page.send_signal(signal.SIGTERM)
        said = page.communicate(timeout=60)[0]
    assert page.returncode == 0 and "the page has ended; its files are removed" in said
    assert not run.is_running() and not [*tmp_path.glob("interslice-page-*")]


def send(url, path, content, method="POST"):
    request = urllib.request.Request(f"{url[1]}{url[2]}/{path}", content, method=method)
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--", "--nmu-draws", "3"], "No such option '--nmu-draws'"),
        (["--", "--num-draws", "x"], "num_draws must be a whole number, got 'x'"),
        (["--", "scan.nii"], "got scan.nii: scans go to the page"),
        (["--port", "x"], "Invalid value for '--port'"),
        (["--port", "99999"], "port 99999 of 127.0.0.1 cannot be used"),
        (["--max-gigabytes", "-1"], "max_gigabytes must be"),
    ],
)
def test_what_was_asked_wrongly_ends_with_two(words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["interslice", "page", "--no-browser", *words])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(tmp_path):
    with program._server(None, 0) as server, pytest.raises(UsageError, match="cannot be used .* leave --port out"):
        program._server(None, server.server_port)


def test_the_command_hands_its_options_on(monkeypatch):
    seen = []
    monkeypatch.setattr(program, "serve", lambda *given: seen.append(given))
    words = ["page", "--port", "8765", "-o", "-odd", "--max-gigabytes", "6", "--", "--num_draws", "3", "--evidence"]
    assert CliRunner().invoke(command.cli, words).exit_code == 0
    assert seen == [(8765, True, "-odd", 6.0, ["--num_draws", "3", "--evidence"])]


def test_a_browser_is_started_without_the_secret(monkeypatch, tmp_path):
    opened = []

    def serve_forever(self):
        end = time.monotonic() + 10
        while not opened and time.monotonic() < end:
            time.sleep(0.01)
        assert opened == [self.guard.url_once] and self.guard.token not in opened[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(program.Server, "serve_forever", serve_forever)
    monkeypatch.setattr(program.webbrowser, "open", opened.append)
    monkeypatch.setattr(program.tempfile, "tempdir", str(tmp_path))
    program.serve()
    assert opened and not [*Path(tmp_path).iterdir()]
