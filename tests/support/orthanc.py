"""A real Orthanc (Debian: orthanc, orthanc-dicomweb) with a folder, a port and a user of its own."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

STARTING = 60
"""Seconds at most."""


class Orthanc:
    """A running server, asked by its own interface, which is not DICOMweb."""

    user, password = "reader", "a secret"

    def __init__(self, port):
        self.address, self.url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}/dicom-web"

    def get(self, path, data=None):
        request = urllib.request.Request(self.address + path, data=data)
        who = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {who}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def add(self, folder):
        for path in folder.iterdir():
            self.get("/instances", path.read_bytes())


@contextmanager
def orthanc(folder: Path):
    """Started in `folder`; the test is skipped where the server or its plugin is missing."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    plugin = next(Path("/usr/lib/orthanc").glob("libOrthancDicomWeb.so*"), None)
    if program is None or plugin is None:
        pytest.skip("needs Orthanc with DICOMweb (Debian: orthanc, orthanc-dicomweb)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Orthanc(port)
    settings = {
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "HttpPort": port,
        "DicomServerEnabled": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": True,
        "RegisteredUsers": {server.user: server.password}, "Plugins": [str(plugin)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        latest = time.monotonic() + STARTING
        while True:
            try:
                server.get("/system")
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < latest, (folder / "orthanc.log").read_text()
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(20)
