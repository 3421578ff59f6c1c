"""Who may speak with the page: no other page, no other name of this machine, nobody without its secret address."""

import json
from urllib.parse import urlsplit

import pytest

from tests.support.page_server import page_server, stand_in


@pytest.fixture
def page(tmp_path, monkeypatch):
    stand_in(monkeypatch)
    with page_server(tmp_path) as client:
        yield client


REQUESTS = [("GET", path) for path in ("", "state", "page.js", "runs/1/results/case/report.html")]
REQUESTS += [("POST", "runs"), ("POST", "runs/1/start"), ("POST", "runs/1/cancel"), ("PUT", "runs/1/files/0")]


@pytest.mark.parametrize(
    ("token", "headers"),
    [
        ("", {}),
        ("x" * 32, {}),
        (None, {"Host": "attacker.example"}),
        (None, {"Host": "attacker.example:{port}"}),
        (None, {"Host": "127.0.0.1"}),
        (None, {"Origin": "http://attacker.example"}),
        (None, {"Origin": "null"}),
        (None, {"Origin": "http://127.0.0.1:1"}),
        (None, {"Origin": "https://127.0.0.1:{port}"}),
    ],
)
def test_strangers_are_refused_and_change_nothing(token, headers, page):
    number = page.announce({"scan.nii": b"abc"})
    before = page.told(number)
    headers = {k: v.format(port=page.server.server_port) for k, v in headers.items()}
    for method, path in REQUESTS:
        status, answered, content = page.ask(method, path, b"{}" * (method != "GET"), token, **headers)
        assert status == 403 and "error" in json.loads(content) and page.guard.token.encode() not in content
        assert "Access-Control-Allow-Origin" not in answered
        assert page.told(number) == before and len(page.server.desk.runs) == 1


def test_the_pages_own_requests_are_answered_by_both_names_of_the_machine(page):
    port = page.server.server_port
    for name in ("127.0.0.1", "localhost"):
        own = {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}"}
        assert page.ask("GET", "state", **own)[0] == 200
        assert page.ask("POST", "runs/1/x", b"{}", **own)[0] == 404
    mixed = {"Host": f"localhost:{port}", "Origin": f"http://127.0.0.1:{port}"}
    assert page.ask("GET", "state", **mixed)[0] == 403


def test_the_words_that_start_a_browser_open_the_page_once(page):
    once = urlsplit(page.guard.url_once).path.strip("/")
    assert once != page.guard.token
    assert page.ask("GET", "", token=once)[0] == 403  # nothing below it
    opened = []
    for _ in range(2):
        status, headers, _ = page.request("GET", f"/{once}")
        opened.append((status, headers.get("Location")))
    assert opened == [(303, f"/{page.guard.token}/"), (403, None)]


def test_nothing_is_kept_by_browsers_and_the_page_may_ask_its_server_alone(page):
    _, headers, content = page.ask("GET", "")
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'" and policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert b"http" not in content + page.ask("GET", "page.css")[2] + page.ask("GET", "page.js")[2]


def test_a_report_has_no_part_in_the_page(page):
    number = page.run({"scan.nii": b"abc"})
    page.ended(number)
    _, headers, content = page.result(number, "case/report.html")
    assert content == b"<p>report</p>" and headers["Content-Security-Policy"].startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in headers["Content-Security-Policy"]


def test_the_server_is_on_this_machine_alone(page):
    assert page.server.server_address[0] == "127.0.0.1" and page.server.socket.getsockname()[0] == "127.0.0.1"
