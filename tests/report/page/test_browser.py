"""The report page in a real browser: what is drawn where, and what a click, a key and a slider do."""

import nibabel as nib
import numpy as np
import pytest

from interslice.report.page.write import LIMITS, write_page
from tests.support.report_pages import SHAPE, WINDOW, tiles
from tests.support.scans import OBLIQUE

pytestmark = pytest.mark.slow  # a browser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def flat_page(tmp_path_factory):
    """Input 200 and result 800 everywhere: grey levels that are easy to tell."""
    path = tmp_path_factory.mktemp("flat") / "report.html"
    volumes = {"input": np.full(SHAPE, 200.0), "result": np.full(SHAPE, 800.0)}
    write_page(path, "flat", volumes, np.diag([2.0, 2.0, 3.0, 1.0]), WINDOW)
    return path


@pytest.fixture
def flat(chromium, flat_page):
    chromium.resize(1280, 900)
    return chromium.open(flat_page)


def voxel(page):
    return tuple(int(v) for v in page.text("#voxel").split(", "))


def choose(page, selector, value):
    """Set a control and let the page know, as a reader's hand does."""
    page.js(
        "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true}))",
        selector, value,
    )  # fmt: skip
    return page.drawn()


def grey(page, tile, u, v, pane="#pane-b"):
    """Mean brightness of 5 x 5 px at a place of a tile, in fractions of its width and height."""
    picture = page.pixels(f"{pane} .screen")
    x, y = round(tile["x"] + u * tile["w"]), round(tile["y"] + v * tile["h"])
    return picture[y - 2 : y + 3, x - 2 : x + 3].mean()


def test_the_page_opens_without_complaint_and_asks_for_nothing(full_view):
    assert full_view.js("return document.documentElement.dataset.viewer") == "ready"
    asked = full_view.requests()
    assert len([url for url in asked if url.startswith("file:")]) == 1
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    assert full_view.messages() == []
    assert LIMITS in full_view.text(".limits") and full_view.find(".limits").is_displayed()
    assert not full_view.find("#static").is_displayed()


def test_a_click_moves_the_cursor_of_all_pictures_and_prints_the_values_there(full_view, full):
    volumes = full[1] | {"error": full[1]["result"] - full[1]["truth"]}
    before = voxel(full_view)
    for plane, u, v in (("axial", 0.3, 0.2), ("sagittal", 0.71, 0.6), ("coronal", 0.93, 0.11)):
        tile = tiles(full_view)[plane]
        full_view.mouse("#pane-b .screen", (tile["x"] + u * tile["w"], tile["y"] + v * tile["h"]))
        assert voxel(full_view) != before
        before = voxel(full_view)
        for name, volume in volumes.items():
            assert full_view.text(f"#value-{name}") == f"{volume[before]:.1f} HU".replace(
                ".0 HU", " HU" if name in ("std", "filled") else ".0 HU"
            )
        a, b = (tiles(full_view, pane)[plane] for pane in ("#pane-a", "#pane-b"))
        assert a["cursor"] == pytest.approx(b["cursor"])  # the input's cross follows
        assert (a["cursor"][0] - a["x"]) / a["w"] == pytest.approx(u, abs=0.6 / min(SHAPE))
        assert (a["cursor"][1] - a["y"]) / a["h"] == pytest.approx(v, abs=0.6 / min(SHAPE))
    mm = nib.affines.apply_affine(OBLIQUE, before)
    expected = [f"{abs(m):.1f} {names[int(m < 0)]}" for m, names in zip(mm, ("RL", "AP", "SI"))]
    assert full_view.text("#position") == ", ".join(expected)


def test_the_cursor_follows_a_drag(full_view):
    tile = tiles(full_view, "#pane-a")["axial"]
    corner, end = [(tile["x"] + f * tile["w"], tile["y"] + f * tile["h"]) for f in (0.1, 0.9)]
    full_view.mouse("#pane-a .screen", corner, end)
    cross = tiles(full_view, "#pane-b")["axial"]["cursor"]
    assert cross == pytest.approx(list(end), abs=tile["w"] / min(SHAPE))


AFFINES = {
    "straight": np.diag([1.0, 1.0, 2.0, 1.0]),
    "left-handed": np.diag([-1.0, 1.0, 2.0, 1.0]),
    "turned": np.array([[0, 0, -2.0, 9], [1, 0, 0, -4], [0, -1.5, 0, 3], [0, 0, 0, 1]]),
    "oblique": OBLIQUE @ np.diag([1.0, 1.2, 2.0, 1.0]),
}


@pytest.mark.parametrize("name", AFFINES)
def test_a_mark_at_the_left_front_top_of_the_patient_is_drawn_there(name, chromium, tmp_path):
    affine = AFFINES[name]
    turned = nib.orientations.io_orientation(affine)
    volume = np.zeros(SHAPE, dtype=np.float32)
    # The eighth voxel from the patient's left, front and top, counted along the axes of the array.
    place = [0, 0, 0]
    for axis, (ras, direction) in enumerate(turned):
        low_end = (direction > 0) == (ras == 0)  # left is where x is low; front and top are where y and z are high
        place[axis] = 3 if low_end else SHAPE[axis] - 4
    volume[tuple(place)] = 1000
    write_page(tmp_path / "p.html", name, {"input": volume, "result": volume}, affine, WINDOW)
    chromium.resize(1280, 900).open(tmp_path / "p.html")
    chromium.find("#smooth").click()
    counts = [SHAPE[int(np.where(turned[:, 0] == ras)[0][0])] for ras in range(3)]
    for ras, index in enumerate((3, counts[1] - 4, counts[2] - 4)):
        choose(chromium, f"#cursor-{ras}", index)
    assert voxel(chromium) == tuple(place)
    assert chromium.text("#value-result") == "1000.0"
    chromium.js("document.querySelectorAll('.screen svg').forEach((s) => s.style.display = 'none')")
    picture = chromium.drawn().pixels("#pane-b .screen").mean(2)
    chromium.js("document.querySelectorAll('.screen svg').forEach((s) => s.style.display = '')")
    near = 3.5  # voxels from the edge
    expected = {
        "axial": (1 - near / counts[0], near / counts[1]),  # left of the patient on the right; front up
        "coronal": (1 - near / counts[0], near / counts[2]),
        "sagittal": (near / counts[1], near / counts[2]),  # front on the left
    }
    for plane, tile in tiles(chromium).items():
        part = picture[round(tile["y"]) : round(tile["y"] + tile["h"]), round(tile["x"]) : round(tile["x"] + tile["w"])]
        rows, columns = np.nonzero(part > 128)
        assert len(rows)
        u, v = (np.median(columns) + 0.5) / part.shape[1], (np.median(rows) + 0.5) / part.shape[0]
        assert (u, v) == pytest.approx(expected[plane], abs=0.012), plane
    sizes = nib.affines.voxel_sizes(affine)
    mm = [counts[ras] * sizes[int(np.where(turned[:, 0] == ras)[0][0])] for ras in range(3)]
    axial = tiles(chromium)["axial"]
    assert axial["w"] / axial["h"] == pytest.approx(mm[0] / mm[1], rel=0.02)


def test_the_window_changes_the_grey_of_both_pictures(flat):
    def levels():
        return [grey(flat, tiles(flat, p)["axial"], 0.25, 0.3, p) for p in ("#pane-a", "#pane-b")]

    assert levels() == pytest.approx([0.2 * 255, 0.8 * 255], abs=2)
    choose(flat, "#width-number", 2000)
    assert levels() == pytest.approx([0.35 * 255, 0.65 * 255], abs=2)
    choose(flat, "#centre", 800)
    assert levels() == pytest.approx([0.2 * 255, 0.5 * 255], abs=2)
    assert flat.find("#centre-number").get_attribute("value") == "800"
    flat.find("#reset").click()
    assert levels() == pytest.approx([0.2 * 255, 0.8 * 255], abs=2)


def swipe_cut(page, plane="axial"):
    """Where the result begins in a plane, as a fraction of its width; the input must be dark, the result bright."""
    page.js("document.querySelectorAll('.screen svg').forEach((s) => s.style.opacity = 0)")
    tile, picture = tiles(page)[plane], page.drawn().pixels("#pane-b .screen").mean(2)
    page.js("document.querySelectorAll('.screen svg').forEach((s) => s.style.opacity = 1)")
    row = picture[round(tile["y"] + 0.3 * tile["h"]), round(tile["x"]) : round(tile["x"] + tile["w"])]
    assert (np.abs(row[:, None] - [51, 204]).min(1) > 3).sum() <= 1  # one pixel may be cut in two
    return float((row < 128).mean())


def test_the_swipe_shows_the_input_left_and_the_result_right_by_drag_and_by_key(flat):
    from selenium.webdriver.common.keys import Keys

    flat.find("#tab-swipe").click()
    flat.drawn()
    for plane in ("axial", "coronal", "sagittal"):
        assert swipe_cut(flat, plane) == pytest.approx(0.4, abs=0.012)
    before, tile = voxel(flat), tiles(flat)["coronal"]
    y = tile["y"] + 0.8 * tile["h"]
    flat.mouse("#pane-b .screen", (tile["x"] + 0.4 * tile["w"], y), (tile["x"] + 0.25 * tile["w"], y))
    assert voxel(flat) == before  # the line was dragged, and not the cursor
    for plane in ("axial", "coronal", "sagittal"):
        assert swipe_cut(flat, plane) == pytest.approx(0.25, abs=0.012)
    flat.js("document.getElementById('swipe').focus()")
    flat.press(*[Keys.ARROW_RIGHT] * 10)
    assert swipe_cut(flat) == pytest.approx(0.35, abs=0.012)
    flat.press(Keys.END)
    assert swipe_cut(flat) == 1
    assert "100 percent" in flat.find("#swipe").get_attribute("aria-valuetext")
    flat.press(Keys.HOME)
    assert swipe_cut(flat) == 0


def test_keys_move_the_cursor_voxel_by_voxel_in_the_plane_that_was_clicked(full_view):
    from selenium.webdriver.common.keys import Keys

    turned = nib.orientations.io_orientation(OBLIQUE)

    def canonical():
        found = [0, 0, 0]
        for axis, (ras, direction) in enumerate(turned):
            v = voxel(full_view)[axis]
            found[int(ras)] = v if direction > 0 else SHAPE[axis] - 1 - v
        return np.array(found)

    tile = tiles(full_view)["coronal"]
    full_view.mouse("#pane-b .screen", (tile["x"] + 0.5 * tile["w"], tile["y"] + 0.5 * tile["h"]))
    for key, change in (
        (Keys.ARROW_LEFT, (1, 0, 0)),  # the patient's right is on the left
        (Keys.ARROW_RIGHT, (-1, 0, 0)),
        (Keys.ARROW_UP, (0, 0, 1)),
        (Keys.ARROW_DOWN, (0, 0, -1)),
        (Keys.PAGE_UP, (0, 1, 0)),
        (Keys.PAGE_DOWN, (0, -1, 0)),
    ):
        before = canonical()
        full_view.press(key)
        assert tuple(canonical() - before) == change
    full_view.press(*[Keys.ARROW_UP] * 40)
    assert canonical()[2] == SHAPE[2] - 1  # and no further
    full_view.press(Keys.HOME)
    assert voxel(full_view) == tuple(n // 2 for n in SHAPE)
    full_view.until("document.getElementById('live').textContent.includes('Result')")


def test_the_wheel_scrolls_the_page_until_a_picture_is_clicked(full_view):
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    screen, tile = full_view.find("#pane-b .screen"), tiles(full_view)["axial"]
    middle = (tile["x"] + 0.5 * tile["w"], tile["y"] + 0.5 * tile["h"])
    offset = [round(m - side / 2) for m, side in zip(middle, (screen.size["width"], screen.size["height"]))]

    def roll():
        origin = ScrollOrigin.from_element(screen, *offset)
        full_view.actions().scroll_from_origin(origin, 0, 40).perform()
        return full_view.drawn().js("return scrollY"), voxel(full_view)

    before = voxel(full_view)
    full_view.until("document.activeElement === document.body")
    roll()
    full_view.until("scrollY > 0")
    assert voxel(full_view) == before
    full_view.mouse("#pane-b .screen", middle)
    height, before = full_view.js("return scrollY"), voxel(full_view)
    after = roll()
    assert after[0] == height and sum(abs(a - b) for a, b in zip(after[1], before)) == 1


def test_tabs_show_the_maps_by_keyboard_with_their_own_scale(full_view, full):
    from selenium.webdriver.common.keys import Keys

    full_view.find("#tab-side").click()
    seen = []
    for _ in range(5):
        seen.append(full_view.js("return document.activeElement.id"))
        chosen = full_view.js("return [...document.querySelectorAll('[aria-selected=true]')].map((t) => t.id)")
        assert chosen == seen[-1:]
        assert full_view.find("#map-scale").is_displayed() == (seen[-1] in ("tab-std", "tab-error", "tab-filled"))
        full_view.press(Keys.ARROW_RIGHT)
    assert seen == ["tab-side", "tab-swipe", "tab-std", "tab-error", "tab-filled"]
    full_view.find("#tab-error").click()
    assert full_view.text("#pane-b .scale").startswith("-250") and full_view.text("#pane-b .scale").endswith("250.0 HU")
    full_view.find("#smooth").click()
    place, step = voxel(full_view), full[1]["result"] - full[1]["truth"]
    colour = cursor_colour(full_view)
    assert (colour[2] > colour[0]) == (step[place] < 0) and abs(colour[2] - colour[0]) > 20
    choose(full_view, "#map-limit-number", 5000)
    assert cursor_colour(full_view).max() < 60  # small beside the scale: nearly black


def cursor_colour(page):
    """Red, green and blue of the voxel under the cursor in the axial plane of the right picture."""
    page.js("document.querySelectorAll('.screen svg').forEach((s) => s.style.opacity = 0)")
    x, y = tiles(page)["axial"]["cursor"]
    colour = page.drawn().pixels("#pane-b .screen")[round(y), round(x)]
    page.js("document.querySelectorAll('.screen svg').forEach((s) => s.style.opacity = 1)")
    return colour


def test_one_plane_fills_the_picture_and_the_truth_can_be_compared(full_view):
    small = tiles(full_view)["sagittal"]
    choose(full_view, "#planes", "sagittal")
    (tile,) = tiles(full_view).values()
    assert tile["plane"] == "sagittal" and tile["w"] > 1.2 * small["w"]
    choose(full_view, "#left", "truth")
    assert full_view.text("#pane-a figcaption") == "Truth"
