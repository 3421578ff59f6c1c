"""What a reconstruction found: placed, restored and written, without a list of it anywhere."""

import copy
import json
from dataclasses import dataclass, fields

import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, InvertibleTransform, MapTransform

from interslice.files import findings as module
from interslice.files.dicom_write import KINDS
from interslice.files.findings import MAPS, Findings, findings_of
from interslice.files.restore import Restored, result_volumes
from interslice.physics.measurement import reconstructed
from interslice.sampling import ForegroundInferer
from interslice.sampling.volume_inferer import VolumeInferer
from tests.support.helpers import measured, normal
from tests.support.scans import INFERENCE


def test_a_result_of_no_sampler_has_none():
    assert findings_of(MetaTensor(torch.zeros(1, 2, 2, 2))) == Findings()


def test_changes_are_new_values():
    first = Findings("a scan", "noise", 4, 0.1)
    second = first.with_map("std", torch.ones(1, 2, 2, 2))
    third = second.with_maps(lambda m: 3 * m)
    assert first.maps == {} and float(second.maps["std"].max()) == 1 and float(third.maps["std"].max()) == 3
    assert second.record() == first.record() == {
        "scan": "a scan", "noise": "noise", "num_draws": 4, "relative_residual": 0.1, "resumed_after": 0,
        "doubts": (), "noise_level": None, "antithetic": False, "volumes_on": "device",
        "num_steps": None, "start_fraction": None,
    }  # fmt: skip
    assert json.dumps(third.record())


def test_a_map_without_a_title_is_refused():
    with pytest.raises(ValueError, match="no map is called bias: name it in MAPS"):
        Findings().with_map("bias", torch.zeros(1, 2, 2, 2))
    assert MAPS.keys() < KINDS.keys()  # DICOM has a title for each


def test_batches_and_copies_keep_them_whole():
    found = [Findings(str(i)).with_map("std", torch.full((1, 2, 2, 2), float(i))) for i in range(2)]
    items = [MetaTensor(torch.zeros(1, 2, 2, 2), meta={"findings": f}) for f in found]
    assert [findings_of(i) for i in decollate_batch(list_data_collate(items))] == found
    assert findings_of(copy.deepcopy(items[0])) is found[0]


@dataclass(frozen=True)
class More(Findings):
    """One finding more, as a later version may have."""

    outliers: int = 0


def test_a_new_finding_and_a_new_map_reach_the_end_by_themselves(monkeypatch):
    monkeypatch.setattr(module, "MAPS", MAPS | {"bias": "a new map"})
    values = torch.full((12, 10, 4), -1.0)
    values[4:8, 3:7] = normal(4, 4, 4)

    class Inner(VolumeInferer):
        def reconstruct(self, measurement, network):
            shape = measurement.meta["operator"].domain_shape
            found = More("box", outliers=3).with_map("bias", torch.full((1, *shape), 2.0))
            return reconstructed(torch.zeros(shape), measurement, found)

    result = ForegroundInferer(Inner(), margin=1).reconstruct(measured(values), None)
    found = findings_of(result)
    assert found.record()["outliers"] == 3 and found.maps["bias"].shape == result.shape
    assert float(found.maps["bias"][0, 5, 5].min()) == 2 and float(found.maps["bias"][0, 0].max()) == 0

    class Halved(MapTransform, InvertibleTransform):
        def __call__(self, data):
            return {"image": (data["image"] - 7) / 2}

        def inverse(self, data):
            return {"image": 2 * data["image"] + 7}

    restored = Restored("pred", Compose([Halved("image")]))({"pred": result})["pred"]
    assert findings_of(restored).record()["outliers"] == 3
    volumes = result_volumes(restored)
    assert volumes.keys() == {"recon", "bias"}
    assert torch.equal(torch.as_tensor(volumes["bias"]), 2 * found.maps["bias"])  # the gain, and not the offset
    assert "findings" not in volumes["bias"].meta  # or each map would hold all of them as they were


def test_run_json_holds_every_field(run_here, tiny_overrides, thick_file, tmp_path):
    run_here("inference", INFERENCE, tiny_overrides(thick_file))
    record = json.loads((tmp_path / "results/thick/run.json").read_text())
    assert {f.name for f in fields(Findings)} - {"maps"} <= record.keys()
    assert record["num_draws"] == 1 and record["scan"].startswith("slices 4 mm apart")
