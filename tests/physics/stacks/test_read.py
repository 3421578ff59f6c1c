"""What a stack is as it was acquired goes with it: its bands are evened, and what its file makes doubtful is said."""

import nibabel as nib
import numpy as np
import pytest

from interslice.files.doubts import doubts_of
from interslice.physics.stacks import LoadStacksd
from interslice.physics.thick import ThroughPlaneSampling
from interslice.usage import UsageError
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


@pytest.mark.parametrize("options", [{"spacing": 1.0}, {"ratio": 4}, {"in_plane": "measured"}])
def test_stacks_have_no_grid_of_their_own(options):
    with pytest.raises(UsageError, match=f"slices#{next(iter(options))} .*--operator#spacing"):
        LoadStacksd("image", slices=ThroughPlaneSampling(**options))


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
    said = [s for s in doubts_of(image) if "bands" in s]
    assert len(said) == (2 if packages > 1 else 0) and all("--slices#packages 1 leaves them" in s for s in said)
    told = image.meta["combined"].record(named=True)["stacks"]
    assert [s["acquired"]["packages"] for s in told] == [packages, packages]


def test_what_is_doubtful_is_said_once_of_the_case_and_not_of_what_is_left_out(banded, recwarn):
    written(banded / "sub-1_acq-zz_T1w.nii.gz", *thick("cor", factor=2, noise=1.0))
    image = LoadStacksd("image")({"image": str(banded), "case": "sub-1_T1w"})["image"]
    said = [str(w.message) for w in recwarn]
    assert said == [f"sub-1_T1w: {s}" for s in doubts_of(image)] and len(said) == len(set(said))
    assert any("acq-zz" in s and "left out" in s for s in said) and not any("acq-zz_T1w.nii.gz: " in s for s in said)
