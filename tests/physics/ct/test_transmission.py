"""Transmission is no count: its logarithm is taken as it is, and counts that are too small to be any are said."""

import json
import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interslice.physics.ct.attenuation import LOWEST_TRANSMISSION
from interslice.physics.ct.read import read_projections
from tests.support.helpers import repeatable


def read(folder, values, air_counts):
    """(views, columns, rows) as they are read, and what is said."""
    views, columns, rows = values.shape
    fields = {"beam": "parallel", "angles": list(np.arange(views) * 180 / views), "num_columns": columns}
    fields |= {"num_rows": rows, "column_size": 2.0, "row_size": 2.0, "air_counts": air_counts}
    np.savez(folder / "scan.npz", projections=values)
    (folder / "scan.json").write_text(json.dumps(fields))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_projections(folder / "scan.npz").as_tensor()[0].numpy()
    return found, " ".join(str(w.message) for w in caught)


def line_integrals(largest):
    return np.linspace(0, largest, 10 * 12 * 2).reshape(10, 12, 2)


@given(largest=st.floats(0.1, 13.0), air=st.floats(0.5, 2.0))
@repeatable
def test_line_integrals_of_transmission_are_exact(tmp_path_factory, largest, air):
    p = line_integrals(largest)
    found, said = read(tmp_path_factory.mktemp("scan"), air * np.exp(-p), air)
    np.testing.assert_allclose(found, p, rtol=1e-5, atol=1e-5)
    assert said == ""


def test_no_transmission_is_a_millionth_and_is_said(tmp_path):
    shares = np.exp(-line_integrals(3.0))
    shares[2, 3, 0], shares[4, 4, 0] = 0, -0.01
    found, said = read(tmp_path, shares, 1.0)
    assert said.endswith("2 counts are zero or negative and are taken as 1e-06")
    np.testing.assert_allclose([found[2, 3, 0], found[4, 4, 0]], -np.log(LOWEST_TRANSMISSION), rtol=1e-6)


@pytest.mark.parametrize(("air", "largest"), [(100.0, 9.0), (10.0, 4.0), (3.0, 2.5)])
def test_counts_too_small_to_be_any_are_said_with_their_share(tmp_path, air, largest):
    p = line_integrals(largest)
    found, said = read(tmp_path, air * np.exp(-p), air)
    assert "state air_counts 1" in said
    share = 100 * float((air * np.exp(-p) < 0.5).mean())
    assert float(re.search(r"([\d.]+)% of the counts lie between 0 and 0.5", said)[1]) == pytest.approx(share, abs=0.06)
    np.testing.assert_allclose(found, np.minimum(p, np.log(2 * air)), atol=1e-5)
