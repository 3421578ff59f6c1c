"""Doubts stand at the top of the page, as text; where there are none, nothing does."""

import numpy as np
import pytest

from interslice.report.page.doubts import doubt_list
from interslice.report.page.write import write_page
from tests.support.report_pages import WINDOW, whole_numbers


@pytest.mark.parametrize("doubts", [[], ["air_counts is <65535>", "the angles look wrong"]])
def test_doubts_come_before_the_pictures(doubts, tmp_path):
    volumes = {"input": whole_numbers(1), "result": whole_numbers(2)}
    write_page(tmp_path / "page.html", "case", volumes, np.eye(4), WINDOW, record={"doubts": doubts})
    top = (tmp_path / "page.html").read_text(encoding="utf-8").split('id="h-pictures"')[0]
    assert ("Doubts" in top) == bool(doubts)
    assert not doubts or ("<li>air_counts is &lt;65535&gt;</li><li>the angles look wrong</li>" in top)


def test_nothing_is_nothing():
    assert doubt_list(()) == ""
