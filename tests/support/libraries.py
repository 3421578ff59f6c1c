"""Other people's libraries, as the tests import them: what has to be done first, here and nowhere else.

- torchvision of the package index is compiled against the CUDA build of torch. Beside a CPU build its compiled
  operators do not load, and its import ends with "operator torchvision::nms does not exist". Declaring the two names
  that it asks for is enough for its Python part, which is all that deepinv and diffusers use.
- k_diffusion imports all that its training needs (clip, wandb, dctorch, which wants numpy 1). Its samplers need none of
  that: the package is registered without running its __init__, so that `from k_diffusion import sampling` works.
"""

import importlib
import importlib.util
import sys

import pytest
import torch

DECLARED = torch.library.Library("torchvision", "FRAGMENT")
REASONS = {
    "k_diffusion": "not a development dependency (it wants numpy 1); `python -m pytest -m network` fetches and runs it"
}


def library(name):
    """Import a library or skip the test, with the reason."""
    if name in ("deepinv", "diffusers", "k_diffusion"):
        load_torchvision()
    if name == "k_diffusion" and name not in sys.modules and (spec := importlib.util.find_spec(name)):
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return pytest.importorskip(name, reason=REASONS.get(name, f"{name} is not installed (requirements-dev.txt)"))


def load_torchvision():
    """Import torchvision, with its compiled operators or without."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            DECLARED.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
