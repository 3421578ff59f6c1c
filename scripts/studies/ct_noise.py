"""Noise of counts: bias of rays and of water, and what weights gain, by dose; truncation, rings and cupping.

    python -m scripts.studies.ct_noise --volume FILE         a CT volume in HU that is not held out

Writes docs/ct_noise.json and, from it, the tables of docs/reference/ct_noise.md (`--tables` writes these alone). Two
slabs of the volume, at a quarter and at three fifths of its height, are measured in 30 parallel views with 1e3 to 1e6
photons a ray and reconstructed by total variation: all rays alike and weighted, each with the best weight of total
variation by a golden search, and weighted with the weight of the rule (interslice.physics.baselines.weight_by_noise).
The rest is simulated from discs and made-up bodies.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from tqdm import tqdm

from interslice.files.last_words import plain_endings
from interslice.files.write import write_json
from interslice.physics import LinearOperator, Measured, operator_of
from interslice.physics.baselines import LeastSquares, TotalVariation, weight_by_noise
from interslice.physics.ct import (
    CorrectHardeningd,
    Grid,
    HounsfieldScale,
    MendTruncationd,
    ScaleProjectionsd,
    ScanGeometry,
    SimulateProjectionsd,
    SparseRadon,
    Tomography,
)
from interslice.physics.ct.attenuation import line_integrals_of
from interslice.physics.ct.beam_hardening import hardened
from interslice.physics.ct.counting import RayNoise, rays_of
from interslice.physics.ct.rings import stripes
from interslice.physics.ct.simulate import count_photons
from interslice.physics.ct.weighted_rays import MODEL_ERROR, WeightedRays, rows_of
from scripts.studies.tables import fill, table

DOSES = (1e3, 1e4, 1e5, 1e6)
THICKNESSES = (2.0, 4.0, 6.0)
"""Line integrals of single rays."""
SCALE = HounsfieldScale()
SPACING, SLICES = 3.2, 3
PLACES = {"abdomen": 0.04, "chest": 0.22}
"""Where slabs lie, as a share of the volume's height."""
VIEWS = (30,)
ERRORS = (0.0, MODEL_ERROR, 0.04)
"""MODEL_ERROR and others."""
RANGE, STEPS = (1e-5, 1e-2), 9
"""Of the weight of total variation that is searched, and how often it is tried."""
PLAIN = "plain"


def plain_logarithm(counts: torch.Tensor, photons: float) -> tuple[torch.Tensor, RayNoise]:
    """What is taken usually: -log of a count, of half a one where none is, and its own count as its weight."""
    p = line_integrals_of(counts, photons)
    return p.float(), RayNoise((1 / counts.clamp_min(0.5)).numpy().astype(np.float32))


def rays() -> dict:
    """`errors_of` by dose and thickness."""
    return {f"{photons:g} {p:g}": errors_of(photons, p) for photons in DOSES for p in THICKNESSES}


def errors_of(photons: float, p: float) -> dict:
    """Mean error of the line integral of single rays, with its standard error."""
    counts = count_photons(torch.full((200, 50, 20), p), photons, 0.0, 0)
    estimates = {PLAIN: plain_logarithm(counts, photons)[0].numpy(), "ours": rays_of(counts.numpy(), photons)[0]}
    return {name: mean_of(e - p) for name, e in estimates.items()}


def mean_of(values: np.ndarray) -> list[float]:
    """Mean and its standard error."""
    return [float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64) / math.sqrt(values.size))]


def disc(draws: int = 300) -> dict:
    """Mean HU of 220 mm of water in weighted least squares, solved exactly, by dose."""
    count, size, found = 24, 11.0, {}
    grid = Grid((count, count, 1), (size,) * 3)
    x, y = torch.meshgrid(grid.coordinates(0), grid.coordinates(1), indexing="ij")
    radius = torch.hypot(x, y)
    scan = SparseRadon(ScanGeometry("parallel", tuple(4.0 * i for i in range(45)), 36, size, 1, size), grid)
    units = torch.eye(count**2, dtype=torch.float64).reshape(-1, *grid.shape)
    matrix = torch.stack([scan.forward(unit).flatten() for unit in units], 1)
    truth = matrix @ torch.where(radius < 110, SCALE.water, 0.0).double().flatten()
    truth = truth.view(*scan.range_shape).expand(-1, -1, draws)

    def water(p: torch.Tensor, noise: RayNoise, error: float) -> np.ndarray:
        rows, hu = rows_of(noise, error)[0].double().flatten(0, 1), []
        for weights, line_integrals in zip(rows.T.square(), p.double().flatten(0, 1).T):
            weighted = matrix.T * weights
            solution = torch.linalg.solve(weighted @ matrix, weighted @ line_integrals)
            hu.append(1000 * (float(solution[(radius < 100).flatten()].mean()) / SCALE.water - 1))
        return np.array(hu)

    for photons in DOSES:
        counts = count_photons(truth, photons, 0.0, 0)
        p, noise = rays_of(counts.numpy(), photons)
        estimates = {PLAIN: (*plain_logarithm(counts, photons), 0.0), "ours": (torch.from_numpy(p), noise, MODEL_ERROR)}
        found[f"{photons:g}"] = {name: mean_of(water(*estimate)) for name, estimate in estimates.items()}
    return found


def slab(path: Path, place: float) -> torch.Tensor:
    """(X, Y, SLICES) in HU at a share of the volume's height."""
    image = nib.as_closest_canonical(nib.load(path))
    zooms, height = image.header.get_zooms(), image.shape[2]
    first, count = round(place * height), math.ceil(SLICES * SPACING / zooms[2]) + 1
    volume = torch.from_numpy(np.asarray(image.dataobj[..., first : first + count], np.float32))
    across = torch.nn.functional.interpolate(
        volume.movedim(2, 0)[:, None], scale_factor=float(zooms[0]) / SPACING, mode="area"
    )[:, 0].movedim(0, 2)
    return resample_depth(across, float(zooms[2])).clamp(-1024, 3000).contiguous()


def resample_depth(volume: torch.Tensor, spacing: float) -> torch.Tensor:
    """Means of SPACING mm along the last axis, SLICES of them."""
    each = max(1, round(SPACING / spacing))
    return volume[..., : SLICES * each].unflatten(-1, (SLICES, each)).mean(-1)


def best(error: Callable[[float], float]) -> tuple[float, float]:
    """(weight, error) of the smallest error by a golden search over the logarithm of the weight."""
    low, high = map(math.log, RANGE)
    share = (math.sqrt(5) - 1) / 2
    ends = [high - share * (high - low), low + share * (high - low)]
    values = [error(math.exp(e)) for e in ends]
    for _ in range(STEPS - 2):
        if values[0] < values[1]:
            high, ends[1], values[1] = ends[1], ends[0], values[0]
            ends[0] = high - share * (high - low)
            values[0] = error(math.exp(ends[0]))
        else:
            low, ends[0], values[0] = ends[0], ends[1], values[1]
            ends[1] = low + share * (high - low)
            values[1] = error(math.exp(ends[1]))
    return min(((math.exp(e), v) for e, v in zip(ends, values)), key=lambda pair: pair[1])


def weights(volume: torch.Tensor, views: int, photons: float) -> dict:
    """Root mean square error in HU of total variation, and its weight: rays alike, weighted, and by the rule."""
    scanner = Tomography(num_views=views, background=SCALE.air)
    image = MetaTensor(volume[None], affine=torch.diag(torch.tensor([SPACING] * 3 + [1.0])))
    measure = Compose(
        [
            SimulateProjectionsd("image", scanner, SCALE, photons),
            Measured("image", scanner),
            ScaleProjectionsd("image", SCALE),
        ]
    )
    scan = measure({"image": image})
    alike, y, truth = operator_of(scan["image"]), scan["image"].as_tensor()[0], scan["label"].as_tensor()[0]

    def error(operator: LinearOperator, y: torch.Tensor, weight: float | str) -> float:
        return 1000 * float((TotalVariation(weight)(y, operator) - truth).square().mean().sqrt())

    found = {"alike": best(lambda w: error(alike, y, w))}
    for e in ERRORS:
        rows, *deviations = rows_of(scan["image"].meta["noise"], e)
        operator = WeightedRays(alike, rows, *(s / SCALE.slope for s in deviations))
        weighted = operator.weigh(y)
        found[f"weighted, e {e:g}"] = best(lambda w, o=operator, v=weighted: error(o, v, w))
        if e == MODEL_ERROR:
            found["rule"] = (weight_by_noise(weighted, operator), error(operator, weighted, "auto"))
    return found


def artefacts() -> dict:
    """What is left of truncation, rings and cupping, in HU and in line integrals."""
    grid = Grid((108, 108, 2), (3.0,) * 3)
    x, y = torch.meshgrid(grid.coordinates(0), grid.coordinates(1), indexing="ij")
    body = (((x - 10) / 140) ** 2 + ((y + 6) / 110) ** 2 < 1).float()
    body[((x - 30) / 18) ** 2 + ((y - 20) / 25) ** 2 < 1] = 0.2
    body[(x + 35) ** 2 + (y + 20) ** 2 < 64] = 1.9
    mu = SCALE.water * body[..., None].repeat(1, 1, 2)
    angles = tuple(2.0 * i for i in range(90))
    geometry = ScanGeometry("parallel", angles, 60, 3.0, 2, 3.0)
    cut = MetaTensor(SparseRadon(geometry, grid).forward(mu)[None], meta={"geometry": geometry})
    found: dict = {"truncation": {}}
    for choice in ("leave", "extrapolate", "grid"):
        scanner = Tomography(background=0.0)
        mended = MendTruncationd("image", scanner, SCALE, choice)({"image": cut.clone()})["image"]
        operator = scanner.for_measurement(mended)
        radius = torch.hypot(*torch.meshgrid(*(operator.grid.coordinates(a) for a in (0, 1)), indexing="ij"))
        more = [(n - k) // 2 for n, k in zip(mu.shape, operator.grid.shape)]
        truth = mu[more[0] : 108 - more[0], more[1] : 108 - more[1]]
        for name, method in {"FBP": lambda y, o: o.linear_reconstruction(y), "LS": LeastSquares(10)}.items():
            off = 1000 * (method(mended.as_tensor()[0], operator) - truth)[..., 0] / SCALE.water
            found["truncation"][f"{choice} {name}"] = [
                float(off[radius < 72].mean()), float(off[(radius > 81) & (radius < 90)].mean())
            ]  # fmt: skip
    whole = SparseRadon(ScanGeometry("parallel", angles, 400, 0.9, 2, 3.0), grid).forward(mu)
    right = rays_of(count_photons(whole, 1e5, 0.0, 0).numpy(), 1e5)[0]
    random = np.random.default_rng(0)
    wrong = np.where(random.random(right.shape[1:]) < 0.1, random.normal(0, 0.05, right.shape[1:]), 0.0)
    left = (right + wrong).astype(np.float32)
    found["rings"] = [float(np.sqrt(np.square(v).mean())) for v in (wrong, stripes(left) - wrong, stripes(right))]
    radius = torch.hypot(x, y)
    lengths = SparseRadon(ScanGeometry("parallel", angles, 120, 3.0, 2, 3.0), grid)
    water = lengths.forward((radius < 130).float()[..., None].repeat(1, 1, 2))
    q = torch.from_numpy(hardened(water.double().numpy(), 120.0)).float()
    corrected = CorrectHardeningd("image", 120.0, SCALE)({"image": MetaTensor(q[None])})["image"].as_tensor()[0]
    for name, p in {"no hardening": SCALE.water * water, "120 kV": q, "corrected": corrected}.items():
        hu = 1000 * (lengths.linear_reconstruction(p)[..., 0] / SCALE.water - 1)
        found.setdefault("cupping", {})[name] = [
            float(hu[radius < 20].mean()), float(hu[(radius > 100) & (radius < 115)].mean())
        ]  # fmt: skip
    return found


def dose(photons: str) -> str:
    """As 1e5."""
    return f"{float(photons):.0e}".replace("e+0", "e")


def write_tables(record: dict, page: Path) -> None:
    """The tables of docs/reference/ct_noise.md."""

    def with_error(pair: list[float], digits: int) -> str:
        return f"{pair[0]:+.{digits}f} ({pair[1]:.{digits}f})"

    rows = [
        [dose(p), t, *(with_error(found[name], 4) for name in (PLAIN, "ours"))]
        for (p, t), found in ((key.split(), value) for key, value in record["rays"].items())
    ]
    fill(page, "rays", table(["photons", "line integral", "plain logarithm", "here"], rows))
    rows = [[dose(p), *(with_error(found[name], 2) for name in (PLAIN, "ours"))] for p, found in record["disc"].items()]
    fill(page, "disc", table(["photons", "plain logarithm, own counts as weights (HU)", "here (HU)"], rows))
    rows = []
    for key, found in record["weights"].items():
        place, views, photons = key.split()
        alike, rule = found["alike"][1], found["rule"][1]
        tuned = [f"{found[f'weighted, e {e:g}'][1]:.1f}" for e in ERRORS]
        gain = f"{20 * math.log10(alike / rule):+.2f}"
        rows.append(
            [place, views, f"{float(photons):.0e}".replace("e+0", "e"), f"{alike:.1f}", *tuned, f"{rule:.1f}", gain]
        )
    header = ["slab", "views", "photons", "alike", *(f"e = {e:g}" for e in ERRORS), "rule", "gain of the rule (dB)"]
    fill(page, "weights", table(header, rows))
    rows = [[name, *(f"{v:+.0f}" for v in pair)] for name, pair in record["artefacts"]["truncation"].items()]
    fill(page, "truncation", table(["truncation, method", "within (HU)", "rim (HU)"], rows))
    rows = [[name, *(f"{v:+.1f}" for v in pair)] for name, pair in record["artefacts"]["cupping"].items()]
    fill(page, "cupping", table(["260 mm of water", "middle (HU)", "at 108 mm (HU)"], rows))
    was, left, untouched = record["artefacts"]["rings"]
    fill(
        page,
        "rings",
        f"Offsets of {was:.4f} root mean square become {left:.4f}; of a scan without any, {untouched:.5f}.",
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volume", type=Path)
    parser.add_argument("--tables", action="store_true", help="write the tables of what is recorded alone")
    parser.add_argument("--output", type=Path, default=Path("docs/ct_noise.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/reference/ct_noise.md"))
    args = parser.parse_args(argv)
    if not args.tables:
        if args.volume is None:
            parser.error("--volume names a CT volume, or --tables asks for the tables alone")
        record: dict = {"rays": rays(), "disc": disc(), "artefacts": artefacts(), "weights": {}}
        write_json(args.output, record)
        for place, share in PLACES.items():
            volume = slab(args.volume, share)
            for views in tqdm(VIEWS, desc=place):
                for photons in DOSES:
                    record["weights"][f"{place} {views} {photons:g}"] = weights(volume, views, photons)
                    write_json(args.output, record)
    write_tables(json.loads(args.output.read_text(encoding="utf-8")), args.page)
    print(f"wrote {args.output} and the tables of {args.page}")


if __name__ == "__main__":
    with plain_endings("--output holds what was measured"):
        main()
