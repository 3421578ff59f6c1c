"""A measurement carries its operator: built once when it was read, whole through batches, copies and workers."""

import copy
import re

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, SpatialCrop

from interslice.files.carried import carried
from interslice.files.findings import Findings
from interslice.files.root_cause import root_cause
from interslice.files.source import Source
from interslice.physics import LinearOperator, Measured, operator_of
from interslice.physics.ct import Tomography
from interslice.physics.kspace import CartesianSampling
from interslice.physics.measurement import origin_of, reconstructed
from interslice.physics.thick import ScalePercentilesd, ThroughPlaneSampling
from tests.support.helpers import measured, normal, scan
from tests.support.scans import EVALUATE, INFERENCE, chest_voxels, head_voxels, thick_voxels, write_volume


def same_operator(a, b):
    """Equal in all that they do, whichever process built them."""
    x = normal(*a.domain_shape)
    return type(a) is type(b) and torch.equal(a.forward(x), b.forward(x)) and a.slice_axes == b.slice_axes


def test_an_operator_stays_itself_in_copies_and_in_what_is_computed():
    y = measured(normal(6, 5, 3))
    operator = operator_of(y)
    for other in (y.clone(), copy.deepcopy(y), 2 * y - 1, y.to(torch.float64), SpatialCrop(roi_slices=(slice(2),))(y)):
        assert operator_of(other) is operator
    assert copy.copy(operator) is not operator  # who wants another, gets one


def test_each_case_of_a_batch_gets_its_own_back():
    items = [measured(normal(6, 5, 3, seed=i), origin=(float(i), 0.0, 0.0)) for i in range(3)]
    batch = list_data_collate(items)
    assert isinstance(batch, MetaTensor) and batch.shape == (3, 1, 6, 5, 3)
    for item, back in zip(items, decollate_batch(batch), strict=True):
        assert operator_of(back) is operator_of(item)
        assert torch.equal(back.affine, item.affine)


def test_torch_collates_what_is_carried_by_a_rule_that_monai_uses_too():
    """What this leans on: a table of torch's that is not in its documentation, looked up by class and superclass."""

    @carried
    class Kind:
        def __len__(self):
            return 7  # a sequence to all appearances

    class Special(Kind):
        pass

    values = [Kind(), Special()]
    items = [MetaTensor(torch.zeros(1, 2), meta={"value": v}) for v in values]
    for loaded in (list_data_collate(items), next(iter(DataLoader(items, batch_size=2)))):
        assert [item.meta["value"] for item in decollate_batch(loaded)] == values
    assert copy.deepcopy(items[0]).meta["value"] is values[0]


SCANNERS = {
    "thick": (ThroughPlaneSampling(), lambda: scan(torch.from_numpy(thick_voxels()), (1.0, 1.0, 4.0))),
    "ct": (Tomography(num_views=8), lambda: projections(Tomography(num_views=8))),
    "k-space": (CartesianSampling(num_coils=2, acceleration=2), lambda: kspace(CartesianSampling(num_coils=2))),
}


def projections(scanner):
    volume = scan(torch.from_numpy(chest_voxels((16, 16, 4))), (2.0, 2.0, 2.0))
    operator = scanner.for_volume(volume)
    meta = {"geometry": operator.geometry, "grid": operator.grid}
    return MetaTensor(operator.forward(volume.as_tensor()), meta=meta)


def kspace(scanner):
    volume = scan(torch.from_numpy(head_voxels((24, 28, 4))), (1.0, 1.0, 2.0))
    operator = scanner.for_volume(volume)
    meta = {"mask": operator.mask, "volume_shape": operator.domain_shape[:2]}
    return MetaTensor(operator.forward(volume.as_tensor()[0])[None], affine=volume.affine, meta=meta)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", SCANNERS)
def test_an_operator_comes_through_worker_processes(name, workers):
    scanner, measurement = SCANNERS[name]
    items = [{"image": measurement()} for _ in range(3)]
    expected = operator_of(Measured("image", scanner)(dict(items[0]))["image"])
    loader = DataLoader(Dataset(items, Measured("image", scanner)), batch_size=1, num_workers=workers)
    for batch in loader:
        (back,) = decollate_batch(batch["image"])
        assert same_operator(operator_of(back), expected)


def test_a_cached_dataset_keeps_it():
    items = [{"image": scan(normal(6, 5, 3))}]
    dataset = CacheDataset(items, Compose([Measured("image", ThroughPlaneSampling())]), progress=False)
    assert operator_of(dataset[0]["image"]) is operator_of(dataset[0]["image"])


def test_who_carries_none_is_told_what_to_do():
    for measurement in (scan(normal(6, 5, 3)), torch.zeros(1, 2, 2, 2)):
        with pytest.raises(ValueError, match="carries no operator: let interslice.physics.Measured"):
            operator_of(measurement)


def test_a_measurement_that_does_not_fit_is_named():
    volume = scan(normal(6, 5, 3), (1.0, 1.0, 1.0))
    volume.meta["filename_or_obj"] = "scan.nii.gz"
    with pytest.raises(ValueError, match=r"^scan\.nii\.gz: no thick axis found"):
        Measured("image", ThroughPlaneSampling())({"image": volume})


def test_a_result_lies_where_the_operator_says_and_is_no_measurement():
    y = measured(normal(6, 5, 3), origin=(1.0, 2.0, 3.0))
    y.meta |= {"filename_or_obj": "a.nii.gz", "other": [1]}
    y.push_applied_operation({"class": "Orientationd"})
    result = reconstructed(torch.zeros(operator_of(y).domain_shape), y, Findings("a scan", num_draws=3))
    assert torch.allclose(result.affine, operator_of(y).domain_affine(y.affine))
    assert result.applied_operations == y.applied_operations and result.meta["filename_or_obj"] == "a.nii.gz"
    assert result.meta["findings"].record()["num_draws"] == 3
    with pytest.raises(ValueError, match="carries no operator"):
        operator_of(result)
    result.meta["other"].append(2)
    assert y.meta["other"] == [1]


def test_a_simulation_says_where_its_volume_was_from_and_no_more():
    volume = scan(normal(6, 5, 8))
    known = {"filename_or_obj": "a.nii.gz", "case": "a", "source": Source()}
    volume.meta |= known | {"secret": "truth"}
    assert origin_of(volume) == known


# -- how often it is built --------------------------------------------------------------------------
RUNS = {
    "thick": ("ThroughPlaneSampling", [], {}, 2),
    "thick, evaluated": ("ThroughPlaneSampling", [EVALUATE], {"compare": True, "evidence": True, "report": True}, 0),
    "few views": (
        "ct.Tomography", ["configs/task_svct.json", EVALUATE],
        {"num_views": 6, "evidence": True, "report": True, "baselines#total_variation#iterations": 5}, 2,
    ),
    "k-space": (
        "kspace.CartesianSampling", ["configs/task_csmri.json", EVALUATE],
        {"num_coils": 2, "evidence": True, "report": True, "baselines#total_variation#iterations": 5}, 2,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_an_operator_is_built_once_for_each_reading_of_a_file(name, run_here, tiny_overrides, tmp_path, monkeypatch):
    """A file is read twice: when all are checked before the first is reconstructed, and for its reconstruction.

    A simulated scan of thick slices brings its operator.
    """
    kind, configs, settings, expected = RUNS[name]
    if not configs:
        source = write_volume(tmp_path / "case.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    else:
        source = write_volume(
            tmp_path / "case.nii.gz", (chest_voxels if "views" in name else head_voxels)((24, 24, 16))
        )
    scanner = {
        "ThroughPlaneSampling": ThroughPlaneSampling, "ct.Tomography": Tomography,
        "kspace.CartesianSampling": CartesianSampling,
    }[kind]  # fmt: skip
    built = []

    def counted(self, measurement):
        built.append(measurement)
        return for_measurement(self, measurement)

    for_measurement = scanner.for_measurement
    monkeypatch.setattr(scanner, "for_measurement", counted)
    run_here("inference", [INFERENCE, *configs], tiny_overrides(source, **settings))
    assert len(built) == expected


# -- the interface ------------------------------------------------------------------------------------
class Dense(LinearOperator):
    """A matrix, with forward and adjoint alone."""

    def __init__(self, matrix):
        super().__init__((2, 3, 2), (matrix.shape[0],))
        self.matrix = matrix

    def forward(self, x):
        return x.flatten(-3) @ self.matrix.T

    def adjoint(self, y):
        return (y @ self.matrix).unflatten(-1, self.domain_shape)


@pytest.mark.parametrize("rows", [5, 12, 20])
def test_every_operator_has_a_pseudo_inverse_and_a_proximal_step(rows):
    a = normal(rows, 12, seed=rows, dtype=torch.float64)
    operator, y, x = Dense(a), normal(rows, seed=1, dtype=torch.float64), normal(2, 3, 2, seed=2, dtype=torch.float64)
    before, exact = x.clone(), {"iterations": 200, "tolerance": 1e-12}
    inverse = torch.linalg.pinv(a)
    torch.testing.assert_close(operator.pseudo_inverse(y, **exact).flatten(), inverse @ y)
    nearest = x.flatten() + inverse @ (y - a @ x.flatten())
    torch.testing.assert_close(operator.pseudo_inverse(y, x, **exact).flatten(), nearest)
    rho = 0.3
    expected = torch.linalg.solve(a.T @ a + rho * torch.eye(12).double(), a.T @ y + rho * x.flatten())
    torch.testing.assert_close(operator.prox(x, y, rho, **exact).flatten(), expected)
    assert torch.equal(x, before)
    torch.testing.assert_close(operator.linear_reconstruction(y), operator.pseudo_inverse(y))


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan")])
def test_a_weight_that_is_none_is_refused(rho):
    for operator in (Dense(normal(3, 12)), ThroughPlaneSampling(axis=2).for_scan((2, 3, 2), (1.0, 1.0, 4.0))):
        x, y = torch.zeros(operator.domain_shape), torch.zeros(operator.range_shape)
        with pytest.raises(ValueError, match="rho must be positive"):
            operator.prox(x, y, rho)


def test_an_operator_that_ties_positions_has_no_parts():
    with pytest.raises(ValueError, match='Dense cannot be restricted .* set "inferer" to "@sampler"'):
        Dense(normal(3, 12)).on((slice(1), slice(None), slice(None)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_part_of_thick_slices_is_measured_as_the_whole(axis):
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 2.5
    whole = ThroughPlaneSampling(axis=axis, gap=0.5).for_scan((6, 7, 8), tuple(spacing))
    box = [slice(1, 5), slice(2, 6), slice(3, None)]
    box[axis] = slice(None)
    part, x = whole.on(tuple(box)), normal(*whole.domain_shape)
    assert torch.equal(part.forward(x[tuple(box)]), whole.forward(x)[tuple(box)])
    np.testing.assert_array_equal(part.domain_affine(torch.eye(4)), whole.domain_affine(torch.eye(4)))
    box[axis] = slice(0, 2)
    with pytest.raises(ValueError, match=f"along axis {axis} together, and a part with 0:2 of them cannot be told"):
        whole.on(tuple(box))


def test_what_is_scaled_still_carries_it():
    y = measured(normal(6, 5, 3))
    assert operator_of(ScalePercentilesd("image")({"image": y})["image"]) is operator_of(y)


def test_a_grid_on_which_the_truth_does_not_lie_is_refused_before_the_work(tmp_path):
    """Else it is found out after the reconstruction, by a metric."""
    parser = ConfigParser()
    parser.read_config([INFERENCE, "configs/task_svct.json", EVALUATE])
    parser.update({"num_views": 6, "operator#spacing": [3.0, 3.0, 3.0]})
    truth = write_volume(tmp_path / "chest.nii.gz", chest_voxels((24, 24, 6)))
    with pytest.raises(RuntimeError) as refused:
        parser.get_parsed_content("preprocessing")({"image": str(truth)})
    said = root_cause(refused.value)
    assert re.search(r"the grid to reconstruct on is \d+ x \d+ x \d+, and the truth has 24 x 24 x 6 voxels", said)
