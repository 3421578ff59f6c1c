"""Runs of the page: one at a time, in a process of its own, and what becomes of its files."""

import json
import time
from pathlib import Path

import pytest

from interslice.cli.jobs import TASKS
from interslice.cli.options import options_of
from interslice.page import jobs
from interslice.page.server import HERE
from tests.support.page_server import page_server, stand_in


@pytest.fixture
def page(tmp_path, monkeypatch):
    stand_in(monkeypatch)
    with page_server(tmp_path / "page", ["--option", "of all runs"]) as client:
        yield client


def test_tasks_and_presets_are_those_of_the_command_and_of_the_page():
    html = (HERE / "page.html").read_text(encoding="utf-8")
    assert set(jobs.TASKS) == set(TASKS) and set(jobs.PRESETS) == set(options_of("run")["preset"].kind[1:])
    for name, values in (("task", jobs.TASKS), ("preset", jobs.PRESETS)):
        assert all(f'name="{name}" value="{value}"' in html for value in values)


def test_a_run_is_the_command_on_the_files_with_the_options(page, tmp_path):
    number = page.run({"my scan.npz": b"abc", "my scan.json": b"{}"}, task="ct", preset="best")
    run = page.ended(number)
    asked = ["--option", "of all runs", "--task", "ct", "--preset", "best"]
    folder = tmp_path / "page/run-1"
    words = ["run", *asked, "--save-minutes", "none", "-o", str(folder / "results"), "--", str(folder / "scan")]
    said = " ".join(["args", *words]).replace(f"{folder}/scan", "the files").replace(f"{folder}/", "")
    assert run["state"] == "finished" and said in run["lines"]
    assert run["command"] == "interslice run scan --option 'of all runs' --task ct --preset best"
    assert [r["name"] for r in run["results"]] == ["case/case_recon.nii.gz", "case/report.html"]
    assert f"cwd {Path.cwd()}" in run["lines"]  # from where options name files
    assert not (folder / "scan").exists()  # the upload goes with the run


def test_without_a_file_the_embedded_scan_is_taken_and_one_file_by_its_name(page):
    assert page.ended(page.run({}))["lines"][0].endswith("-o results")
    assert page.ended(page.run({"a.nii": b"x"}))["lines"][0].endswith("-- a.nii")


def test_results_are_those_of_the_list_and_nothing_else(page, tmp_path):
    number = page.run({"a.nii": b"x"})
    page.ended(number)
    (tmp_path / "page/secret").write_bytes(b"secret")
    results = tmp_path / "page/run-1/results/case"
    (results / "link.html").symlink_to(tmp_path / "page/secret")
    status, headers, content = page.result(number, "case/case_recon.nii.gz", "?download")
    assert status == 200 and content == (results / "case_recon.nii.gz").read_bytes() == bytes(range(256)) * 9
    assert headers["Content-Disposition"].endswith("case_recon.nii.gz") and "Content-Encoding" not in headers
    for name in (
        "../../secret",
        "case/../../../secret",
        "/etc/passwd",
        "case/.half",
        "case/link.html",
        "case",
        "%2e%2e",
    ):
        for path in (name, name.replace("/", "%2f").replace(".", "%2e")):
            status, _, content = page.ask("GET", f"runs/{number}/results/{path}")
            assert status == 404 and b"secret" not in content, path
    assert page.ask("GET", "../server.py")[0] == page.ask("GET", "__main__.py")[0] == 404


def test_names_that_lead_elsewhere_are_refused_before_anything_is_sent(page, tmp_path):
    said = page.announce({"../../x.nii": b"abc"}, status=400)
    assert said == {"error": "'../../x.nii' leads out of the folder of the upload: name files by their own names"}
    assert not page.server.desk.runs


def test_an_upload_is_limited_and_is_what_was_announced(page):
    said = page.say("runs", {"task": "thick", "preset": "fast", "files": [{"name": "a", "size": 2_000_000}]}, 400)
    assert "the files take 2 MB, and at most 1 MB are taken" in said["error"]
    good = {"task": "thick", "preset": "fast"}
    for bad in ({"preset": "slow"}, {"task": ["thick"]}, {"task": None}, {"files": 5}, {"files": [{}]}):
        page.say("runs", good | bad, 400)
    number = page.say("runs", good | {"files": [{"name": "a", "size": 3}]})["number"]
    assert page.ask("PUT", f"runs/{number}/files/0", b"four")[0] == 400
    assert page.ask("PUT", f"runs/{number}/files/1", b"abc")[0] == 400
    assert page.ask("PUT", f"runs/{number + 1}/files/0", b"abc")[0] == 400
    said = page.say(f"runs/{number}/start", status=400)
    assert said["error"].startswith("0 of 1 files have arrived")
    assert page.ask("POST", "runs", b"no json")[0] == 400
    assert page.announce({"b.nii": b"x"}) == number + 1  # takes its place
    assert page.told(number)["state"] == "cancelled"


def test_files_of_an_upload_are_not_run(page):
    """A folder that holds torch.py, or sitecustomize.py, is no place to start Python in."""
    files = {f"series/{name}.py": b"open('was_run', 'w')" for name in ("torch", "sitecustomize", "interslice", "json")}
    run = page.ended(page.run(files))
    assert run["state"] == "finished" and "cwd modules False" in run["lines"]


def test_a_second_run_is_refused_in_words_and_a_cancelled_one_ends_at_once(tmp_path, monkeypatch):
    stand_in(monkeypatch)
    with page_server(tmp_path / "page", ["--slow"]) as page:
        number = page.run({"a.nii": b"x"})
        run = page.until(number, lambda run: run["bars"])
        assert run["state"] == "running" and run["lines"] == ["warning: slow"] and run["results"] == []
        assert run["bars"] == [{"what": "sampling", "done": 1, "total": 4, "spent": "00:10", "left": "00:30"}]
        said = page.say("runs", {"task": "thick", "preset": "fast"}, 409)
        assert said["error"] == "run 1 is going, and there is one at a time: wait for its end, or cancel it"
        process, began = page.server.desk.runs[1]._process, time.monotonic()
        page.say(f"runs/{number}/cancel")
        assert process.poll() is not None and time.monotonic() - began < jobs.PATIENCE
        assert page.ended(number)["state"] == "cancelled"
        assert page.run({"a.nii": b"x"}) == 2
        process = page.server.desk.runs[2]._process
    assert process.poll() is not None  # the page's end is the run's


def test_a_run_that_fails_says_its_last_words(tmp_path, monkeypatch):
    stand_in(monkeypatch)
    with page_server(tmp_path / "page", ["--bad"]) as page:
        run = page.ended(page.run({"x.nii": b"x"}))
    assert run["state"] == "failed" and run["last"] == ["error: no usable volume:", "  x.nii: no"]


def test_results_that_are_kept_have_a_folder_for_each_run(tmp_path, monkeypatch):
    stand_in(monkeypatch)
    kept = tmp_path / "kept"
    (kept / "run-1").mkdir(parents=True)
    with page_server(tmp_path / "page", output=kept) as page:
        for _ in range(2):
            page.ended(page.run({"x.nii": b"x"}))
        assert json.loads(page.ask("GET", "state")[2])["output"] == str(kept)
    assert [p.name for p in sorted(kept.glob("*/case"))] == ["case"] * 2
    assert sorted(p.parent.parent.name for p in kept.rglob("report.html")) == ["run-2", "run-3"]
