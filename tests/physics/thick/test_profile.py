"""Slice profiles: their widths, their integrals, and what a file of one may hold."""

import json

import numpy as np
import pytest
import torch

from interslice.files.profile_table import read_profile
from interslice.physics.thick import ThroughPlaneSampling
from interslice.physics.thick.profile import PROFILES, Table, cumulative, half_width, reach, response
from interslice.physics.thick.through_plane import slice_weights
from interslice.usage import UsageError

TRIANGLE = Table((-2.0, 0.0, 2.0), (0.0, 3.0, 0.0))
depths = np.linspace(-7, 7, 4001)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_thickness_is_the_width_at_half_maximum(profile):
    assert half_width(depths, response(profile, depths, 3.0)) == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("profile", [*PROFILES, TRIANGLE])
def test_the_integral_is_that_of_the_response(profile):
    whole = np.cumsum(response(profile, depths, 3.0))
    integral = cumulative(profile, torch.from_numpy(depths), 3.0).numpy()
    found = (integral - integral[0]) / (integral[-1] - integral[0])
    assert np.abs(found - whole / whole[-1]).max() < 2e-3


@pytest.mark.parametrize("profile", [*PROFILES, TRIANGLE])
def test_little_lies_beyond_the_reach(profile):
    outside = np.abs(depths) > reach(profile, 3.0)
    values = np.abs(response(profile, depths, 3.0))
    assert values[outside].sum() < 0.006 * values.sum()


def test_the_sinc_is_a_box_with_soft_edges():
    """Flat within, steeper than a Gaussian at the edge, next to nothing beyond."""
    z = np.array([0.0, 0.25, 0.5, 1.0])
    sinc, gaussian = response("sinc", z, 1.0), response("gaussian", z, 1.0)
    assert sinc[1] > gaussian[1] + 0.05 and sinc[2] == pytest.approx(0.5, abs=0.01) and abs(sinc[3]) < 0.01


def test_a_triangle_weighs_in_closed_form():
    weights = slice_weights(4, 1.0, 1, 4.0, 4.0, TRIANGLE)  # voxels from -2 to 2 mm
    assert torch.allclose(weights, torch.tensor([[1, 3, 3, 1]], dtype=torch.float64) / 8)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", "position,response\n-2,0\n0,3\n2,0\n"),
        ("p.txt", "# mm  signal\n-2 0\n0\t3  # middle\n\n2 0\n"),
        ("p.json", json.dumps({"position_mm": [-2, 0, 2], "response": [0, 3, 0]})),
        ("q.json", json.dumps([[-2, 0], [0, 3], [2, 0]])),
    ],
)
def test_a_file_is_a_profile(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    scanner = ThroughPlaneSampling(profile=str(tmp_path / name))
    assert scanner.profile == TRIANGLE
    operator = scanner.for_scan((20, 20, 8), (1.0, 1.0, 2.5))
    assert operator.thickness == pytest.approx(2.0)  # at half maximum
    assert torch.allclose(operator.weights.sum(1), torch.ones(8, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.csv", "-2,0\n0,3,1\n", "line 2 of .* is not two numbers"),
        ("p.csv", "-2,0\nx,3\n", "line 2 of .* is not two numbers"),
        ("p.csv", "", "holds no line of two numbers"),
        ("p.csv", "-1,0\n1,1\n", "three depths or more"),
        ("p.csv", "-1,0\n1,1\n0,0\n", "rise, but 1 mm is followed by 0 mm"),
        ("p.csv", "-1,0\n0,nan\n1,0\n", "not finite"),
        ("p.csv", "-1,0\n0,-1\n1,0\n", "mostly positive"),
        ("p.csv", "1,0\n2,1\n3,0\n", "from the middle of the slice"),
        ("p.json", "{}", "position_mm"),
        ("p.json", "[[1,2],[3]]", "list of pairs"),
    ],
)
def test_other_files_are_refused(name, text, words, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=words):
        ThroughPlaneSampling(profile=str(tmp_path / name))


def test_a_file_that_is_not_there():
    with pytest.raises(ValueError, match="there is no file none.csv"):
        read_profile("none.csv")
