"""Report pages for tests: volumes of whole numbers, metrics, a record, and how to read a page back."""

import base64
import gzip
import json
import re

import numpy as np

from interslice.report.page.write import write_page
from interslice.report.titles import RECON
from tests.support.scans import OBLIQUE

SHAPE = (20, 24, 16)
WINDOW = (0.0, 1000.0)


def whole_numbers(seed, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(np.float32)


def unpacked(text, axes, shape, step, offset):
    """What page.js does, with numpy."""
    content = np.frombuffer(gzip.decompress(base64.b64decode(text)), dtype=np.uint8).astype(np.uint16)
    folded = content[: len(content) // 2] | (content[len(content) // 2 :] << 8)
    q = ((folded >> 1) ^ -(folded & 1)).astype(np.int16).reshape(shape, order="F")
    for axis in axes:
        q = np.cumsum(q, axis=axis, dtype=np.int16)
    return q.astype(np.float64) * step + offset


def contents(path):
    """The settings of a page, and its volumes as (X, Y, Z) arrays by role."""
    text = path.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="page-data">(.*?)</script>', text)[1])
    volumes = {
        name: unpacked(found, v["axes"], data["shape"], v["step"], v["offset"])
        for name, v in data["volumes"].items()
        for found in re.findall(rf'id="volume-{name}">([^<]*)<', text)
    }
    return data, volumes


def metrics_of_three():
    """What metrics.json holds, by title: the run is best in PSNR, another method between slices."""

    def method(psnr, error):
        values = {plane: {"psnr": psnr, "ssim": psnr / 40} for plane in ("sagittal", "coronal", "axial", "volume")}
        differences = {plane: {"error": error, "ratio": 0.9} for plane in ("sagittal", "coronal", "axial")}
        return values | {"inter_slice": differences, "data_residual": 1e-6, "regions": {"inside": {"psnr": psnr + 1}}}

    spread = {"num_draws": 4, "nominal": [0.5, 0.95], "coverage": [0.41, 0.87]}
    return {
        "Input (nearest)": method(25.0, 0.03),
        "Cubic": method(28.0, 0.01),
        RECON: method(29.0, 0.02) | {"calibration": spread},
    }


RECORD = {
    "source": "/home/someone/patients/scan.nii.gz",
    "seconds": 12.345678,
    "scan": "slices 4 mm apart",
    "settings": {
        "checkpoint": "./models/<b>model.pt",
        "seed": 0,
        "start": None,
        "operator": "Tomography(file='/data/secret place/g.json', unit='1/mm')",
    },
    "versions": {"torch": "2.13.0"},
}


def full_page(path):
    """Write everything that a page can show, with an oblique affine; returns the volumes."""
    volumes = {"input": whole_numbers(1), "result": whole_numbers(2), "truth": whole_numbers(3)}
    volumes |= {"std": whole_numbers(4), "filled": whole_numbers(5) - 500}
    write_page(path, "a <case>", volumes, OBLIQUE, WINDOW, {"input": "Nearest"}, "HU", metrics_of_three(), RECORD)
    return volumes


TILES = """
const [svg] = document.querySelectorAll(arguments[0] + " svg"), lines = [...svg.querySelectorAll(".cross")];
const ends = (line) => ["x1", "y1", "x2", "y2"].map((name) => +line.getAttribute(name));
const names = [...svg.querySelectorAll(".plane")].map((t) => t.textContent).filter((t) => !t.endsWith("mm"));
return names.map((name, i) => {
  const [left, right, up, down] = lines.slice(4 * i, 4 * i + 4).map(ends);
  return { plane: name.split(" ")[0], x: left[0], y: up[1], w: right[2] - left[0], h: down[3] - up[1],
           cursor: [up[0], left[1]] };
});
"""
"""Boxes of the planes of a pane in px, and where the cross is, from the lines drawn over them."""


def tiles(page, pane="#pane-b"):
    """Planes of a pane by name: x, y, w, h and cursor, in px from the corner of its screen."""
    return {tile["plane"]: tile for tile in page.js(TILES, pane)}
