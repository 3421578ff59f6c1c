"""Checks of values: what is allowed passes unchanged, everything else is named with its limits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interslice.files.values import callable_or_none, choice, number, rising_pair, whole_number
from tests.support.helpers import repeatable

anything = st.one_of(st.none(), st.booleans(), st.text(), st.lists(st.integers()), st.floats(), st.integers())


@repeatable
@given(value=anything, least=st.integers(-3, 3))
def test_whole_numbers(value, least):
    """A number that passes is whole, of its type, and not below the limit; nothing else passes."""
    allowed = type(value) is int and value >= least
    if allowed:
        assert whole_number("n", value, least) == value
    else:
        with pytest.raises(ValueError) as refused:
            whole_number("n", value, least, "do this")
        assert str(refused.value) == f"n must be a whole number from {least}, got {value!r}; do this"


@repeatable
@given(value=anything, ends=st.tuples(st.floats(-5, 5), st.floats(-5, 5)), strict=st.booleans())
def test_numbers(value, ends, strict):
    low, high = sorted(ends)
    limits = {"above": low, "below": high} if strict else {"least": low, "most": high}
    real = type(value) in (int, float) and math.isfinite(value)
    allowed = real and (low < value < high if strict else low <= value <= high)
    if allowed:
        assert number("n", value, **limits) == value
    else:
        with pytest.raises(ValueError, match="n must be a number of mm (above|from) .*, (below|up to) .*, got"):
            number("n", value, **limits, kind="a number of mm")


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(0), 0.5])
def test_numbers_of_numpy_are_numbers(value):
    assert number("n", value, 0, 1) == value


@pytest.mark.parametrize("value", [(1,), (1, 1), (1, 0), (0, math.nan), (-math.inf, 0), "01", 5, None, (0, 1, 2)])
def test_pairs_that_do_not_rise(value):
    with pytest.raises(ValueError, match=r"window must be two rising numbers, such as \[-1.0, 1.0\], got"):
        rising_pair("window", value)


def test_what_is_allowed_is_given_back():
    assert rising_pair("w", [-1, 1]) == (-1, 1) and choice("c", "a", ("a", "b")) == "a"
    assert callable_or_none("f", None, "@x") is None and callable_or_none("f", len, "@x") is len


def test_words_and_callables():
    with pytest.raises(ValueError, match="format must be one of a, b, got 'c'"):
        choice("format", "c", ("a", "b"))
    with pytest.raises(ValueError, match="start must be nothing or refer to a part of the config, such as '@x', got 5"):
        callable_or_none("start", 5, "'@x'")
