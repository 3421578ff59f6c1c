"""Results that do not agree with their measurements are told apart from those that noise explains."""

import json

import pytest
import torch
from monai.data import MetaTensor

from interslice.files.doubts import Doubts, add_doubts, doubts_of
from interslice.files.findings import Findings, findings_of
from interslice.physics import Judged
from interslice.physics.ct import Grid, ScanGeometry, SparseRadon
from interslice.physics.judge import SLACK, misfit
from tests.support.helpers import measured, normal
from tests.support.scans import INFERENCE

ANGLES = tuple(6.0 * i for i in range(30))


def radon(**changes):
    plain = {
        "beam": "parallel",
        "angles": ANGLES,
        "num_columns": 64,
        "column_size": 3.0,
        "num_rows": 2,
        "row_size": 3.0,
    }
    return SparseRadon(ScanGeometry(**plain | changes), Grid((40, 40, 2), (3.0, 3.0, 3.0)))


def object_():
    x = torch.full((40, 40, 2), -1.0)
    x[8:30, 12:34] = 0.0
    x[10:16, 14:20] = 0.8
    return x


def best_fit(y, operator):
    """|A x - y| / |y| of the least-squares solution: no result fits better."""
    x = operator.pseudo_inverse(y, iterations=60)
    return float((operator.forward(x) - y).norm() / y.norm())


@pytest.mark.parametrize("noise", [0.0, 0.5, 5.0])
def test_a_right_scan_is_not_doubted_whatever_its_noise(noise):
    operator = radon()
    clean = operator.forward(object_())
    y = clean + noise * normal(*clean.shape)
    residual = float((clean - y).norm() / y.norm())  # that of the truth
    assert misfit(residual, y, operator) is None and misfit(best_fit(y, operator), y, operator) is None


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize(
    "wrong",
    [{"column_offset": 12.0}, {"angles": ANGLES[::-1][7:] + ANGLES[:7]}],
    ids=["offset", "order"],
)
def test_what_no_volume_explains_is_doubted(wrong, noise):
    y = radon(**wrong).forward(object_())
    y += noise * normal(*y.shape)
    sentence = misfit(best_fit(y, radon()), y, radon())
    assert "does not agree with the measurement" in sentence
    assert all(cause in sentence for cause in ("column_offset", "angles", "air_counts", "decadic", "dead columns"))


def test_the_limit_is_named_and_kept():
    operator = radon()
    y = operator.forward(object_())
    limit = SLACK * (operator.misfit_limit + operator.noise_norm(y) / float(y.norm()))
    assert misfit(0.99 * limit, y, operator) is None
    assert f"relative_residual is {1.01 * limit:.2g}, and at most {limit:.2g}" in misfit(1.01 * limit, y, operator)
    assert misfit(1.01 * limit, y, operator, 2 * SLACK) is None


def result(residual):
    return MetaTensor(torch.zeros(1, 4, 4, 8), meta={"findings": Findings("a scan", relative_residual=residual)})


def thick(*doubts):
    image = measured(normal(4, 4, 4))
    image.meta |= {"filename_or_obj": "scan.nii.gz", "doubts": Doubts(doubts)}
    return image


def test_doubts_go_from_the_measurement_to_the_result_and_to_the_screen(capsys):
    found = findings_of(Judged("pred")({"image": thick("left and right are not known"), "pred": result(0.9)})["pred"])
    assert found.doubts[0] == "left and right are not known" and "thickness, gap" in found.doubts[1]
    said = capsys.readouterr().err.splitlines()
    assert said == [f"doubt about scan: {sentence}" for sentence in found.doubts]
    assert found.scan == "a scan" and json.loads(json.dumps(found.record()))["doubts"] == list(found.doubts)


def test_nothing_is_said_of_right_results(capsys):
    assert findings_of(Judged("pred")({"image": thick(), "pred": result(1e-6)})["pred"]).doubts == ()
    assert findings_of(Judged("pred", slack=None)({"image": thick(), "pred": result(0.9)})["pred"]).doubts == ()
    assert capsys.readouterr().err == ""


def test_a_slack_that_is_none_is_refused():
    with pytest.raises(ValueError, match="slack must be a number above 0, got 0"):
        Judged("pred", slack=0)


def test_sentences_add_up_on_a_measurement():
    image = thick("one")
    with pytest.warns(UserWarning, match="scan.nii.gz: two"):
        add_doubts(image, "two")
    assert doubts_of(image) == ("one", "two") and doubts_of(image.clone()) == ("one", "two")


def test_run_json_has_no_doubts_of_a_right_scan(run_here, tiny_overrides, thick_file, tmp_path):
    run_here("inference", INFERENCE, tiny_overrides(thick_file))
    assert json.loads((tmp_path / "results/thick/run.json").read_text(encoding="utf-8"))["doubts"] == []
