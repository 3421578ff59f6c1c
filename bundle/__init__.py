"""Slice-consistent diffusion reconstruction of 3-D medical volumes."""
