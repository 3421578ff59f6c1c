"""What the studies of bands measure, on slices whose bands are known; and the table of them."""

import pytest
import torch

from scripts.studies.acquired_tables import simulated_table
from scripts.studies.bands import SHARES, log_change, odd_even, with_bands, with_uneven_bands

SPACING = (2.0, 2.0, 4.0)


def block(slices=32):
    scan = torch.zeros(80, 80, slices)
    scan[8:72, 8:72] = 400
    return scan


def test_the_odd_even_difference_of_even_slices_with_bands_is_their_step():
    assert odd_even(with_bands(block(), 0.05, tilt=0.0), 2, SPACING) == pytest.approx(
        {"whole": 5, "place_median": 5, "place_rms": 5}, rel=0.01
    )
    assert odd_even(block(), 2, SPACING) == {"whole": 0, "place_median": 0, "place_rms": 0}


def test_bands_that_change_at_random_have_the_shares_that_are_stated():
    scan = block(60)
    changes = [with_uneven_bands(scan, 0.1, SPACING, seed)[8:72, 8:72] / 400 for seed in range(6)]
    places = torch.stack([c.log().abs() / 0.05 for c in changes])  # 1 and what is drawn
    assert float(places.mean()) == pytest.approx(1, abs=0.15)
    assert float((places - 1).square().mean().sqrt()) == pytest.approx(sum(s * s for s in SHARES) ** 0.5, rel=0.5)
    assert not torch.equal(changes[0], changes[1])
    assert torch.equal(changes[0], with_uneven_bands(scan, 0.1, SPACING)[8:72, 8:72] / 400)


def test_the_change_of_a_scan_is_that_of_its_subject():
    assert log_change(with_bands(block(), 0.04, tilt=0.0), block()) == pytest.approx(2, rel=1e-3)


def test_the_table_has_a_row_for_every_kind_of_bands():
    people = {
        name: {
            "packages_without": 1,
            "step_0.02": {"packages": packages, "left": left},
            "uneven_0.02": {"packages": 2, "left": 2 * left},
        }
        for name, packages, left in (("a", 2, 0.1), ("b", 1, 0.3))
    }
    rows = simulated_table({"simulated": people}).splitlines()
    assert rows[2:] == [
        "| none | 0 of 2 | – |",
        "| 2 %, from side to side | 1 of 2 | 20 % (10 to 30) |",
        "| 2 %, at random | 2 of 2 | 40 % (20 to 60) |",
    ]
