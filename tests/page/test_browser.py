"""The page in a real browser: a scan is chosen, reconstructed, looked at and downloaded, and what is wrong is said."""

import gzip
import json
import time

import numpy as np
import pytest

from tests.report.page.test_access import CONTRAST
from tests.support.page_server import page_server, stand_in
from tests.support.scans import thick_voxels, write_volume

pytestmark = pytest.mark.slow  # a browser, and processes of runs

READY = "document.getElementById('version')?.textContent"
IDLE = "!document.getElementById('go').disabled"


def opened(chromium, page, address=""):
    """The page, by default at its own address."""
    chromium.driver.get("about:blank")
    chromium.requests(), chromium.messages()
    chromium.resize(1280, 900)
    chromium.driver.get(address or page.guard.url)
    chromium.until(READY)
    return chromium


def headings(view):
    return view.text("#h-status")


@pytest.fixture(scope="module")
def page(tmp_path_factory, tiny_weights):
    """Real runs, of a tiny network and few steps."""
    options = ["--checkpoint", str(tiny_weights), "--num-steps", "2", "--num-draws", "1", "--device", "cpu"]
    with page_server(tmp_path_factory.mktemp("page"), options) as client:
        yield client


def test_a_scan_is_reconstructed_looked_at_and_downloaded(page, chromium, tmp_path):
    scan = write_volume(tmp_path / "my scan.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    view = opened(chromium, page, page.guard.url_once)  # as `interslice page` opens it
    view.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    view.find("#files").send_keys(str(scan))
    assert view.text("#chosen").startswith("my scan.nii.gz, ")
    view.find("#go").click()
    view.until("document.getElementById('h-status').textContent == 'Reconstructing'")
    assert view.find("#cancel").is_displayed() and not view.find("#results").is_displayed()
    view.until(IDLE)
    assert headings(view) == "The result", view.text("#said")
    assert view.text("#command") == "interslice run 'my scan.nii.gz' " + " ".join(
        [*page.server.desk.options, "--task thick --preset fast"]
    )

    results = page.server.desk.runs[1].results / "my scan"
    links = view.js("return [...document.querySelectorAll('#downloads a')].map((a) => a.textContent.split(' (')[0])")
    assert links == ["my scan_recon.nii.gz", "report.html", "run.json"]
    view.find("#downloads a").click()
    end, file = time.monotonic() + 30, tmp_path / "my scan_recon.nii.gz"
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert file.read_bytes() == (results / "my scan_recon.nii.gz").read_bytes()
    assert np.frombuffer(gzip.decompress(file.read_bytes())[:4], "<i4") == 348  # NIfTI

    view.driver.switch_to.frame(view.find("#report"))
    view.until("document.documentElement.dataset.viewer")
    assert view.js("return document.documentElement.dataset.viewer") == "ready"
    assert view.find("#left").is_displayed() and view.text("h1") == "my scan"
    assert view.js("return origin") == "null"  # no part in the page
    view.driver.switch_to.default_content()
    view.driver.refresh()
    view.until("!document.getElementById('results').hidden")  # all is there again

    asked = [url for url in view.requests() if not url.startswith(("data:", "blob:"))]
    assert asked and all(url.startswith(f"http://127.0.0.1:{page.server.server_port}/") for url in asked)
    assert view.messages() == []


def test_a_refusal_is_said_in_the_words_of_the_command_line(page, chromium, tmp_path):
    (tmp_path / "no scan.nii").write_text("x")
    view = opened(chromium, page)
    view.find("#files").send_keys(str(tmp_path / "no scan.nii"))
    view.find("#go").click()
    view.until("document.getElementById('h-status').textContent == 'Reconstructing'")
    view.until(IDLE)
    assert headings(view) == "It could not be reconstructed" and view.find("#trouble").is_displayed()
    said = "no scan.nii: this is no volume, but text that begins with 'x'"
    assert view.text("#last") == f"error: no usable volume:\n  {said}"
    assert view.text("#said").splitlines()[0] == f"skipped {said}"
    assert not view.find("#results").is_displayed()


def test_progress_cancel_and_a_second_tab(tmp_path, chromium, monkeypatch):
    stand_in(monkeypatch)
    with page_server(tmp_path, ["--slow"]) as page:
        view = opened(chromium, page)
        view.find("#go").click()
        assert view.text("#chosen") == "Choose a scan first."
        view.find("#sample").click()
        view.find("#go").click()
        view.until("document.querySelector('#bars progress')?.value == 1")
        assert view.text("#bars label") == "sampling: 1 of 4, about 00:30 left"
        assert view.js("return document.querySelector('#bars progress').max") == 4
        said = view.driver.execute_async_script(
            "fetch('runs', {method: 'POST', body: JSON.stringify({task: 'thick', preset: 'fast'})})"
            ".then((answer) => answer.json()).then(arguments[0])"
        )
        assert said["error"].startswith("run 1 is going, and there is one at a time")
        view.driver.refresh()
        view.until("document.querySelector('#bars progress')?.value == 1")  # another look at the same run
        view.find("#cancel").click()
        view.until(IDLE)
        assert headings(view) == "Cancelled" and page.told(1)["state"] == "cancelled"


def test_a_dropped_folder_is_sent_whole(tmp_path, chromium, monkeypatch):
    stand_in(monkeypatch)
    (tmp_path / "series/a").mkdir(parents=True)
    for name in ("a/1", "a/2", ".DS_Store"):
        (tmp_path / "series" / name).write_bytes(name.encode())
    with page_server(tmp_path / "page") as page:
        view = opened(chromium, page)
        view.find("#folder").send_keys(str(tmp_path / "series"))
        assert view.text("#chosen") == "series/a/1, series/a/2, 1 kB"
        view.find("#go").click()
        view.until("document.getElementById('h-status').textContent == 'The result'")
        assert page.told(1)["files"] == ["series/a/1", "series/a/2"]
        assert page.told(1)["command"].startswith("interslice run series ")
        view.find("#sample").click()
        view.find("#go").click()
        view.until("document.querySelectorAll('#runs a').length == 1")  # the first is among the earlier ones
        assert view.text("#runs").startswith("1: series/a/1, thick, fast")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_read_by_keys_on_small_screens_and_in_both_schemes(scheme, tmp_path, chromium):
    from selenium.webdriver.common.keys import Keys

    with page_server(tmp_path) as page:
        view = opened(chromium, page)
        view.media(prefers_color_scheme=scheme)
        paper = view.js("return getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 18, 20)"}[scheme]
        found = view.js(CONTRAST)
        assert len(found) > 20 and found[0][0] >= 4.5, found[0]
        view.media(prefers_color_scheme="")
        view.resize(360, 740)
        assert view.js("return document.documentElement.scrollWidth") <= 360
        reached = []
        for _ in range(8):
            view.press(Keys.TAB)
            reached.append(view.js("const e = document.activeElement; return e.id || e.value || e.className"))
        assert reached[:7] == ["skip", "files", "folder", "sample", "thick", "fast", "go"], json.dumps(reached)
