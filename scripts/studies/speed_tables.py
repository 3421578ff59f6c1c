"""Tables of docs/explanation/speed.md, from the JSON files in docs that TEXTS names.

python -m scripts.studies.speed_tables
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from interslice.files.last_words import plain_endings
from scripts.studies.quality_time import OWN, points
from scripts.studies.tables import fill, page_of, table


def before_text(record: Mapping) -> str:
    """Where the time of a run goes, as version 0.4.0 computed and now."""
    paired, device = record["paired"], record["run"]["device"]
    ways = ("0.4.0", "now")
    rows = [
        [part, *(f"{paired[way]['parts_s'].get(part, 0.0):.2f}" for way in ways)]
        for part in sorted(paired["now"]["parts_s"], key=paired["now"]["parts_s"].get, reverse=True)
    ]
    rows.append(["all", *(f"{paired[way]['whole_run_s']:.2f}" for way in ways)])
    ratio, each = paired["now over 0.4.0"]["median"], paired["now over 0.4.0"]["each"]
    return (
        table(["seconds", *ways], rows) + f"\n\n{device}: {ratio:.2f} of the time ({min(each):.2f} to {max(each):.2f} "
        f"in {paired['pairs']} pairs), after {record['start_up_s']:.0f} s in which the program started."
    )


def quality_text(record: Mapping) -> str:
    """What brings how much, by time; and the first of these that is as good as version 0.4.0."""
    found = sorted(points(record), key=lambda p: p["seconds"])
    own = next((p for p in found if p["network"] == OWN), None)
    rows = [
        [name.replace("_", " "), *["–"] * 5, *figures(baseline)]
        for name, baseline in record["results"].get("baselines", {}).items()
    ]
    for p in found:
        share = "–" if own is None else f"{p['seconds'] / own['seconds']:.2f}"
        said = [p["network"], p["precision"], str(p["steps"]), str(p["draws"])]
        rows.append([*said, f"{p['seconds']:.0f}", share, *figures(p)])
    header = ["network", "precision", "steps", "draws", "seconds", "of 0.4.0's", "PSNR (dB)", "brain", "SSIM",
              "inter-slice error x 1000, coronal"]  # fmt: skip
    text = table(header, rows)
    better = [p for p in found if own is not None and p["network"] != OWN and p["psnr"] >= own["psnr"]]
    if better:
        p = better[0]
        text += (
            f"\n\nThe quickest that is as good as version 0.4.0 ({own['psnr']:.2f} dB): {p['network']} network, "
            f"{p['precision']}, {p['steps']} steps, {p['draws']} draws, {p['psnr']:.2f} dB in "
            f"{100 * p['seconds'] / own['seconds']:.0f} percent of its time."
        )
    return text


def figures(of: Mapping) -> list[str]:
    """The metrics of a row; the brain's where there is a mask of it."""
    brain = f"{of['psnr_inside']:.2f}" if "psnr_inside" in of else "–"
    return [f"{of['psnr']:.2f}", brain, f"{of['ssim']:.3f}", f"{1000 * of['error_coronal']:.2f}"]


def precision_text(record: Mapping) -> str:
    """Ways of computing the network, against float32."""
    results = record["results"]
    base = results["float32"]["seconds"]
    rows = []
    for name, r in results.items():
        timed = [f"{r['seconds']:.3f}", f"{base / r['seconds']:.2f}"] if "seconds" in r else ["–", "–"]
        to = "–" if r["to_float32"] is None else f"{r['to_float32']:.1f}"
        rows.append([name, *timed, to, f"{r['psnr']:.2f}"])
    return table(["way", "seconds a call", "times as fast", "PSNR to float32's volume (dB)", "to the truth"], rows)


def air_text(record: Mapping) -> str:
    """Heads with and without boxes."""
    rows = []
    for name, margins in record["results"].items():
        for without, boxed in ((r["without"], r["with"]) for r in margins.values()):
            saved = 100 * (1 - boxed["seconds"] / without["seconds"])
            gains = [f"{boxed[k] - without[k]:+.3f}" for k in ("psnr", "psnr_subject")]
            rows.append([f"`{name}`", f"{without['seconds']:.0f}", f"{saved:.0f}", f"{without['psnr']:.2f}", *gains,
                         f"{boxed['ssim'] - without['ssim']:+.4f}", f"{boxed['to_without']:.1f}"])  # fmt: skip
    header = ["head", "seconds without", "saved, %", "PSNR without (dB)", "change", "of the subject", "SSIM",
              "PSNR of one to the other"]  # fmt: skip
    return table(header, rows)


def leaner_text(record: Mapping) -> str:
    """Networks by size."""
    small, rows = record["results"]["small"], []
    for name, r in record["results"].items():
        times = [text for way in ("float32", "bfloat16") for text in (f"{r[way]:.3f}", f"{small[way] / r[way]:.2f}")]
        rows.append([name, f"{r['parameters'] / 1e6:.2f}", *times])
    return table(["channels", "million parameters", "float32: seconds a call", "times as fast as small",
                  "bfloat16: seconds a call", "times as fast as small"], rows)  # fmt: skip


TEXTS: dict[str, Callable[[Mapping], str]] = {
    "benchmark_before": before_text, "quality_time": quality_text, "precision": precision_text, "skip_air": air_text,
    "leaner": leaner_text,
}  # fmt: skip
"""By the name of the JSON file, and of the markers in the page."""


def write_speed(docs: Path) -> list[Path]:
    """Fill docs/explanation/speed.md from what is there; the files written."""
    page, written = page_of(docs, "speed.md"), []
    for name, text in TEXTS.items():
        source = docs / f"{name}.json"
        if source.exists() and fill(page, name, text(json.loads(source.read_text(encoding="utf-8")))):
            written = [page]
    return written


if __name__ == "__main__":
    with plain_endings():
        for path in write_speed(Path("docs")):
            print(f"wrote {path}")
