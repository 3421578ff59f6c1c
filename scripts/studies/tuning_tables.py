"""Tables of docs/explanation/presets.md, from docs/tuning_mri.json, docs/tuning_noise.json and the presets' benchmarks.

python -m scripts.studies.tuning_tables
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from interslice.files.last_words import plain_endings
from interslice.planes import PLANES
from scripts.studies.tables import fill, page_of, table
from scripts.studies.tune_mri import RATIO

FIGURES = {"psnr": 2, "ssim": 3} | dict.fromkeys(PLANES, 2)
"""What is judged, and its digits."""
SAID = {"slice_axis": "planes", "eta": "eta", "sigma_rule": "rule", "start": "begun from", "antithetic": "antithetic"}


def gains(record: Mapping) -> dict[tuple[str, int, int], list[dict]]:
    """(setting as JSON, ratio, draws) -> what each person and seed gained over data-consistent cubic interpolation."""
    found: dict[tuple[str, int, int], list[dict]] = defaultdict(list)
    for run in record["runs"]:
        base = record["baselines"][run["person"]][str(run["ratio"])]["cubic_consistent"]
        for draws, figures in run["draws"].items():
            gain = {name: figures[name] - base[name] for name in FIGURES} | {"person": run["person"]}
            found[_text(run["setting"]), run["ratio"], int(draws)].append(gain)
    return found


def _text(setting: Mapping) -> str:
    """A setting as a key."""
    return json.dumps(setting, sort_keys=True)


def row(of_people: list[dict]) -> list[str]:
    """Means over people and seeds, and the least gain of anyone."""
    means = [f"{np.mean([p[name] for p in of_people]):+.{digits}f}" for name, digits in FIGURES.items()]
    return [means[0], f"{min(p['psnr'] for p in of_people):+.2f}", *means[1:]]


HEADER = ["PSNR (dB)", "least", "SSIM", *(f"inter-slice error x 1000, {p}" for p in PLANES)]


def people_of(record: Mapping) -> set[str]:
    """Those who were sampled with every setting."""
    asked = defaultdict(set)
    for run in record["runs"]:
        asked[_text(run["setting"]), run["ratio"]].add(run["person"])
    return set.intersection(*asked.values())


def tuning_table(record: Mapping, base: Mapping) -> str:
    """Every setting that was tried, per number of draws; first total variation, on the same scans."""
    people, rows, found = sorted(people_of(record)), [], gains(record)
    settings = {_text(run["setting"]): run["setting"] for run in record["runs"]}
    ratios = sorted({ratio for _, ratio, _ in found}, key=lambda r: (r != RATIO, r))
    for ratio in ratios:
        baselines = [record["baselines"][person][str(ratio)] for person in people]
        gain = [{n: b["total_variation"][n] - b["cubic_consistent"][n] for n in FIGURES} for b in baselines]
        rows.append([str(ratio), "total variation", *["–"] * 4, *row(gain)])
        for key, setting in settings.items():
            other = ", ".join(f"{SAID[n]} {setting[n]}" for n in SAID if setting[n] != base[n])
            for draws in sorted(d for k, r, d in found if (k, r) == (key, ratio)):
                of_people = [p for p in found[key, ratio, draws] if p["person"] in people]
                steps = f"{setting['num_steps']} from t = {1000 * setting['start_fraction']:.0f}"
                said = [steps, setting["noise"], str(draws), str(draws * setting["num_steps"]), other or "–"]
                rows.append([str(ratio), *said, *row(of_people)])
    named, base_said = ", ".join(f"`{p}`" for p in people), ", ".join(f"{SAID[n]} {base[n]}" for n in SAID)
    note = (
        f"Gain over data-consistent cubic interpolation, mean over the crops of {named}; `least`: of the one who "
        f"gained least. Unless `other` says so: {base_said}. By `python -m scripts.studies.tune_mri`."
    )
    return f"{note}\n\n{table(['mm', 'steps', 'noise', 'draws', 'passes', 'other', *HEADER], rows)}"


def preset_table(record: Mapping, base: Mapping, noise: str, presets: Mapping[str, Mapping], docs: Path) -> str:
    """The presets: passes, time on the embedded sample, and what they gained on the people of the tuning."""
    found, rows = gains(record), []
    for name, settings in presets.items():
        setting = dict(base) | {k: settings[k] for k in ("num_steps", "start_fraction")} | {"noise": noise}
        of_people = found[_text(setting), RATIO, settings["num_draws"]]
        timing = docs / f"benchmark_{name}.json"
        run = json.loads(timing.read_text(encoding="utf-8"))["run"] if timing.exists() else None
        seconds = "–" if run is None else f"{run['whole_run_s']:.0f} s ({run['device']})"
        passes = settings["num_steps"] * settings["num_draws"]
        rows.append(
            [f"`{name}`", *(f"{settings[k]:g}" for k in settings), str(passes), seconds, str(len(of_people))]
            + row(of_people)
        )
    ids = [f"`{k}`" for k in next(iter(presets.values()))]
    return table(["preset", *ids, "passes", "time", "people", *HEADER], rows)


def noise_table(record: Mapping) -> str:
    """The exact data step and the noise-aware ones by the same draws, per level of added noise."""
    errors = sorted({run["error"] for run in record["runs"]})
    cases = defaultdict(dict)
    for run in record["runs"]:
        cases[run["person"], run["noise"], run["seed"]][run["error"]] = run
    rows = []
    for (person, noise, _), runs in sorted(cases.items(), key=lambda c: (c[0][1], c[0][0])):
        if set(runs) != set(errors):
            continue
        draws = max(runs[0.0]["draws"], key=int)
        exact, *others = (runs[e]["draws"][draws] for e in errors)
        changed = [f"{o['psnr'] - exact['psnr']:+.2f} / {o['ssim'] - exact['ssim']:+.3f}" for o in others]
        levels = [f"{100 * runs[0.0][k]:.1f}" for k in ("added", "found")]
        rows.append(
            [f"`{person}`", f"{100 * noise:g}", *levels, f"{exact['psnr']:.2f} / {exact['ssim']:.3f}", *changed]
        )
    header = ["person", "noise, % of the maximum", "% of the range", "found", "exact: PSNR / SSIM"]
    return table(header + [f"r = {e:g}" for e in errors if e], rows)


def write_tuning(docs: Path, configs: Path = Path("configs")) -> list[Path]:
    """Fill docs/explanation/presets.md from the JSON in docs/; the files written."""
    page, written = page_of(docs, "presets.md"), []
    record = json.loads((docs / "tuning_mri.json").read_text(encoding="utf-8"))
    config = json.loads((configs / "inference.json").read_text(encoding="utf-8"))
    presets, noise = config["presets"], config["displayable_configs"]["noise"][0]
    texts = {
        "presets": preset_table(record, record["base"], noise, presets, docs),
        "tuning": tuning_table(record, record["base"]),
    }
    if (docs / "tuning_noise.json").exists():
        texts["noise"] = noise_table(json.loads((docs / "tuning_noise.json").read_text(encoding="utf-8")))
    for name, text in texts.items():
        if fill(page, name, text) and page not in written:
            written.append(page)
    return written


if __name__ == "__main__":
    with plain_endings():
        for path in write_tuning(Path("docs")):
            print(f"wrote {path}")
