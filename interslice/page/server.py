"""The server of the page: files in, state and results out.

    GET  /TOKEN/                          the page, with page.css and page.js
    GET  /TOKEN/state                     what `Run.told` tells of all runs
    POST /TOKEN/runs                      announces {task, preset, files: [{name, size}]}; what an upload may not be is
                                          refused before a byte of it is sent
    PUT  /TOKEN/runs/N/files/I            the I-th file, as it is
    POST /TOKEN/runs/N/start, cancel
    GET  /TOKEN/runs/N/results/NAME       a file of the results

Answers are JSON but for files; refusals are {"error": words}.
"""

from __future__ import annotations

import json
import re
import shutil
import socketserver
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from interslice import __version__
from interslice.files.scan import Refusal
from interslice.page.guard import ADDRESS, APART, HEADERS, POLICY, Guard
from interslice.page.jobs import REPORT, Busy, Desk, Run

HERE = Path(__file__).parent
PARTS = {"": ("page.html", "html"), "page.css": ("page.css", "css"), "page.js": ("page.js", "javascript")}
LARGEST_WORDS = 8_000_000
"""Bytes of a request that is no file: the names of as many files as are taken."""
QUIET = 60
"""Seconds without a byte after which a connection is closed."""


class Server(ThreadingHTTPServer):
    """A page on this machine alone.

    Args:
        desk: its runs.
        port: 0 for any that is free.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, desk: Desk, port: int = 0) -> None:
        self.desk = desk
        super().__init__((ADDRESS, port), Handler)
        self.guard = Guard(self.server_address[1])

    def server_bind(self) -> None:
        """Without asking for the machine's name, which might be asked of another."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address) -> None:
        """A browser that closes its connection is no news."""


class Handler(BaseHTTPRequestHandler):
    """Answers a request."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"interslice/{__version__}", ""
    timeout = QUIET

    def log_message(self, *_) -> None:
        """Nothing: addresses hold the token."""

    def do_GET(self) -> None:
        if self.server.guard.opens(self.path, self.headers):
            self._answer(HTTPStatus.SEE_OTHER, b"", "text/plain", {"Location": f"/{self.server.guard.token}/"})
            return
        result = {r"runs/(\d+)/results/(.+)": self._result}
        self._route({"state": self._state, r"(|page\.css|page\.js)": self._page, **result})

    def do_POST(self) -> None:
        self._route({"runs": self._announce, r"runs/(\d+)/start": self._start, r"runs/(\d+)/cancel": self._cancel})

    def do_PUT(self) -> None:
        self._route({r"runs/(\d+)/files/(\d+)": self._receive})

    def _route(self, routes: dict[str, Callable]) -> None:
        """Check a request, and answer it by the first route that its path is."""
        if why := self.server.guard.refuses(self.path, self.headers):
            self._refuse(HTTPStatus.FORBIDDEN, why)
            return
        path = urlsplit(self.path).path.lstrip("/").partition("/")[2]
        found = ((re.fullmatch(pattern, path), answer) for pattern, answer in routes.items())
        match, answer = next((one for one in found if one[0]), (None, None))
        if match is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
            return
        try:
            answer(*match.groups())
        except Busy as error:
            self._refuse(HTTPStatus.CONFLICT, str(error))
        except (Refusal, OSError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))

    def _page(self, name: str) -> None:
        file, kind = PARTS[name]
        content = (HERE / file).read_bytes()
        self._answer(HTTPStatus.OK, content, f"text/{kind}; charset=utf-8", {"Content-Security-Policy": POLICY})

    def _state(self) -> None:
        desk = self.server.desk
        kept = None if desk.output is None else str(desk.output)
        self._tell({"output": kept, "version": __version__,
                    "runs": [run.told() for run in [*desk.runs.values()]]})  # fmt: skip

    def _announce(self) -> None:
        asked = self._words()
        files = asked.get("files", [])
        try:
            names, sizes = [str(file["name"]) for file in files], [file["size"] for file in files]
        except (TypeError, KeyError):
            raise Refusal("files are named, and their sizes stated") from None
        self._tell({"number": self.server.desk.announce(asked.get("task"), asked.get("preset"), names, sizes).number})

    def _receive(self, number: str, index: str) -> None:
        size = self.headers.get("Content-Length", "")
        self._run(number).receive(int(index), self.rfile, int(size) if size.isdecimal() else -1)
        self._tell({})

    def _start(self, number: str) -> None:
        self._words()
        self.server.desk.start(self._run(number))
        self._tell({})

    def _cancel(self, number: str) -> None:
        self._words()
        self._run(number).cancel()
        self._tell({})

    def _result(self, number: str, name: str) -> None:
        path = self._run(number).written().get(unquote(name))  # by its name in a list: no path leads elsewhere
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such result")
            return
        headers = {"Content-Length": str(path.stat().st_size)}
        if path.name == REPORT and urlsplit(self.path).query != "download":
            headers |= {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": APART}
        else:
            headers |= {"Content-Type": "application/octet-stream",
                        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.name, safe='')}"}  # fmt: skip
        with path.open("rb") as file:
            self._head(HTTPStatus.OK, headers)
            shutil.copyfileobj(file, self.wfile)

    def _run(self, number: str) -> Run:
        if (run := self.server.desk.runs.get(int(number))) is None:
            raise Refusal(f"there is no run {number} any more: begin anew")
        return run

    def _words(self) -> dict:
        """What a request says, as JSON."""
        size = self.headers.get("Content-Length", "0")
        if not size.isdecimal() or int(size) > LARGEST_WORDS:
            raise Refusal(f"a request says its length, at most {LARGEST_WORDS} bytes")
        content = self.rfile.read(int(size))
        try:
            said = json.loads(content or b"{}")
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise Refusal("a request is an object in JSON")
        return said

    def _tell(self, about: dict) -> None:
        self._answer(HTTPStatus.OK, json.dumps(about).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Say why, and close the connection: what else was sent is not read."""
        self.close_connection = True
        self._answer(status, json.dumps({"error": why}).encode(), "application/json", {"Connection": "close"})

    def _answer(self, status: HTTPStatus, content: bytes, kind: str, headers: dict | None = None) -> None:
        self._head(status, {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})})
        self.wfile.write(content)

    def _head(self, status: HTTPStatus, headers: dict) -> None:
        self.send_response(status)
        for name, value in (HEADERS | headers).items():
            self.send_header(name, value)
        self.end_headers()
