"""Tables and charts of the report page: each figure in its row, each mark at its value, pictures upright."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from interslice.report.page.parts import curves, dots, marked, metric_tables, middle_slices
from interslice.report.titles import RECON
from tests.support.report_pages import metrics_of_three


def test_the_best_of_a_column_is_marked_in_words_too():
    assert marked([1.0, 3.0, None], ".1f", max)[1:] == [
        '<strong>3.0 <span aria-hidden="true">★</span><span class="unseen"> best</span></strong>',
        "–",
    ]
    assert "★" in marked([1.0, 3.0], ".1f", min)[0] and "★" not in "".join(marked([1.0, 3.0], ".1f"))


def test_tables_have_each_figure_in_the_row_of_its_method():
    tables = re.findall(r"<table.*?</table>", metric_tables(metrics_of_three()))
    rows = dict(re.findall(r'<th scope="row">([^<]*)</th>(.*?)</tr>', tables[0]))
    assert list(rows) == list(metrics_of_three())
    assert rows["Cubic"].count("28.00") == 4 and "29.00" in rows["Cubic"]  # and the region, 1 dB above
    assert rows[RECON].count("★") == 5 and "★" not in rows["Cubic"]
    differences = dict(re.findall(r'<th scope="row">([^<]*)</th>(.*?)</tr>', tables[2]))
    assert differences["Cubic"].count("★") == 3 and "10.00" in differences["Cubic"] and "0.90" in differences["Cubic"]
    assert "41.0 %" in tables[3] and "87.0 %" in tables[3] and "4 draws" in tables[3]


def test_dots_lie_in_the_order_of_their_values_and_the_run_is_a_diamond():
    drawn = dots("PSNR", {"a": 20.0, "b & c": 30.0, RECON: 25.0}, ".1f", RECON)
    (a, b), (own,) = re.findall(r'cx="([\d.]+)"', drawn), re.findall(r'd="M([\d.]+) ', drawn)
    assert float(own) - float(a) == pytest.approx(float(b) - float(own), abs=0.2) and float(own) > float(a)
    assert 'aria-label="PSNR: a 20.0; b &amp; c 30.0;' in drawn


def test_values_that_json_lacks_are_left_out():
    """The PSNR of an exact result is infinite, which metrics.json writes as null."""
    assert "cx" not in dots("PSNR", {"a": None, RECON: 25.0}, ".1f", RECON)
    assert dots("PSNR", {"a": None}, ".1f", RECON) == ""
    metrics = metrics_of_three()
    metrics[RECON]["volume"]["psnr"] = None
    row = dict(re.findall(r'<th scope="row">([^<]*)</th>(.*?)</tr>', metric_tables(metrics)))[RECON]
    assert "<td>–</td>" in metric_tables(metrics) and row


def test_curves_go_through_their_values():
    values = np.array([0.0, 4.0, 2.0])
    drawn = curves("t", {"x": values}, 1.0, "mm", {"x": "result"})
    points = np.array([p.split(",") for p in re.search(r'points="([^"]*)"', drawn)[1].split()], dtype=float)
    heights = points[0, 1] - points[:, 1]
    np.testing.assert_allclose(heights / heights[1] * 4, values, atol=0.01)
    assert np.allclose(np.diff(points[:, 0], 2), 0, atol=0.2)


def test_static_pictures_show_the_middle_in_proportion():
    volume = np.zeros((10, 12, 6), dtype=np.float32)
    volume[8, :, 5] = 100  # the patient's right, up
    pictures = middle_slices(volume, np.diag([1.0, 1.0, 3.0, 1.0]), (0, 100))
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(pictures["coronal"]))))
    assert image.shape == (18, 10)
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert row < 3 and column == 1
