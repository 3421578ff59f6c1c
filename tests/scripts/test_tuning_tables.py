"""The figures of docs/explanation/presets.md follow from the JSON beside it."""

import json
import shutil

from scripts.studies.tune_mri import BASE, RATIO
from scripts.studies.tuning_tables import gains, write_tuning
from tests.support.scans import ROOT


def test_the_page_holds_what_the_json_says(tmp_path):
    for name in ("explanation/presets.md", "tuning_mri.json", "tuning_noise.json"):
        shutil.copy(ROOT / "docs" / name, tmp_path)
    for path in (ROOT / "docs").glob("benchmark_*.json"):
        shutil.copy(path, tmp_path / path.name)
    write_tuning(tmp_path, ROOT / "configs")
    page = (ROOT / "docs/explanation/presets.md").read_text(encoding="utf-8")
    assert (tmp_path / "presets.md").read_text(encoding="utf-8") == page and page.count("| ---") >= 3


def test_no_preset_lost_to_interpolation_or_total_variation_on_anyone_of_the_tuning():
    record = json.loads((ROOT / "docs/tuning_mri.json").read_text(encoding="utf-8"))
    config = json.loads((ROOT / "configs/inference.json").read_text(encoding="utf-8"))
    found, noise = gains(record), config["displayable_configs"]["noise"][0]
    for settings in config["presets"].values():
        setting = record["base"] | {"noise": noise}
        setting |= {name: settings[name] for name in ("num_steps", "start_fraction")}
        people = found[json.dumps(setting, sort_keys=True), RATIO, settings["num_draws"]]
        assert len({p["person"] for p in people}) >= 3
        for person in people:
            baselines = record["baselines"][person["person"]][str(RATIO)]
            assert person["psnr"] > max(0, baselines["total_variation"]["psnr"] - baselines["cubic_consistent"]["psnr"])


def test_the_base_of_the_tuning_is_what_the_config_says():
    config = json.loads((ROOT / "configs/inference.json").read_text(encoding="utf-8"))
    for name in ("slice_axis", "eta", "sigma_rule", "antithetic"):
        assert BASE[name] == config[name]
    assert (
        config["start"]["otherwise"] == f"@baselines#{BASE['start']}"
        and config["displayable_configs"]["noise"][0] == BASE["noise"]
    )
