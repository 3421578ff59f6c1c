"""Who can use the report page: small windows, keys alone, other eyes, paper-like browsers that draw no volumes."""

import numpy as np
import pytest
from PIL import Image

from tests.support.browser import NO_DRAWING, browser
from tests.support.report_pages import tiles

pytestmark = pytest.mark.slow  # a browser

pytestmark = pytest.mark.slow


def controls(page):
    return page.js(
        "return [...document.querySelectorAll('button, input, select, summary')].filter((e) => e.offsetParent)"
        ".map((e) => { const b = e.getBoundingClientRect(); return [e.id || e.tagName, b.width, b.height]; })"
    )


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_its_window_and_controls_are_large_enough(width, full_view):
    full_view.resize(width, 740)
    for tab in ("side", "swipe", "std", "error", "filled"):
        full_view.find(f"#tab-{tab}").click()
        full_view.drawn().drawn()
        assert full_view.js("return document.documentElement.scrollWidth") <= width
        for name, wide, high in controls(full_view):
            assert min(wide, high) >= 24, (name, wide, high)
        for tile in tiles(full_view).values():
            assert tile["x"] >= 0 and tile["x"] + tile["w"] <= width
    if width == 360:
        boxes = [full_view.find(f"#pane-{p}").rect for p in "ab"]
        assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]  # below each other


def test_every_control_is_reached_by_tab_and_shows_it(full_view):
    from selenium.webdriver.common.keys import Keys

    wanted = {name for name, _, _ in controls(full_view)} - {f"tab-{t}" for t in ("swipe", "std", "error", "filled")}
    reached, canvases = set(), 0
    for _ in range(60):
        full_view.press(Keys.TAB)
        name, outline = full_view.js(
            "const e = document.activeElement, box = e.tagName == 'CANVAS' ? e.parentElement : e;"
            "return [e.id || e.tagName, getComputedStyle(box).outlineStyle]"
        )
        if name == "BODY":
            break
        assert outline == "solid", name
        reached.add(name)
        canvases += name == "CANVAS"
    assert wanted <= reached and canvases == 2


def test_controls_have_names_and_headings_follow_each_other(full_view):
    nameless = full_view.js(
        "return [...document.querySelectorAll('input, select')].filter((e) => !e.labels.length && !e.ariaLabel).length"
    )
    levels = full_view.js(
        "return [...document.querySelectorAll('h1, h2, h3')].filter((e) => e.offsetParent).map((e) => +e.tagName[1])"
    )
    assert nameless == 0 and levels[0] == 1 and levels.count(1) == 1 and max(np.diff(levels)) <= 1
    assert full_view.js("return document.documentElement.lang") == "en"
    names = full_view.js("return [...document.querySelectorAll('canvas, svg[role=img]')].map((e) => e.ariaLabel)")
    assert all(names)


CONTRAST = """
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const linear = (c) => c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const colour = numbers(getComputedStyle(e).backgroundColor);
    if (colour.length < 4 || colour[3] == 1) return colour;
  }
  return [255, 255, 255];
};
const found = [];
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some((n) => n.nodeType == 3 && n.textContent.trim());
  if (!own || !e.checkVisibility() || e.closest(".screen, script, option")) continue;
  const style = getComputedStyle(e), ink = numbers(e instanceof SVGElement ? style.fill : style.color);
  const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
  found.push([(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 60)]);
}
return found.sort((x, y) => x[0] - y[0]);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_in_light_and_in_dark(scheme, full_view):
    full_view.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")  # no colours on their way
    found = full_view.js(CONTRAST)
    paper = full_view.js("return getComputedStyle(document.body).backgroundColor")
    full_view.media(prefers_color_scheme="")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(16, 18, 20)"}[scheme]
    assert len(found) > 80 and found[0][0] >= 4.5, found[0]


def test_nothing_moves_for_those_who_want_that(full_view):
    duration = "return getComputedStyle(document.getElementById('reset')).transitionDuration"
    full_view.media(prefers_reduced_motion="no-preference")
    assert full_view.js(duration) != "0s"
    full_view.media(prefers_reduced_motion="reduce")
    assert full_view.js(duration) == "0s"
    full_view.media(prefers_reduced_motion="")


def test_without_webgl_the_page_says_so_and_shows_the_rest(full):
    with browser(*NO_DRAWING) as plain:
        plain.open(full[0])
        assert "WebGL 2" in plain.text("#no-viewer") and plain.find("#no-viewer").is_displayed()
        assert not plain.find("#viewer").is_displayed() and plain.find("#static").is_displayed()
        loaded = plain.js("return [...document.querySelectorAll('#static img')].map((i) => i.naturalWidth)")
        assert len(loaded) == 9 and min(loaded) > 0
        assert plain.find("#h-metrics").is_displayed() and "scan.nii.gz" in plain.find("main").text
        assert plain.messages() == []


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (360, 740)])
def test_a_picture_of_the_page_can_be_taken(width, height, full_view, tmp_path):
    full_view.resize(width, height).drawn()
    full_view.picture(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        assert image.width == width and image.height > height
        assert np.asarray(image.convert("L")).std() > 20
