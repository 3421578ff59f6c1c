"""What a stack is as it was acquired goes with it: its bands are evened, and what its file makes doubtful is said."""

import nibabel as nib
import numpy as np
import pytest

from bundle.files.doubts import doubts_of
from bundle.physics.stacks import LoadStacksd
from bundle.physics.thick import ThroughPlaneSampling
from tests.physics.stacks.volumes import thick


def written(path, voxels, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


@pytest.fixture
def banded(tmp_path):
    """Two stacks of one head, of which every second axial slice is brighter by a fifth."""
    axial, affine = thick("ax", factor=2, noise=1.0)
    axial[..., 1::2] *= 1.2
    written(tmp_path / "sub-1_acq-ax_T1w.nii.gz", axial, affine)
    written(tmp_path / "sub-1_acq-cor_T1w.nii.gz", *thick("cor", factor=2, noise=1.0))
    return tmp_path


def step_of(stack):
    """Mean logarithmic difference of odd and even slices."""
    means = stack.voxels.movedim(stack.axis, 0).flatten(1).mean(1).log()
    return float((means[1::2] - means[::2]).mean())


@pytest.mark.filterwarnings("ignore:.*bands")
@pytest.mark.parametrize("packages, left", [(1, 0.15), (2, 0.0)])
def test_bands_of_a_stack_are_evened_before_it_is_one_of_several(packages, left, banded):
    read = LoadStacksd("image", slices=ThroughPlaneSampling(packages=packages))
    image = read({"image": str(banded), "case": "sub-1_T1w"})["image"]
    axial = next(s for s in image.meta["stacks"] if "acq-ax" in s.name)
    still, _ = thick("ax", factor=2, noise=1.0)
    anatomy = np.log(still.mean((0, 1)))
    anatomy = float((anatomy[1::2] - anatomy[::2]).mean())
    assert step_of(axial) - anatomy == pytest.approx(left, abs=0.06)
    assert any("acq-ax" in said and "bands" in said for said in doubts_of(image)) == (packages > 1)
