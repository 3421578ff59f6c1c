"""What hypothesis draws in more than one test."""

from hypothesis import strategies as st


def per_view(low, high, views):
    """A strategy: one number for the whole scan, or one for each of its views."""
    return st.one_of(st.floats(low, high), st.tuples(*[st.floats(low, high)] * views))
