"""Volumes in and out: found, read, checked, restored and written."""
