"""Values that make no sense end a run before any work, in words that name the option, the value and what is allowed."""

import json
import re

import pytest
import torch
from monai.bundle import ConfigParser

from interslice.files.failure import failure_of
from interslice.prior.training import check_training
from tests.support.scans import ROOT

INFERENCE = ["inference"]
EVALUATE = ["inference", "evaluate"]
CT = ["inference", "task_svct", "evaluate"]
SVCT = ["inference", "task_svct"]
KSPACE = ["inference", "task_csmri", "evaluate"]
STACKS = ["inference", "task_stacks"]
TRAIN, TRAIN_CT, ADAPT = ["train"], ["train", "train_ct"], ["train", "adapt"]


def solver(name):
    return ["inference", f"solver_{name}"]


TABLE = [
    (INFERENCE, "seed", [-1, 1.5, "x", True], "seed must be a whole number from 0"),
    (INFERENCE, "model", ["x", 3, []], "model must be one of auto, small, large"),
    (CT, "model", ["x"], "model must be one of auto, small, large"),
    (INFERENCE, "preset", ["x", 3, []], "preset must be one of best, fast, sharp"),
    (CT, "preset", ["x"], "preset must be one of best, fast, sharp"),
    (
        INFERENCE,
        "noise_level",
        ["x", -0.1, 1, True, float("nan")],
        'noise_level must be "auto" or a number from 0, below 1',
    ),
    (INFERENCE, "data_consistency#error", [0, -1, "x"], "error must be a number above 0"),
    (INFERENCE, "num_steps", [0, -3, 2.5, "x", 601], "(?i)num_steps must"),
    (INFERENCE, "start_fraction", [0, -0.1, 1.5, "x"], "start_fraction"),
    (INFERENCE, "eta", [-0.1, 1.1, "x", float("nan")], "eta must be a number from 0, up to 1"),
    (INFERENCE, "sigma_rule", ["none", 1, [1, 2]], "sigma_rule must be one of"),
    (INFERENCE, "slice_axis", [True, "z", 3, -1, [], [0, 5]], "slice_axis must be 0, 1, 2"),
    (INFERENCE, "slice_batch_size", [0, -8, 2.5, "x"], 'slice_batch_size must be a whole number from 1.*"auto"'),
    (INFERENCE, "precision", ["half", 16], "precision must be one of auto, float32, tf32, bfloat16"),
    (INFERENCE, "volumes_on", ["ram", 1], "volumes_on must be one of auto, device, host, disk"),
    (INFERENCE, "compile", ["x", 2], "compile is on or off"),
    (INFERENCE, "num_draws", [0, -1, 2.5, "x"], "num_draws must be a whole number from 1"),
    (INFERENCE, "antithetic", ["x", 2], "antithetic is on or off"),
    (INFERENCE, "eps_after_data", ["x", 2], "eps_after_data is on or off"),
    (INFERENCE, "skip_air", ["x", 2], 'skip_air, unless "auto", is on or off'),
    (INFERENCE, "subject#margin", [-1, 2.5, "x"], "margin must be a whole number from 0"),
    (INFERENCE, "subject#threshold", ["x", float("nan")], "threshold must be a number"),
    (INFERENCE, "sampler#progress", ["x"], "progress is on or off"),
    (INFERENCE, "sampler#timesteps", [[], [5, 5], [2000, 5], "x", [5.5, 1], {"a": 1}], "timesteps must descend"),
    (INFERENCE, "guide_registration", ["x", 3, []], "guide_registration must be one of auto, header"),
    (INFERENCE, "guided#at_check", ["x", 2], "at_check is on or off"),
    (INFERENCE, "noise", ["rice", 3, []], "noise must be one of"),
    (INFERENCE, "noise_field", ["slerp"], "noise_field must be a noise field"),
    (INFERENCE, "start", ["x", 3], "start must be nothing or refer to"),
    (INFERENCE, "finish", ["x", 3], "finish must be nothing or refer to"),
    (INFERENCE, "observer", ["x", 3], "observer must be nothing or"),
    (INFERENCE, "evidence", ["x", 2], "evidence is on or off"),
    (INFERENCE, "resample_shear", ["x", 2], "resample_shear is on or off"),
    (INFERENCE, "prior_spacing", [0, -1, "x"], "prior_spacing must be a number of mm above 0"),
    (INFERENCE, "judge#slack", [0, -1, "x"], "slack must be a number above 0"),
    (INFERENCE, "report", ["x", 2], "report is on or off"),
    (INFERENCE, "write_cases#beside", ["x", 2], "beside is on or off"),
    (INFERENCE, "deidentify", ["x", 2], "deidentify is on or off"),
    (INFERENCE, "skip_finished", ["x", 2], "skip_finished is on or off"),
    (INFERENCE, "resume", ["x", 2], "resume is on or off"),
    (INFERENCE, "save_minutes", [-1, "x", float("inf")], "save_minutes must be a number of minutes from 0"),
    (INFERENCE, "modality", ["XX", 5], "modality must be one of MR, CT"),
    (INFERENCE, "output_format", ["dcm", 5], "output_format must be one of nifti, dicom, both"),
    (INFERENCE, "max_gigabytes", [0, -1, "x", float("nan")], "max_gigabytes must be a number of GB above 0"),
    (INFERENCE, "max_memory", ["x", -1, []], 'max_memory must be "auto", "off", or a number of GB above 0'),
    (INFERENCE, "window", [[1, 1], [1, -1], [0], 5, "x", [0, float("nan")]], "window must be two rising numbers"),
    (INFERENCE, "device", ["x", "cuda:99", 5.5], "device .* cannot be used .*: leave --device out"),
    (STACKS, "guided#at_check", ["x"], "at_check is on or off"),
    (STACKS, "combine", ["patient", 3, []], "combine must be one of auto, folder, all, none"),
    (STACKS, "rounds", [-1, 1.5, "x", True], "rounds must be a whole number from 0"),
    (STACKS, "motion", ["x", 2], "motion is on or off"),
    (STACKS, "outliers", ["x", 2], "outliers is on or off"),
    (STACKS, "even", ["x", 2], "even is on or off"),
    (STACKS, "poses", [2.5, [1], True], "poses must be a path"),
    (STACKS, "reference", [0, -1, True, " ", [1]], "reference must be the name of a stack, or its number from 1"),
    (SVCT, "inferer#share", [-0.1, 1.1, "x"], "share must be a number from 0, up to 1"),
    (INFERENCE, "debug", ["x", 2], "debug is on or off"),
    (INFERENCE, "weights#kind", ["x"], "kind must be one of percentiles, hounsfield"),
    (INFERENCE, "weights#largest", [0, -1, "x"], "largest must be a number of GB above 0"),
    (INFERENCE, "prior#prediction", ["x", [1]], "prediction must be one of"),
    (INFERENCE, "prior#multiple", [0, -8, "x"], "multiple must be a whole number from 1"),
    (INFERENCE, "prior#clip", [[1, -1], 5], "clip must be two rising numbers"),
    (INFERENCE, "times", ["x", -1, [], "5:2", "1:2:0", [0, "x"], True], 'times must be "all", the number of a volume'),
    (INFERENCE, "time_noise", ["x", 1], "time_noise must be one of same, own"),
    (INFERENCE, "inside", ["x", 2], "inside is on or off"),
    (INFERENCE, "mask_dir", ["nowhere/at/all"], "mask_dir nowhere/at/all does not exist"),
    (INFERENCE, "inferer#margin", [-1, 2.5, "x"], "margin must be a whole number from 0"),
    (INFERENCE, "inferer#threshold", ["x", float("nan")], "threshold must be a number"),
    (INFERENCE, "operator#axis", [3, "z", True], "axis must be 0, 1, 2"),
    (INFERENCE, "operator#thickness", [0, -1, "x", []], "thickness must be a number of mm above 0"),
    (
        INFERENCE,
        "operator#gap",
        ["x", [], float("inf")],
        "gap must be a number of mm.*negative for slices that overlap",
    ),
    (INFERENCE, "operator#profile", ["x"], "profile must be one of"),
    (INFERENCE, "operator#packages", [0, -1, 1.5, "x"], "packages must be a whole number from 1"),
    (INFERENCE, "operator#in_plane", ["x", 1], "in_plane must be one of voxels, measured"),
    (INFERENCE, "operator#spacing", [0, -1, "x", [1, 1]], "spacing must be a number of mm above 0"),
    (INFERENCE, "operator#ratio", [1, 20, "x"], "ratio"),
    (INFERENCE, "data_consistency#iterations", [0, -5, 2.5], "iterations must be a whole number from 1"),
    (INFERENCE, "data_consistency#tolerance", [-1, "x"], "tolerance must be a number from 0"),
    (INFERENCE, "baselines#cubic#order", [-1, 6, "x"], "order must be a whole number from 0"),
    (EVALUATE, "measurement_noise", [-1, 1, "x"], "measurement_noise must be a share of the volume's maximum from 0"),
    (INFERENCE, "total_variation_weight", [-1, "x"], "weight must be a number from 0"),
    (INFERENCE, "baselines#total_variation#iterations", [0, -1, 2.5], "iterations must be a whole number from 1"),
    (EVALUATE, "compare", ["x", 2], "compare is on or off"),
    (EVALUATE, "tv_weight", [-1, 0, "x"], "tv_weight must be a number above 0"),
    (CT, "beam", ["helical", 1], "beam must be one of"),
    (CT, "num_views", [1, -30, 2.5, "x"], "num_views must be a whole number from 2"),
    (CT, "arc", [0, -90, 361, "x"], "arc must be a number of degrees above 0, up to 360"),
    (CT, "photons", [0, -1, "x"], "photons must be a number above 0"),
    (CT, "electronic_noise", [-1, "x"], "electronic_noise"),
    (CT, "total_variation_weight", [0, -1, "x"], "weight must be a number above 0"),
    (CT, "ray_weights", ["counts", 1, []], "ray_weights must be one of auto, transmission, none"),
    (SVCT, "remove_rings", ["x", 2], "remove_rings is on or off"),
    (SVCT, "beam_hardening", ["x", 20, 300, [0.0], [-1.0, 2.0], ["x"]], "beam_hardening must be"),
    (SVCT, "truncation", ["x", 1], "truncation must be one of leave, extrapolate, grid"),
    (CT, "hounsfield#low", [1000, "x"], "HU"),
    (CT, "operator#shape", ["x", 5, 1e-30, [8, 8], [8, 8, 0]], "whole numbers of voxels"),
    (CT, "operator#spacing", ["x", 0, -1, [1, 1], [1, 1, "x"]], "voxel sizes|spacing"),
    (CT, "operator#center", ["x", 5, [1, 2], [1, 2, None]], "center"),
    (CT, "hounsfield#water", [0, -1, None], "water must be an attenuation in 1/mm above 0"),
    (CT, "finish#rho", [0, -1, "x"], "rho must be a number above 0"),
    (CT, "finish#iterations", [0, -1], "iterations must be a whole number from 1"),
    (CT, "data_consistency#rho", [0, -1, "x"], "rho must be a number above 0"),
    (CT, "data_consistency#iterations", [0, -1], "iterations must be a whole number from 1"),
    (CT, "baselines#least_squares#iterations", [0, -1], "iterations must be a whole number from 1"),
    (CT, "operator#num_columns", [0, 2.5], "num_columns must be a whole number from 1"),
    (CT, "operator#column_offset", ["x"], "column_offset must be a number of mm"),
    (CT, "operator#pitch", [10, -3.5], "makes a helix of a cone beam, the beam is 'parallel'"),
    (CT, "operator#detector", ["x", 1], "detector must be one of"),
    (KSPACE, "acceleration", [0.5, 0, -4, "x"], "acceleration must be a number from 1"),
    (KSPACE, "num_coils", [0, -1, 2.5, "x"], "num_coils must be a whole number from 1"),
    (KSPACE, "center_fraction", [0, -1, 1.5, "x"], "center_fraction must be a number above 0, up to 1"),
    (KSPACE, "operator#phase_axis", [2, "x", True], "phase_axis must be 0 or 1"),
    (KSPACE, "pattern", ["spiral", 1], "pattern must be one of"),
    (KSPACE, "kspace_noise", [-1, 1, "x"], "kspace_noise must be a share of the volume's maximum from 0, below 1"),
    (KSPACE, "total_variation_weight", [0, -1, "x"], "weight must be a number above 0"),
    (solver("daps"), "noise_std", [0, -1, "x"], "noise_std must be a number above 0"),
    (solver("daps"), "data_consistency#spread", [0, -1, "x"], "spread must be a number above 0"),
    (solver("ddnm_plus"), "noise_std", [-1, "x"], "noise_std must be a number from 0"),
    (solver("dps"), "data_consistency#scale", [0, -1, "x"], "scale must be a number above 0"),
    (solver("mbir"), "data_consistency#weight", [0, -1, "x"], "weight must be a number above 0"),
    (solver("mbir"), "data_consistency#cg_iterations", [0, -1], "cg_iterations must be a whole number from 1"),
    (solver("diffpir"), "data_consistency#scale_by_noise", ["x"], "scale_by_noise is on or off"),
    (solver("red_diff"), "data_consistency#learning_rate", [0, -1, "x"], "learning_rate must be a number above 0"),
    (["inference", "trajectory"], "observer#neighbours", [0, -1, "x"], "neighbours must be a whole number"),
    (["inference", "trajectory"], "observer#draw", [-1, "x"], "draw must be an index"),
    (TRAIN, "seed", [-1, "x"], "seed must be a whole number from 0"),
    (TRAIN, "max_epochs", [0, -1, 2.5, "x"], "max_epochs must be a whole number from 1"),
    (TRAIN, "val_interval", [0, -1], "val_interval must be a whole number from 1"),
    (TRAIN, "epoch_length", [0, -1], "epoch_length must be a whole number from 1"),
    (TRAIN, "learning_rate", [0, -1, "x"], "learning_rate must be a number above 0"),
    (TRAIN, "ema_momentum", [0, -1, 2, "x"], "ema_momentum must be a number above 0, up to 1"),
    (TRAIN, "patch_size", [33], "patch_size must be a multiple of 8.*got 33: take 32 or 40"),
    (TRAIN, "patch_size", [0, -8, "x"], "patch_size must be a whole number from 1"),
    (TRAIN, "model", ["medium", 1], "model must be one of small, large"),
    (TRAIN, "max_minutes", [0, -1, "x"], "max_minutes must be a number of minutes above 0"),
    (TRAIN, "batch_size", [0, -1], "batch_size must be a whole number from 1"),
    (TRAIN, "foreground", ["x", float("inf")], "foreground must be a number"),
    (TRAIN, "coarser", ["x", 2], "coarser is on or off"),
    (TRAIN, "coarser_sizes", [[2, 1], 5, "x", [0, 2]], "coarser_sizes must be two rising numbers"),
    (TRAIN, "volume_weights", [5, "x"], "volume_weights must be a mapping"),
    (TRAIN, "grow", ["x", 2, True], "grow is on"),
    (TRAIN, "compile", ["x", 2], "compile is on or off"),
    (TRAIN, "num_workers", [-1, 2.5], "num_workers must be a whole number from 0"),
    (TRAIN, "resume", ["x", 2], "resume is on or off"),
    (TRAIN, "max_gigabytes", [0, -1, "x"], "max_gigabytes must be a number of GB above 0"),
    (TRAIN, "max_memory", ["x", -1], 'max_memory must be "auto", "off", or a number of GB above 0'),
    (TRAIN, "debug", ["x", 2], "debug is on or off"),
    (TRAIN, "resample_shear", ["x", 2], "resample_shear is on or off"),
    (TRAIN_CT, "hu_window", [[1000, -1000], [0], 5], "hu_window must be two rising numbers"),
    (ADAPT, "max_epochs", [0, -1], "max_epochs must be a whole number from 1"),
    (ADAPT, "patch_size", [33], "patch_size must be a multiple of 8"),
]
FREE = {
    "bundle_root", "validation_dir", "model_name", "pretrained", "teacher", "guide",  # paths: tests/files/test_paths.py
    "series", "unit",  # text that is compared or shown
    "displayable_configs", "imports", "initialize", "run", "handlers", "+handlers", "evaluate", "schedule", "scale",
    "cut", "validate", "train",
    "share",  # of ranks, which there are none of without torchrun: tests/test_multi_gpu.py
    "load_last",  # same_data: built after the volumes are found
}  # fmt: skip
"""Ids that may have any value, or have parts of their own."""


def cases():
    for names, option, values, words in TABLE:
        for i, value in enumerate(values):
            marks = [pytest.mark.slow] if i else []
            yield pytest.param(names, option, value, words, id=f"{names[-1]}-{option}-{value}", marks=marks)


@pytest.mark.parametrize(("names", "option", "value", "words"), list(cases()))
def test_a_value_without_sense_ends_the_run_before_any_work(names, option, value, words, tmp_path, monkeypatch):
    """The data do not exist: were they looked for first, the message would say so."""
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config([f"configs/{name}.json" for name in names])
    parser.update({"dataset_dir": str(tmp_path / "none"), "output_dir": str(tmp_path / "out"), option: value})
    with pytest.raises(Exception, match="") as refused:
        parser.get_parsed_content("initialize")
        parser.get_parsed_content("run")
    assert not list(tmp_path.iterdir())
    failure = failure_of(refused.value, ["inference", f"--{option}", str(value)])
    last = failure.said.splitlines()[-1]
    assert failure.status == 2 and not failure.fault, failure
    assert re.search(words, last), last
    assert repr(value) in last or str(value) in last, last
    assert option in last, last


def plain_ids():
    """(config, id) of everything that has a plain value, and so can have a wrong one."""
    for path in sorted((ROOT / "configs").glob("*.json")):
        if path.stem != "metadata":
            for key, value in json.loads(path.read_text(encoding="utf-8")).items():
                if (
                    not key.endswith("_target_")
                    and not isinstance(value, dict)
                    and not (isinstance(value, str) and value.startswith("$"))
                ):
                    yield path.stem, key


def test_every_id_of_every_config_is_in_the_table():
    asked = {option.split("#")[0] for _, option, _, _ in TABLE}
    missing = {(stem, key) for stem, key in plain_ids() if key.split("#")[0] not in asked | FREE}
    assert not {m for m in missing if not references(*m)}, missing


def references(stem, key):
    """Whether the value refers to another id, or is a list of transforms or handlers."""
    value = json.loads((ROOT / "configs" / f"{stem}.json").read_text(encoding="utf-8"))[key]
    return (isinstance(value, str) and value.startswith("@")) or (
        isinstance(value, list) and all(isinstance(v, (dict, str)) for v in value)
    )


def test_good_settings_of_a_training_pass():
    check_training(8, patch_size=64, max_epochs=1, num_workers=0, learning_rate=1e-4, max_minutes=0.5)
    check_training(multiple=1, patch_size=33)
    with pytest.raises(ValueError, match="take 8$"):
        check_training(8, patch_size=3)


@pytest.mark.slow
@pytest.mark.parametrize("option", [{"num_draws": -1}, {"window": "[1,1]"}, {"report": "x"}, {"skip_finished": "x"}])
def test_by_command_line_nothing_is_left_behind(option, tmp_path, run_bundle, tiny_overrides, thick_file):
    finished = run_bundle("inference", "configs/inference.json", tiny_overrides(thick_file) | option)
    name = next(iter(option))
    assert finished.returncode == 2 and re.search(
        rf"^error: {name} (must be|is on or off)", finished.stderr, re.MULTILINE
    )
    assert not (tmp_path / "results").exists()


def test_devices_are_torchs(tmp_path):
    """What the table calls "device" is torch's own message, which names those that there are."""
    with pytest.raises(RuntimeError, match="cpu, cuda"):
        torch.device("x")
