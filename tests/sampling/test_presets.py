"""A preset is a default: of the sampler's settings, in every task, below what an overlay or the command line gives."""

import json

import pytest
from monai.bundle import ConfigParser

from interslice.sampling.presets import by_guide, chosen_preset
from interslice.usage import UsageError
from tests.support.scans import INFERENCE, ROOT

IDS = ("num_steps", "start_fraction", "num_draws")
SOLVERS = sorted(path.stem for path in (ROOT / "configs").glob("solver_*.json"))
TABLE = {"a": {"num_steps": 2}, "b": {"num_steps": 3}}


def resolved(*overlays, **given):
    parser = ConfigParser()
    parser.read_config([str(ROOT / INFERENCE), *(str(ROOT / f"configs/{name}.json") for name in overlays)])
    parser.update(given)
    return {name: parser.get_parsed_content(name) for name in IDS}


def written(name):
    return json.loads((ROOT / "configs" / f"{name}.json").read_text(encoding="utf-8"))


def test_a_name_gives_its_settings_and_of_a_list_the_first():
    assert chosen_preset("b", TABLE) == {"name": "b", "num_steps": 3}
    assert chosen_preset(["b", "a"], TABLE) == chosen_preset("b", TABLE)


@pytest.mark.parametrize("name", ["c", "", None, [], 3, {"a": 1}])
def test_another_name_is_refused(name):
    with pytest.raises(UsageError, match="preset must be one of a, b, got "):
        chosen_preset(name, TABLE)


def test_a_guide_goes_before_the_preset_and_what_is_given_before_the_guide():
    guided = resolved(guide="t1.nii.gz")
    assert guided == written("inference")["presets"]["best"] | written("inference")["with_guide"]
    assert resolved(guide="t1.nii.gz", preset="sharp")["num_draws"] == 1
    assert resolved(guide="t1.nii.gz", start_fraction=0.3) == guided | {"start_fraction": 0.3}
    assert by_guide(None, 1, 2) == 2 and by_guide("t1.nii.gz", 1, 2) == 1


@pytest.mark.parametrize("task", ["inference", "task_svct", "task_csmri"])
def test_every_task_has_all_presets_with_all_of_their_ids_and_best_is_the_default(task):
    presets = written(task)["presets"]
    assert list(presets) == ["best", "fast", "sharp"] == written("inference")["displayable_configs"]["preset"]
    overlays = () if task == "inference" else (task,)
    for name, settings in presets.items():
        assert resolved(*overlays, preset=name) == settings and set(settings) == set(IDS)
    assert resolved(*overlays) == presets["best"]
    assert presets["sharp"]["num_draws"] == 1 < presets["best"]["num_draws"]
    passes = {name: s["num_steps"] * s["num_draws"] for name, s in presets.items()}
    assert 3 * passes["fast"] <= passes["best"]


def test_the_ct_task_and_the_kspace_task_keep_the_settings_that_they_were_tuned_with():
    assert resolved("task_svct") == {"num_steps": 10, "start_fraction": 0.01, "num_draws": 4}
    assert resolved("task_csmri") == {"num_steps": 10, "start_fraction": 0.02, "num_draws": 2}


@pytest.mark.parametrize("given", [{"num_steps": 7}, {"start_fraction": 0.3}, {"num_draws": 9}])
def test_what_is_given_goes_before_the_preset(given):
    assert resolved(preset="fast", **given) == written("inference")["presets"]["fast"] | given


def test_a_label_server_sets_steps_and_preset_by_what_it_shows():
    fast = written("inference")["presets"]["fast"]
    shown = {"displayable_configs#preset": "fast", "displayable_configs#num_steps": 7}
    assert resolved(**shown) == fast | {"num_steps": 7}
    assert resolved(**shown | {"displayable_configs#num_steps": ""}) == fast  # a field that was left empty


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("preset", ["best", "fast", "sharp"])
def test_what_a_solver_sets_goes_before_the_preset(solver, preset):
    own = {name: value for name, value in written(solver).items() if name in IDS}
    assert resolved(solver, preset=preset) == written("inference")["presets"][preset] | own
