"""Distillation: what a student is to predict, and which teachers it may have."""

import pytest
import torch
from monai.inferers import DiffusionInferer
from monai.networks.schedulers import DDIMScheduler

from interslice.prior.teacher import TaughtPrepareBatch, teacher_for
from interslice.prior.weights import load_weights
from tests.support.helpers import GaussianDenoiser, normal
from tests.support.scans import random_network

SCHEDULE = {"num_train_timesteps": 1000, "schedule": "scaled_linear_beta", "beta_start": 0.00085, "beta_end": 0.012}
ABOUT = {"schedule": SCHEDULE, "scale": {"kind": "percentiles"}}


@pytest.fixture
def scheduler():
    return DDIMScheduler(**SCHEDULE, clip_sample=False)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "teacher.pt"
    torch.save(random_network(3, **ABOUT).state_dict(), path)
    return path


def test_without_a_teacher_the_noise_is_to_be_predicted(scheduler):
    torch.manual_seed(0)
    _, target, _, given = TaughtPrepareBatch(scheduler)({"image": normal(4, 1, 8, 8)})
    assert torch.equal(target, given["noise"])


def test_the_target_is_the_teachers_prediction_of_the_noisy_image(scheduler):
    """Of an exact denoiser of N(mean, std^2), in closed form."""
    ab = scheduler.alphas_cumprod
    teacher, images = GaussianDenoiser(ab), normal(6, 1, 8, 8, seed=1)
    _, target, _, given = TaughtPrepareBatch(scheduler, teacher)({"image": images})
    a = ab[given["timesteps"]].reshape(-1, 1, 1, 1)
    noisy = a.sqrt() * images + (1 - a).sqrt() * given["noise"]
    expected = (1 - a).sqrt() * (noisy - a.sqrt() * teacher.mean) / (a * teacher.std**2 + 1 - a)
    assert torch.allclose(target, expected, atol=1e-5)


def test_a_student_that_is_the_teacher_has_nothing_to_learn(scheduler, weights):
    student = load_weights(random_network(5, **ABOUT), weights).eval()
    teacher = teacher_for(weights, **ABOUT)
    images, target, _, given = TaughtPrepareBatch(scheduler, teacher)({"image": normal(4, 1, 8, 8)})
    predicted = DiffusionInferer(scheduler)(images, student, **given)
    assert torch.allclose(predicted, target, atol=1e-5)
    assert not torch.allclose(target, given["noise"], atol=0.1)


def test_the_teacher_is_frozen_and_may_be_of_another_size(scheduler, weights):
    student = random_network(0, (8, 8, 16), **ABOUT)
    teacher = teacher_for(weights, **ABOUT)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert teacher.about["network"] != student.about["network"]
    images, target, _, given = TaughtPrepareBatch(scheduler, teacher)({"image": normal(2, 1, 16, 16)})
    assert not target.requires_grad
    loss = torch.nn.functional.mse_loss(DiffusionInferer(scheduler)(images, student, **given), target)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())


def test_no_path_is_no_teacher():
    assert teacher_for(None, **ABOUT) is None


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"schedule": SCHEDULE | {"beta_end": 0.02}}, "trained with schedule .* and this training has"),
        ({"scale": {"kind": "hounsfield", "low": -1000.0, "high": 1000.0}}, "were trained on .*, and this task brings"),
    ],
)
def test_a_teacher_of_something_else_is_refused(about, words, weights):
    with pytest.raises(ValueError, match=words):
        teacher_for(weights, **ABOUT | about)


def test_a_teacher_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        teacher_for(tmp_path / "none.pt", **ABOUT)
