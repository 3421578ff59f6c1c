"""The picture of the noise fields shows what it says."""

import math

import matplotlib.image
import numpy as np
import pytest
import torch

from interslice.noise.field import PiecewiseSlerpNoise, SlerpNoise
from interslice.noise.markov import OrnsteinUhlenbeckNoise
from scripts import inspect_noise
from tests.support.helpers import normal


@pytest.mark.slow
def test_a_picture_is_written(tmp_path, capsys):
    path = tmp_path / "pictures" / "noise.png"
    inspect_noise.main(["--output", str(path), "--num_slices", "3", "--spacing", "0.5", "--length", "2", "--seed", "1"])
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert matplotlib.image.imread(path).std() > 0.1


@pytest.mark.parametrize(
    ("option", "value"),
    [("num_slices", "1"), ("length", "0"), ("spacing", "0"), ("spacing", "nan"), ("spacing", "inf")],
)
def test_settings_without_a_picture_are_refused(option, value, tmp_path, capsys):
    with pytest.raises(SystemExit):
        inspect_noise.main(["--output", str(tmp_path / "noise.png"), f"--{option}", value])
    assert f"--{option} must be" in capsys.readouterr().err


def test_the_line_is_the_stated_covariance():
    positions = [0.0, 2.0, 4.0, 6.0]
    distances, values = inspect_noise.stated(OrnsteinUhlenbeckNoise(3.0), positions, finer=2)
    assert np.allclose(distances, np.arange(7))
    assert np.allclose(values, np.exp(-np.arange(7) / 3))
    _, values = inspect_noise.stated(SlerpNoise(), positions, finer=1)
    assert np.allclose(values, np.cos(np.pi / 2 * np.arange(4) / 3))
    _, values = inspect_noise.stated(PiecewiseSlerpNoise(spacing=4.0), positions, finer=1)
    assert np.allclose(values, [1, math.sqrt(0.5), 0.5 * 0.5, 0])  # two slices apart: a common anchor, or its two sides


def test_the_points_are_sample_covariances_with_their_error():
    x = normal(2, 200, 200)
    x = torch.stack([x[0], 0.6 * x[0] + 0.8 * x[1]])
    mean, error = inspect_noise.sampled(x, 1)
    assert mean == pytest.approx(float((x[0] * x[1]).mean()), abs=1e-6)
    assert error == pytest.approx(math.sqrt((1 + 0.6**2) / 40_000), rel=0.1)
    assert abs(mean - 0.6) < 4 * error
