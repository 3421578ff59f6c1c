"""The figures of docs/presets.md follow from the JSON beside it."""

import json
import shutil

from scripts.studies.tuning_tables import gains, write_tuning
from tests.support.scans import ROOT


def test_the_page_holds_what_the_json_says(tmp_path):
    for name in ("presets.md", "tuning_mri.json", "tuning_noise.json"):
        shutil.copy(ROOT / "docs" / name, tmp_path / name)
    for path in (ROOT / "docs").glob("benchmark_*.json"):
        shutil.copy(path, tmp_path / path.name)
    write_tuning(tmp_path, ROOT / "configs")
    page = (ROOT / "docs/presets.md").read_text(encoding="utf-8")
    assert (tmp_path / "presets.md").read_text(encoding="utf-8") == page and page.count("| ---") >= 3


def test_no_preset_lost_to_interpolation_on_anyone_of_the_tuning():
    record = json.loads((ROOT / "docs/tuning_mri.json").read_text(encoding="utf-8"))
    presets = json.loads((ROOT / "configs/inference.json").read_text(encoding="utf-8"))["presets"]
    found = gains(record)
    for settings in presets.values():
        setting = record["base"] | {name: settings[name] for name in ("num_steps", "start_fraction")}
        people = found[json.dumps(setting, sort_keys=True), settings["num_draws"]]
        assert len({p["person"] for p in people}) >= 3 and min(p["psnr"] for p in people) > 0
