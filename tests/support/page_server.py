"""The local page for tests: its server in a thread, requests to it, and a stand-in for `interslice run`."""

import http.client
import json
import sys
import threading
import time
from contextlib import closing, contextmanager
from urllib.parse import quote

from interslice.page.guard import ADDRESS
from interslice.page.jobs import Desk
from interslice.page.server import Server

STAND_IN = """
import os, pathlib, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1], "case")
if "--slow" in sys.argv:
    print("warning: slow", flush=True)
    sys.stderr.write("\\rsampling:  25%|##        | 1/4 [00:10<00:30, 10.00s/step]")
    sys.stderr.flush()
    time.sleep(60)
if "--bad" in sys.argv:
    sys.exit("skipped x.nii: no\\nerror: no usable volume:\\n  x.nii: no")
out.mkdir(parents=True)
(out / "report.html").write_text("<p>report</p>")
(out / "case_recon.nii.gz").write_bytes(bytes(range(256)) * 9)
(out / ".half").write_bytes(b"x")
print("args", *sys.argv[1:])
print("cwd", os.getcwd())
print("cwd modules", "torch" in sys.modules)
"""
"""A program with the words of `interslice run`."""
PATIENCE = 60


class Client:
    """Requests to a page, as its own JavaScript makes them."""

    def __init__(self, server):
        self.server, self.guard = server, server.guard

    def ask(self, method, path, content=b"", token=None, **headers):
        """Status, headers and content of the answer to a request below the token."""
        token = self.guard.token if token is None else token
        return self.request(method, f"/{token}/{path}", content, **headers)

    def request(self, method, path, content=b"", **headers):
        """The same of any path."""
        with closing(http.client.HTTPConnection(ADDRESS, self.server.server_port, timeout=PATIENCE)) as connection:
            connection.request(method, path, content or None, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def say(self, path, about=None, status=200):
        """POST; what is answered, of which the status must be this."""
        got, _, content = self.ask("POST", path, json.dumps(about or {}).encode())
        assert got == status, content
        return json.loads(content)

    def announce(self, files, task="thick", preset="fast", status=200):
        """Announce files, name -> content, and send them; the number of the run."""
        files = dict(files)
        asked = {"task": task, "preset": preset}
        asked["files"] = [{"name": name, "size": len(content)} for name, content in files.items()]
        said = self.say("runs", asked, status)
        if status != 200:
            return said
        for i, content in enumerate(files.values()):
            got, _, answer = self.ask("PUT", f"runs/{said['number']}/files/{i}", content)
            assert got == 200, answer
        return said["number"]

    def run(self, files, **asked):
        """Announce, send, start."""
        number = self.announce(files, **asked)
        self.say(f"runs/{number}/start")
        return number

    def told(self, number):
        return next(run for run in json.loads(self.ask("GET", "state")[2])["runs"] if run["number"] == number)

    def until(self, number, condition):
        """What is told of a run, as soon as the condition is true of it."""
        end = time.monotonic() + PATIENCE
        while not condition(run := self.told(number)):
            assert time.monotonic() < end, run
            time.sleep(0.05)
        return run

    def ended(self, number):
        return self.until(number, lambda run: run["state"] not in ("uploading", "running"))

    def result(self, number, name, query=""):
        return self.ask("GET", f"runs/{number}/results/{quote(name)}{query}")


@contextmanager
def page_server(folder, options=(), output=None, most=1e6):
    """A page whose server runs in a thread, for as long as this lasts."""
    desk = Desk(folder.resolve(), options, output, most)
    with Server(desk) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        try:
            yield Client(server)
        finally:
            server.shutdown()
            thread.join()
            desk.close()


def stand_in(monkeypatch):
    """Runs are of STAND_IN, which is there at once."""
    monkeypatch.setattr("interslice.page.jobs.PROGRAM", (sys.executable, "-c", STAND_IN))
