"""A headless Chromium for tests of pages: opens a file, clicks, types, and takes pictures."""

import base64
import io
import json
import shutil
import tempfile
import time
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

QUIET = (
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-device-scale-factor=1",
)  # fmt: skip
DRAWING = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""WebGL 2 by software, on any machine."""
NO_DRAWING = ("--disable-gpu", "--disable-software-rasterizer", "--disable-3d-apis")
PATIENCE = 120
"""Seconds until a page must have drawn."""


class Browser:
    """A page that is open in Chromium; `driver` is selenium's."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path):
        """Open a file and wait for its viewer to be ready, or to say that it cannot be."""
        self.driver.get("about:blank")
        self.requests(), self.messages()  # what Chromium's own first page left
        self.driver.get(path.as_uri())
        self.until("document.documentElement.dataset.viewer")
        return self

    def until(self, condition):
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.js(f"return {condition}"):
            assert time.monotonic() < end, f"still not: {condition}; {self.messages()}"
            time.sleep(0.05)

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def drawn(self):
        """Wait until what was asked for has been drawn: two frames."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        return self

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0]).textContent", selector)

    def resize(self, width, height):
        """Give the page this size, in its own pixels; windows have a least width, pages of devices do not."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        return self.drawn()

    def actions(self):
        from selenium.webdriver import ActionChains

        return ActionChains(self.driver, duration=0)

    def press(self, *keys):
        """Keys to whatever has the focus."""
        self.actions().send_keys(*keys).perform()
        return self.drawn()

    def mouse(self, selector, *points):
        """Press the mouse at the first point, (x, y) in px from the element's corner, go to the others, let go."""
        element = self.find(selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        box = self.js("const b = arguments[0].getBoundingClientRect(); return [b.width, b.height]", element)
        places = [(round(x - box[0] / 2), round(y - box[1] / 2)) for x, y in points]
        actions = self.actions().move_to_element_with_offset(element, *places[0]).click_and_hold()
        for place in places[1:]:
            actions = actions.move_to_element_with_offset(element, *place)
        actions.release().perform()
        return self.drawn()

    def pixels(self, selector):
        """What an element looks like: (height, width, 3), 0 to 255."""
        return np.asarray(
            Image.open(io.BytesIO(self.find(selector).screenshot_as_png)).convert("RGB"), dtype=np.float64
        )

    def picture(self, path):
        """The whole page as PNG."""
        result = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": result["width"], "height": result["height"], "scale": 1}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))

    def media(self, **features):
        """Set preferences: media(prefers_color_scheme="dark")."""
        values = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": values})
        return self.drawn()

    def messages(self):
        """Errors and warnings of the console."""
        return [m["message"] for m in self.driver.get_log("browser") if m["level"] in ("SEVERE", "WARNING")]

    def requests(self):
        """Addresses that the page asked for since it was opened, the page itself among them."""
        events = (json.loads(e["message"])["message"] for e in self.driver.get_log("performance"))
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]


@contextmanager
def browser(*flags, width=1280, height=900):
    """A Browser that is closed afterwards; skips the test where there is no Chromium or no selenium."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    paths = [next(filter(None, map(shutil.which, names)), None) for names in (
        ("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))]  # fmt: skip
    if None in paths:
        pytest.skip("Chromium or chromedriver is not installed: the page cannot be looked at")
    with tempfile.TemporaryDirectory() as profile:
        options = selenium.ChromeOptions()
        options.binary_location = paths[0]
        for flag in (*QUIET, *(flags or DRAWING), f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = selenium.Chrome(options=options, service=selenium.ChromeService(paths[1]))
        driver.set_script_timeout(PATIENCE)
        try:
            yield Browser(driver).resize(width, height)
        finally:
            driver.quit()
