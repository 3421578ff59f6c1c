"""What methods are called, in pictures, pages and tables."""

from __future__ import annotations

from collections.abc import Mapping

RECON = "Diffusion (this run)"
"""The run's own result, among the methods that it is compared with."""

TITLES = {
    "recon": RECON,
    "input": "Input (nearest)",
    "cubic": "Cubic B-spline",
    "cubic_consistent": "Cubic, data-consistent",
    "smoothest": "Least curved, consistent",
    "least_squares": "Least squares",
    "total_variation": "Total variation",
    "independent_tv": "Independent + total variation",
}
"""By their names in metrics.json. A baseline with a `label` is called by that: the input is another for each task."""


def title_of(name: str, baselines: Mapping[str, object] | None = None) -> str:
    """The title of a method; one that is not in the table is the noise field that it drew from."""
    label = getattr((baselines or {}).get(name), "label", "")
    return label or TITLES.get(name, f"Diffusion, {name} noise")
