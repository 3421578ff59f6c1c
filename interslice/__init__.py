"""Slice-consistent diffusion reconstruction of 3-D medical volumes."""

__version__ = "0.12.0"
