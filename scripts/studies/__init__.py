"""Studies behind the figures of the documentation: tuning, calibration, comparisons, and their tables."""
