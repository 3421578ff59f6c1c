"""Tissue intensities of synthetic heads in the order of a contrast.

A contrast is a table of mean intensities, drawn around typical values of spin-echo and gradient-echo scans at 1.5 and
3 T until white matter, grey matter, CSF and lesions stand in the contrast's order:

    T1     wm > gm > csf, lesions below white matter (black holes to nearly as bright)
    T2     csf > gm > wm, lesions above grey matter
    FLAIR  gm > wm > csf, lesions above grey matter
    PD     gm > csf > wm, lesions above white matter
    random any order, as of sequences that the list lacks

Intensities are relative; white matter in T1 is 1. Which contrast a head has depends on its seed alone: seeds in a row
take the contrasts evenly, by the golden ratio, so that few heads show them all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from scripts.data.deformation import uniform

WEIGHTS = {"T1": 0.5, "T2": 0.16, "FLAIR": 0.16, "PD": 0.06, "random": 0.12}
"""Share of heads by contrast."""
GOLDEN = 0.6180339887498949
GAP = 0.05
"""Least difference of neighbours in the order."""


class Tissue(NamedTuple):
    """Mean intensity, its standard deviation between heads, and the texture within one, relative to the mean."""

    mean: float
    spread: float
    texture: float


T1 = {
    "wm": Tissue(1.00, 0.03, 0.02), "gm": Tissue(0.70, 0.06, 0.03), "csf": Tissue(0.24, 0.07, 0.03),
    "lesion": Tissue(0.68, 0.12, 0.06), "bone": Tissue(0.10, 0.05, 0.30), "marrow": Tissue(0.85, 0.25, 0.15),
    "muscle": Tissue(0.50, 0.10, 0.15), "fat": Tissue(1.15, 0.25, 0.12), "skin": Tissue(0.60, 0.15, 0.10),
    "air": Tissue(0.02, 0.01, 0.20),
}  # fmt: skip
T2 = {
    "wm": Tissue(0.34, 0.05, 0.04), "gm": Tissue(0.50, 0.06, 0.04), "csf": Tissue(1.05, 0.12, 0.04),
    "lesion": Tissue(0.78, 0.12, 0.08), "bone": Tissue(0.06, 0.03, 0.30), "marrow": Tissue(0.40, 0.15, 0.15),
    "muscle": Tissue(0.20, 0.06, 0.15), "fat": Tissue(0.62, 0.20, 0.12), "skin": Tissue(0.40, 0.12, 0.10),
    "air": Tissue(0.02, 0.01, 0.20),
}  # fmt: skip
FLAIR = {
    "wm": Tissue(0.52, 0.05, 0.04), "gm": Tissue(0.67, 0.06, 0.04), "csf": Tissue(0.13, 0.06, 0.06),
    "lesion": Tissue(1.05, 0.14, 0.08), "bone": Tissue(0.06, 0.03, 0.30), "marrow": Tissue(0.40, 0.15, 0.15),
    "muscle": Tissue(0.30, 0.08, 0.15), "fat": Tissue(0.75, 0.25, 0.12), "skin": Tissue(0.50, 0.15, 0.10),
    "air": Tissue(0.02, 0.01, 0.20),
}  # fmt: skip
PD = {
    "wm": Tissue(0.66, 0.04, 0.03), "gm": Tissue(0.90, 0.05, 0.03), "csf": Tissue(0.78, 0.06, 0.03),
    "lesion": Tissue(0.95, 0.06, 0.06), "bone": Tissue(0.08, 0.04, 0.30), "marrow": Tissue(0.50, 0.15, 0.15),
    "muscle": Tissue(0.50, 0.10, 0.15), "fat": Tissue(0.75, 0.20, 0.12), "skin": Tissue(0.55, 0.12, 0.10),
    "air": Tissue(0.02, 0.01, 0.20),
}  # fmt: skip
TABLES = {"T1": T1, "T2": T2, "FLAIR": FLAIR, "PD": PD}
ORDERS = {
    "T1": ("csf", "gm", "wm"), "T2": ("wm", "gm", "csf"), "FLAIR": ("csf", "wm", "gm"), "PD": ("wm", "csf", "gm"),
}  # fmt: skip
"""Tissues from dark to bright."""
LESIONS = {"T1": ("lesion", "wm"), "T2": ("gm", "lesion"), "FLAIR": ("gm", "lesion"), "PD": ("wm", "lesion")}
"""What lesions are darker or brighter than."""
SUPPRESSIBLE = ("marrow", "fat")
"""What fat suppression darkens: in four of ten scans that are not T1."""


def contrast_of(seed: int) -> str:
    """Contrast of head number `seed`."""
    place, total = (0.5 + seed * GOLDEN) % 1 * sum(WEIGHTS.values()), 0.0
    for name, weight in WEIGHTS.items():
        total += weight
        if place < total:
            return name
    return name


def draw_tissues(rng: torch.Generator, contrast: str) -> dict[str, Tissue]:
    """Tissues of one head: means are drawn, spreads used up.

    Raises:
        ValueError: the contrast is none of WEIGHTS.
    """
    if contrast not in WEIGHTS:
        raise ValueError(f"contrast is {contrast!r}: choose one of {', '.join(WEIGHTS)}")
    if contrast == "random":
        means = {name: uniform(rng, 0.05, 1.1) for name in T1 if name != "air"} | {"air": T1["air"].mean}
        return {name: Tissue(mean, 0.0, T1[name].texture) for name, mean in means.items()}
    table = TABLES[contrast]
    while True:
        means = {n: max(0.0, t.mean + t.spread * torch.randn((), generator=rng).item()) for n, t in table.items()}
        if all(means[b] - means[a] >= GAP for order in (ORDERS[contrast], LESIONS[contrast])
               for a, b in zip(order, order[1:])):  # fmt: skip
            break
    if contrast != "T1" and uniform(rng, 0, 1) < 0.4:
        rest = uniform(rng, 0.1, 0.5)
        means |= {name: rest * means[name] for name in SUPPRESSIBLE}
    return {name: Tissue(mean, 0.0, table[name].texture) for name, mean in means.items()}
