"""What is doubtful about projections that are read: empty views, counts of zero, detectors that look saturated."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interslice.physics.ct.read import read_projections
from tests.physics.ct.test_read import GEOMETRY, read_quietly, two_boxes, write


@pytest.fixture(scope="module")
def values():
    return two_boxes()


def warned(path):
    with pytest.warns(UserWarning) as seen:
        y = read_projections(path)
    (message,) = [str(w.message) for w in seen]
    assert message.startswith(f"{path}: ")
    return message[len(f"{path}: ") :], y


def test_empty_views_are_named(tmp_path, values):
    changed = values.copy()
    changed[[3, 7]] = 0
    message, y = warned(write(tmp_path, changed))
    assert message == "views [3, 7] are all zero; a view that failed is better left out"
    assert torch.equal(y.as_tensor()[0], torch.from_numpy(changed))


def noisy_counts(values, air=1e4):
    return np.random.default_rng(0).poisson(air * np.exp(-values.astype(float))).astype(np.float32)


def test_counts_of_zero_are_counted_and_become_half_a_count(tmp_path, values):
    counts = noisy_counts(values)
    counts[2, 5, :3], counts[4, 4, 0] = 0, -3
    message, y = warned(write(tmp_path, counts, air_counts=1e4))
    assert (
        message
        == "4 counts are zero or negative and are taken as half a count, where their neighbours do not tell better"
    )
    np.testing.assert_allclose(y.as_tensor()[0, 2, 5, :3], np.log(2e4), rtol=1e-6)
    assert float(y[0, 4, 4, 0]) == float(y[0, 2, 5, 0]) == float(y.max())


@pytest.mark.parametrize("columns", [32, 10], ids=["mostly air", "mostly body"])
def test_a_saturated_detector_is_recognised(tmp_path, values, columns):
    counts = noisy_counts(values)[:, (32 - columns) // 2 :][:, :columns]
    path = write(tmp_path, counts.clip(max=8000), replace(GEOMETRY, num_columns=columns), air_counts=1e4)
    message, _ = warned(path)
    assert "% of the counts are at the maximum, 8000: the detector looks saturated" in message
    assert float(message.split("%")[0]) == pytest.approx(100 * (counts >= 8000).mean(), abs=0.06)


def test_counts_with_their_noise_are_not_called_saturated(tmp_path, values):
    read_quietly(write(tmp_path, noisy_counts(values), air_counts=1e4))
    read_quietly(write(tmp_path, noisy_counts(values, 1e6), air_counts=1e6))


def test_counts_without_noise_are_not_called_saturated(tmp_path, values):
    """Simulated ones: every ray that misses the body has the count of air exactly."""
    assert 0.6 < (values == 0).mean() < 0.8
    read_quietly(write(tmp_path, 1e4 * np.exp(-values), air_counts=1e4))
    inner = values[:, 8:-8]  # a narrower detector: less than half of it sees air
    assert 0.05 < (inner == 0).mean() < 0.5
    read_quietly(write(tmp_path, 1e4 * np.exp(-inner), replace(GEOMETRY, num_columns=16), air_counts=1e4))


def test_one_largest_count_among_few_is_not_called_saturated(tmp_path, values):
    few = replace(GEOMETRY, num_rows=1)
    read_quietly(write(tmp_path, noisy_counts(values[..., :1]), few, air_counts=1e4))
