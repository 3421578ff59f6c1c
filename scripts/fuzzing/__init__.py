"""Malformed inputs of every kind, made, run and judged: what `python -m scripts.fuzz` is put together from."""
