"""Dead elements are found where they are, and nowhere else; what is filled in is what lies between."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.physics.ct.dead_columns import dead_elements, longest_run, with_dead_filled
from tests.physics.ct.test_plausible import measured, said
from tests.support.helpers import repeatable


def lines(views=10, columns=30, rows=3):
    """Projections that are linear along the columns, another way in each view and row, and 0 at both ends."""
    v, c, r = np.meshgrid(np.arange(views), np.arange(columns), np.arange(rows), indexing="ij")
    p = (1.0 + np.sin(v) + r) * (c + 0.1 * v)
    p[:, [0, 1, -2, -1]] = 0
    return p.astype(np.float32)


@given(
    dead=st.sets(st.integers(4, 25), max_size=10), rows=st.sets(st.integers(0, 2), min_size=1), value=st.floats(0, 12)
)
@repeatable
def test_dead_elements_are_interpolated_and_the_others_untouched(dead, rows, value):
    right = lines()
    broken, place = right.copy(), np.zeros(right.shape[1:], bool)
    place[np.ix_(sorted(dead), sorted(rows))] = True
    broken[:, place] = value
    assert np.array_equal(dead_elements(broken), place)
    if longest_run(place.any(1)) > 8:
        with pytest.raises(ValueError, match=r"up to \d+ beside each other: .* at most 8 are filled in"):
            with_dead_filled(broken)
        return
    filled, sentences = with_dead_filled(broken)
    np.testing.assert_allclose(filled, right, atol=1e-4)
    assert bool(sentences) == bool(dead) and np.array_equal(
        broken[:, place], np.full((10, place.sum()), np.float32(value))
    )


def test_columns_beside_an_object_and_round_objects_are_not_dead():
    right = measured()
    assert not dead_elements(right.as_tensor()[0].numpy()).any()
    assert not dead_elements(np.broadcast_to(lines()[:1], (10, 30, 3))).any()


def test_dead_columns_of_counts_cost_little():
    """Four columns of 96 that count nothing: filled in, they err by less than a tenth of what is measured there."""
    right = measured(photons=3e4)
    broken = right.clone()
    broken[:, :, 30:34] = np.log(6e4)
    filled, sentences = with_dead_filled(broken.as_tensor()[0].numpy())
    assert sentences[0].startswith("4 columns (30, 31, 32, 33) have one value in all views") and sentences[0] in said(
        broken
    )
    error = filled - right.as_tensor()[0].numpy()
    assert np.sqrt(np.square(error[:, 30:34]).mean()) < 0.1 * right.as_tensor()[0, :, 30:34].square().mean().sqrt()
