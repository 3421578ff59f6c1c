"""The observer sees what the sampler saw and changes nothing; files, pictures and paths of slices."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import list_data_collate
from PIL import Image

from interslice.files.findings import findings_of
from interslice.noise.field import IndependentNoise, SlerpNoise
from interslice.report.trajectory.write import WriteTrajectory
from interslice.sampling.foreground import ForegroundInferer
from interslice.sampling.trajectory import KINDS, Trajectory
from tests.support.helpers import BlurringDenoiser, alpha_bars, measured, normal, sampler
from tests.support.scans import EVALUATE, INFERENCE, OBLIQUE, head_voxels, thick_voxels, write_volume

OVERLAY = "configs/trajectory.json"
NETWORK = BlurringDenoiser(alpha_bars())
THICK, FINE = (12, 10, 4), (12, 10, 20)
Y = measured(normal(*THICK, seed=6), origin=(3.0, -4.0, 5.0))
PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}


class Everything:
    """An observer that copies whole volumes, and passes all on to another observer."""

    def __init__(self, other):
        self.other, self.seen = other, []

    def begin(self, affine):
        self.affine = affine
        self.other.begin(affine)

    def __call__(self, draw, step, t, slice_axis, x_t, x0_hat):
        self.seen.append((draw, step, t, slice_axis, x_t.clone(), x0_hat.clone()))
        self.other(draw, step, t, slice_axis, x_t, x0_hat)


def observed(trajectory, measurement=Y, **arguments):
    """The record of one reconstruction, and all that the sampler showed."""
    everything = Everything(trajectory)
    sampler(arguments.pop("field", SlerpNoise()), observer=everything, **arguments).reconstruct(measurement, NETWORK)
    return trajectory.records[-1], everything


# -- what is kept -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("arguments", [{}, {"eta": 0.5, "eps_after_data": True}, {"slice_axis": "alternate"}], ids=str)
@pytest.mark.parametrize("draw", [0, 1])
def test_slabs_are_what_the_sampler_saw_whatever_it_does_with_it_later(arguments, draw):
    record, everything = observed(Trajectory(neighbours=3, draw=draw), num_draws=2, **arguments)
    steps = [s for s in everything.seen if s[0] == draw]
    assert record.steps == [s[1:4] for s in steps] and len(steps) == 4
    assert record.shape == FINE and set(record.slabs) == set(PLANES)
    for plane, slab in record.slabs.items():
        middle = FINE[PLANES[plane]] // 2
        place = [slice(None)] * 3
        place[PLANES[plane]] = slice(middle - 1, middle + 2)
        assert slab.first + slab.chosen == middle
        for kind, whole in zip(KINDS, (4, 5)):
            expected = torch.stack([s[whole][tuple(place)] for s in steps], -1)
            assert torch.equal(slab.series(kind), expected)
            assert torch.equal(
                slab.paths(kind), expected.movedim((PLANES[plane], 3), (0, 1)).reshape(3, 4, -1)
            )  # a slice's pixels, whatever the axis


def test_observing_changes_no_bit_of_the_result():
    arguments = {"num_draws": 2, "eta": 0.5, "slice_axis": "alternate"}
    plain = sampler(SlerpNoise(), **arguments).reconstruct(Y, NETWORK)
    watched = sampler(SlerpNoise(), observer=Trajectory(), **arguments).reconstruct(Y, NETWORK)
    assert torch.equal(plain.as_tensor(), watched.as_tensor())
    std, of_watched = (findings_of(result).maps["std"] for result in (plain, watched))
    assert torch.equal(std, of_watched)


@pytest.mark.parametrize(
    ("position", "neighbours", "slices", "shown"),
    [
        (0.5, 5, range(8, 13), 10),
        (0.25, 1, range(5, 6), 5),
        (7, 4, range(5, 9), 7),
        (0, 5, range(0, 5), 0),  # at a border the slab moves inwards
        (19, 5, range(15, 20), 19),
        (1.0, 3, range(17, 20), 19),
        (0.5, 99, range(0, 20), 10),  # as many as there are
    ],
)
def test_positions_are_fractions_or_indices(position, neighbours, slices, shown):
    record, everything = observed(Trajectory({"axial": position}, neighbours), num_steps=1)
    (slab,) = record.slabs.values()
    assert range(slab.first, slab.first + slab.count) == slices and slab.first + slab.chosen == shown
    assert torch.equal(slab.x0_hat[0], everything.seen[0][5][:, :, slices.start : slices.stop])
    assert slab.positions == [float(i) for i in slices]


def test_chosen_steps_alone_are_kept():
    trajectory = Trajectory(steps=[3, 0, 3])
    record, everything = observed(trajectory)
    assert record.steps == [everything.seen[i][1:4] for i in (0, 3)]
    assert torch.equal(record.slabs["axial"].x_t[1], everything.seen[3][4][:, :, 8:13])


def test_every_reconstruction_has_a_record_of_its_own_until_they_are_cleared():
    trajectory = Trajectory({"axial": 2}, neighbours=1)
    inferer = sampler(observer=trajectory, num_steps=1)
    others = [Y, measured(normal(*THICK, seed=9), origin=(9.0, 9.0, 9.0))]
    inferer(list_data_collate(others), NETWORK)
    assert [r.affine[0, 3].item() for r in trajectory.records] == [3.0, 9.0]
    assert not torch.equal(*(r.slabs["axial"].x0_hat[0] for r in trajectory.records))
    trajectory.clear()
    assert trajectory.records == []


def test_little_more_than_the_slabs_is_kept():
    record, _ = observed(Trajectory(neighbours=1))
    kept = [x for slab in record.slabs.values() for kind in KINDS for x in getattr(slab, kind)]
    assert sum(x.untyped_storage().nbytes() for x in kept) == 4 * 4 * 2 * (12 * 10 + 12 * 20 + 10 * 20)


def test_in_a_box_the_slab_lies_where_the_box_is():
    values = torch.full((14, 13, 6), -1.0)
    values[5:10, 3:9] = 0.3 * normal(5, 6, 6)
    measurement = measured(values, (1.0, 1.5, 3.0), origin=(5.0, -7.0, 11.0))
    trajectory = Trajectory(neighbours=3)
    inner = sampler(SlerpNoise(), observer=trajectory, num_steps=2)
    result = ForegroundInferer(inner, margin=1).reconstruct(measurement, NETWORK)
    (record,) = trajectory.records
    assert record.shape[:2] == (7, 8)
    for slab in record.slabs.values():
        corner = torch.linalg.inv(result.affine) @ slab.affine[:, 3]
        start = corner[:3].round().int().tolist()
        np.testing.assert_allclose(corner[:3], start, atol=1e-9)
        place = tuple(slice(a, a + n) for a, n in zip(start, slab.x0_hat[-1].shape))
        assert torch.equal(result.as_tensor()[0][place], slab.x0_hat[-1])


# -- refusals ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"planes": {"oblique": 0.5}}, r"planes must name some of axial, coronal, sagittal, got \['oblique'\]"),
        ({"planes": {}}, "planes must name some of"),
        ({"planes": {"axial": 1.5}}, "axial slice must be a fraction from 0.0 to 1.0, or the index .* got 1.5"),
        ({"planes": {"axial": -1}}, "got -1"),
        ({"planes": {"axial": True}}, "got True"),
        ({"planes": {"coronal": "middle"}}, "got 'middle'"),
        ({"neighbours": 0}, "neighbours must be a whole number of slices, at least 1, got 0"),
        ({"neighbours": 2.5}, "got 2.5"),
        ({"steps": []}, "steps must be a list of indices from 0, or null for all"),
        ({"steps": [0, -1]}, r"got \[0, -1\]"),
        ({"draw": -1}, "draw must be an index from 0, got -1"),
    ],
)
def test_bad_arguments_name_value_and_limit(arguments, message):
    with pytest.raises(ValueError, match=message):
        Trajectory(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": [0, 4]}, "step 4 is not among the sampler's 4 steps, 0 to 3: .* raise num_steps"),
        ({"draw": 1}, "draw 1 is not among the sampler's 1 draws, 0 to 0: .* raise num_draws"),
    ],
)
def test_what_the_sampler_never_comes_to_is_refused_before_it_starts(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        WriteTrajectory(Trajectory(**arguments), sampler())


def test_a_slice_outside_is_refused_in_the_first_step():
    calls = []

    def network(x, t):
        calls.append(t)
        return NETWORK(x, t)

    inferer = sampler(observer=Trajectory({"sagittal": 12}))
    with pytest.raises(ValueError, match="sagittal slice 12 is outside .* sagittal slices are 0 to 11: choose among"):
        inferer.reconstruct(Y, network)
    assert len(calls) == 1


def test_a_step_without_a_beginning_is_refused():
    with pytest.raises(RuntimeError, match="call begin"):
        Trajectory()(0, 0, 1, 0, torch.zeros(2, 2, 2), torch.zeros(2, 2, 2))


# -- files ------------------------------------------------------------------------------------------------
PICTURES = ["paths.png", "process.gif", "process.png"]
FILES = sorted([f"{p}_{k}.nii.gz" for p in PLANES for k in KINDS] + PICTURES + ["steps.json"])


def assert_in_place(folder, recon):
    """Slabs of the last x0_hat lie on the result: same world positions, and values up to the intensity scale."""
    for plane, axis in PLANES.items():
        slab = nib.load(folder / f"{plane}_x0_hat.nii.gz")
        voxels = np.argwhere(np.ones(slab.shape[:3]))
        places = nib.affines.apply_affine(np.linalg.inv(recon.affine) @ slab.affine, voxels)
        np.testing.assert_allclose(places, places.round(), atol=1e-3)
        there = recon.get_fdata()[tuple(places.round().astype(int).T)]
        here = slab.get_fdata()[..., -1][tuple(voxels.T)]
        gain, offset = np.polyfit(here, there, 1)
        assert gain > 0 and slab.shape[axis] == 5
        np.testing.assert_allclose(gain * here + offset, there, atol=1e-4 * np.ptp(there))


@pytest.mark.slow
@pytest.mark.parametrize("affine", [None, OBLIQUE @ np.diag([1, 1, 4, 1])], ids=["straight", "oblique"])
def test_the_overlay_writes_slabs_that_lie_on_the_result(affine, run_here, tiny_overrides, tmp_path, capsys):
    path = write_volume(tmp_path / "scan.nii.gz", thick_voxels(), affine, spacing=(1, 1, 4))
    run_here("inference", [INFERENCE, OVERLAY], tiny_overrides(path, num_steps=3))
    case = tmp_path / "results" / "scan"
    assert sorted(p.name for p in (case / "trajectory").iterdir()) == FILES
    assert_in_place(case / "trajectory", nib.load(case / "scan_recon.nii.gz"))
    assert f"wrote {case}: run.json, scan_recon.nii.gz, trajectory/ ({len(FILES)} files)" in capsys.readouterr().out

    record = json.loads((case / "trajectory" / "steps.json").read_text(encoding="utf-8"))
    assert record["noise"].startswith("SlerpNoise") and record["draw"] == 0
    assert [s["step"] for s in record["steps"]] == [0, 1, 2] and [s["slice_axis"] for s in record["steps"]] == [0, 1, 0]
    for s in record["steps"]:
        assert s["alpha_bar"] == pytest.approx(float(alpha_bars()[s["t"]]), abs=1e-6)
        assert s["noise_std"] ** 2 + s["alpha_bar"] == pytest.approx(1, abs=1e-5)
    for plane, axis in PLANES.items():
        middle = record["sampled_shape"][axis] // 2
        described = record["planes"][plane]
        assert described == {"axis": axis, "slices": list(range(middle - 2, middle + 3)), "shown": middle}
    for name in ("axial_x_t", "axial_x0_hat"):
        image = nib.load(case / "trajectory" / f"{name}.nii.gz")
        assert image.shape == (*record["sampled_shape"][:2], 5, 3) and image.get_data_dtype() == np.float32

    with Image.open(case / "trajectory" / "process.gif") as gif:
        assert gif.n_frames == 3 and gif.info["loop"] == 0
    assert (case / "trajectory" / "process.gif").stat().st_size < 1.5e6


@pytest.mark.slow
def test_evaluation_with_comparisons_writes_the_run_s_own_trajectory(run_here, tiny_overrides, tmp_path):
    truth = write_volume(tmp_path / "head.nii.gz", head_voxels((20, 18, 26)))
    overrides = tiny_overrides(
        truth, compare=True, region_dir=None, **{"observer#steps": [1], "observer#neighbours": 5}
    )
    run_here("inference", [INFERENCE, EVALUATE, OVERLAY], overrides)
    case = tmp_path / "results" / "head"
    assert_in_place(case / "trajectory", nib.load(case / "head_recon.nii.gz"))
    assert not (case / "trajectory" / "paths.png").exists()  # nothing moves in a single step


def test_a_step_outside_ends_the_run_before_the_first_network_call(run_here, tiny_overrides, thick_file, tmp_path):
    with pytest.raises(SystemExit) as caught:
        run_here("inference", [INFERENCE, OVERLAY], tiny_overrides(thick_file, **{"sampler#observer": "$None"}))
    assert "thick.nii.gz: the trajectory saw no reconstruction of this case" in str(caught.value)
    assert 'the sampler\'s observer must be it, "sampler#observer"' in str(caught.value)


@pytest.mark.parametrize("task", ["task_svct", "task_csmri"])
def test_the_overlay_appends_to_the_writers_of_a_task_in_any_order(task):
    for overlays in ([OVERLAY, f"configs/{task}.json"], [f"configs/{task}.json", OVERLAY]):
        config = ConfigParser.load_config_files([INFERENCE, *overlays])
        assert config["writers"][0]["_target_"].endswith("SaveResults")
        assert config["writers"][-1]["_target_"].endswith("WriteTrajectory")
        assert len(config["settings"]) > 3  # and the task has added its own


def test_without_the_overlay_nothing_is_observed():
    plain = ConfigParser.load_config_files([INFERENCE])
    assert plain["observer"] is None
    assert "rajectory" not in json.dumps(plain["writers"])


@pytest.mark.slow
def test_the_fields_are_told_apart_by_what_is_written(run_here, tiny_overrides, thick_file, tmp_path):
    """Across sagittal slices, identical noise is the same in each, and independent noise is not."""
    correlations = {}
    for noise in ("identical", "independent"):
        settings = {"noise": noise, "slice_axis": 0, "start_fraction": 1.0}
        run_here(
            "inference", [INFERENCE, OVERLAY], tiny_overrides(thick_file, output_dir=str(tmp_path / noise), **settings)
        )
        slab = nib.load(tmp_path / noise / "thick" / "trajectory" / "sagittal_x_t.nii.gz").get_fdata()[..., 0]
        correlations[noise] = np.corrcoef(slab[2].ravel(), slab[3].ravel())[0, 1]
    assert correlations["identical"] == pytest.approx(1) and abs(correlations["independent"]) < 0.3


def test_the_cases_of_a_batch_are_written_to_their_own_cases(tmp_path):
    trajectory = Trajectory({"axial": 0.5}, neighbours=1, steps=[0])
    inferer = sampler(IndependentNoise(), observer=trajectory, num_steps=1)
    writer = WriteTrajectory(trajectory, inferer)
    writer.start()
    inferer(list_data_collate([Y, measured(normal(*THICK), origin=(7.0, 0.0, 0.0))]), NETWORK)
    result = {"image": measured(normal(*THICK)), "pred": measured(normal(*THICK))}
    taken = [writer.take(result) for _ in "ab"]
    writer.start()  # the next batch may begin before they are written
    for case, one in zip("ab", taken):
        writer.write(one, tmp_path / case)
    origins = [nib.load(tmp_path / c / "trajectory" / "axial_x_t.nii.gz").affine[0, 3] for c in "ab"]
    assert origins == [3.0, 7.0]
    with pytest.raises(RuntimeError, match="saw no reconstruction"):
        writer.take(result)
