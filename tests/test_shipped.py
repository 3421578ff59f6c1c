"""What is shipped: the sample is what its script makes of the truth, the prior denoises, no file names a machine."""

import warnings

import nibabel as nib
import numpy as np
import pytest
import torch

from interslice.physics.thick import ScalePercentilesd, ThroughPlaneSampling
from interslice.prior.network import network_for
from interslice.prior.weights import Weights, load_weights, scheduler_for
from tests.support.scans import ROOT

TRUTH = ROOT / "sample_data/mri/truth/colin27_t1.nii.gz"
THICK = ROOT / "sample_data/mri/measured/colin27_t1_5mm.nii.gz"
LEVELS = (50, 150, 299)


def test_the_thick_sample_is_the_truth_seen_by_the_operator():
    truth, thick = nib.load(TRUTH), nib.load(THICK)
    operator = ThroughPlaneSampling(ratio=5).for_grid(truth.shape, truth.header.get_zooms())
    seen = operator.forward(torch.from_numpy(truth.get_fdata()))
    assert np.abs(seen.numpy() - thick.get_fdata()).max() <= 0.5 + 1e-6  # stored as integers
    np.testing.assert_allclose(operator.domain_affine(torch.from_numpy(thick.affine)), truth.affine, atol=1e-6)
    again = ThroughPlaneSampling().for_scan(thick.shape, thick.header.get_zooms())
    assert again.domain_shape == truth.shape


@pytest.mark.parametrize("file", ["models/model.pt", "models/large/model.pt"])
def test_the_shipped_priors_say_what_they_are_for(file):
    with warnings.catch_warnings(action="error"):
        weights = Weights(ROOT / file, "percentiles")
        load_weights(network_for(weights), weights)
    assert weights.scale == {"kind": "percentiles"} and weights.grid == {"spacing": 1.0}
    assert len(scheduler_for(weights).alphas_cumprod) == 1000


@pytest.mark.parametrize("file", ["models/model.pt", "models/large/model.pt"])
def test_the_shipped_prior_removes_noise_from_a_head_it_has_not_seen(file):
    weights = Weights(ROOT / file, "percentiles")
    network = load_weights(network_for(weights), weights).eval()
    volume = torch.from_numpy(nib.load(TRUTH).get_fdata(dtype=np.float32))
    scaled = ScalePercentilesd("image")({"image": volume})["image"]
    alpha_bars = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)
    noise = torch.randn(80, 80, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for t in LEVELS:
            ab = alpha_bars[t]
            noisy = ab.sqrt() * scaled[84, 60:140, :] + (1 - ab).sqrt() * noise
            predicted = network(noisy[None, None], torch.tensor([t]))[0, 0]
            assert float((predicted - noise).square().mean()) < 0.35  # a guess of zero scores 1


@pytest.mark.parametrize("word", ["/root/", "/home/", "/tmp/", "C:\\"])
def test_no_file_names_a_machine(word):
    texts = [p for p in ROOT.rglob("*") if p.suffix in (".json", ".md", ".txt", ".toml") and ".git" not in p.parts]
    texts = [p for p in texts if not {"eval", "runs", "data", "data_ct"} & set(p.relative_to(ROOT).parts[:1])]
    assert [str(p) for p in texts if word in p.read_text(encoding="utf-8")] == []
