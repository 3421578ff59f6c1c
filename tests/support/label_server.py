"""A MONAI Label server for tests: its environment, an app with bundles, and requests to it on this machine alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from tests.support.environments import clean_environment, make_environment
from tests.support.scans import ROOT

TORCHVISION = '''"""Stands in for torchvision, of which the server imports two names; these tests need neither."""


def make_grid(*args, **kwargs):
    raise RuntimeError("torchvision is not installed here")


save_image = make_grid
'''
STARTING, ANSWERING, LOGGING, STOPPING = 180, 180, 10, 20
"""Seconds at most."""


def label_environment(folder: Path) -> Path:
    """An environment with MONAI Label, from the package index that pip is set up with; returns its interpreter."""
    python = make_environment(folder, ["-r", str(ROOT / "requirements-label.txt")])
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "torchvision").mkdir()
    (site / "torchvision" / "__init__.py").touch()
    (site / "torchvision" / "utils.py").write_text(TORCHVISION, encoding="utf-8")
    return python


class LabelServer:
    """Requests to a running server; `log` is the file of its output."""

    def __init__(self, port: int, log: Path) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", log

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=ANSWERING) as answer:
            return json.load(answer)

    def infer(self, model: str, target: Path, image: str = "", file: Path | None = None, **params) -> Path:
        """Reconstruct an image of the studies' folder, or a file that is sent; writes the volume to `target`."""
        parts = {"params": (None, json.dumps(params).encode())}
        if file is not None:
            parts["file"] = (file.name, file.read_bytes())
        query = urlencode({"image": image, "output": "image"} if image else {"output": "image"})
        target.write_bytes(self._post(f"/infer/{model}?{query}", *_form(parts)))
        return target

    def train(self, model: str, **params) -> dict:
        """Start a training and wait for its end; returns its record: "status", and "details", its last lines."""
        self._post(f"/train/{model}", json.dumps(params).encode(), "application/json")
        end = time.monotonic() + ANSWERING
        while (record := self.get("/train/"))["status"] in ("SUBMITTED", "RUNNING"):
            if time.monotonic() > end:
                raise TimeoutError(f"the training did not end within {ANSWERING} s: {record}")
            time.sleep(0.5)
        return record

    def logs(self, text: str, since: int) -> bool:
        """Whether `text` comes up in the log behind its first `since` bytes; errors follow their answer."""
        end = time.monotonic() + LOGGING
        while not (found := text in self.log.read_bytes()[since:].decode(errors="replace")) and time.monotonic() < end:
            time.sleep(0.1)
        return found

    def _post(self, path: str, body: bytes, content_type: str) -> bytes:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": content_type})
        with urllib.request.urlopen(request, timeout=ANSWERING) as answer:
            return answer.read()


def _form(parts: dict[str, tuple[str | None, bytes]]) -> tuple[bytes, str]:
    """Body and content type of a form; a part is (file name or None, content)."""
    boundary, lines = "part-of-the-form", []
    for name, (file, content) in parts.items():
        named = f'; filename="{file}"' if file else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        lines += [head.encode(), content, b"\r\n"]
    return b"".join([*lines, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


@contextmanager
def served(python: Path, app: Path, studies: Path, models: list[str], folder: Path):
    """Start a server on a free port of this machine, yield its `LabelServer`, and stop it whatever happens.

    Args:
        python: interpreter of `label_environment`.
        app: the app's folder, with the bundles in `model/`.
        studies: folder of images.
        models: names of the bundles to serve.
        folder: where the server runs, logs and keeps its sessions.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [python, "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies]
    command += ["--host", "127.0.0.1", "--port", port, "--conf", "models", ",".join(models)]
    command += ["--conf", "sam2", "false", "--conf", "zoo_source", "local"]
    server = LabelServer(port, folder / "server.log")
    environment = clean_environment(PYTHONUNBUFFERED="1", MONAI_LABEL_SESSION_PATH=str(folder / "sessions"))
    with server.log.open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(server, process)
        yield server
    finally:
        _stop(process)


def _wait(server: LabelServer, process: subprocess.Popen) -> None:
    end = time.monotonic() + STARTING
    while process.poll() is None and time.monotonic() < end:
        try:
            server.get("/info/")
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise RuntimeError(f"the server did not start:\n{server.log.read_text(encoding='utf-8')[-3000:]}")


def _stop(process: subprocess.Popen) -> None:
    """End the server and what it started: they are one process group."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(STOPPING)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
