"""Which scans of a patient become stacks of one volume: each reason to leave one out, by name, and the reference."""

from itertools import product

import numpy as np
import pytest
from monai.transforms import Compose, Orientationd

from interslice.files.check import CheckVolumed
from interslice.files.dicom_read import find_stack
from interslice.files.limits import Limits
from interslice.files.member import Group, Member
from interslice.files.read import LoadVolumed
from interslice.physics.stacks.doubts import doubts_about
from interslice.physics.stacks.members import chosen, read_all
from interslice.physics.thick import ThroughPlaneSampling
from tests.physics.stacks.volumes import thick, write_stack
from tests.support.dicom_files import AFFINE, VOXELS, write_series
from tests.support.scans import cut_short, head_voxels, write_volume

READ = Compose([LoadVolumed("image"), CheckVolumed("image"), Orientationd("image", "RAS", labels=None)])


def group_of(*paths):
    return Group(tuple(map(Member.of_file, paths)), "all")


def combined(*paths, reference=None, slices=None):
    """(names of the stacks, the reference first; name -> why of the others; doubts)"""
    group = group_of(*paths)
    taken, left_out = read_all(group, READ, slices or ThroughPlaneSampling())
    stacks, left_out = chosen(taken, left_out, reference, group)
    return [one.name for one in stacks], left_out, doubts_about(stacks, left_out, 1.0)


@pytest.fixture
def three(tmp_path):
    return [write_stack(tmp_path / f"{plane}.nii.gz", plane) for plane in ("ax", "cor", "sag")]


def test_three_orientations_make_one_volume_without_a_doubt(three):
    assert combined(*three) == (["ax.nii.gz", "cor.nii.gz", "sag.nii.gz"], {}, [])


def test_what_is_read_is_what_the_file_holds_on_ras_axes(tmp_path, three):
    voxels, affine = thick("cor")
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = voxels.shape[0] - 1
    path = write_volume(tmp_path / "lps.nii.gz", voxels[::-1], affine @ flipped)
    (one,), _ = read_all(group_of(path), READ, ThroughPlaneSampling(gap=1.0, profile="gaussian"))
    assert np.array_equal(one.stack.voxels.numpy(), voxels)
    assert np.allclose(one.stack.affine.numpy(), affine)
    assert (one.stack.axis, one.stack.thickness, one.stack.profile) == (1, 3.0, "gaussian")
    assert one.record() | {"file": ""} == {
        "name": "lps.nii.gz", "file": "", "plane": "coronal", "slices": 6, "thickness_mm": 3.0, "pitch_mm": 4.0,
        "in_plane_mm": 1.0, "contrast": None, "frame": None, "acquired": {},
    }  # fmt: skip


def nan(path):
    voxels, affine = thick("cor")
    voxels[3, 3, 3] = np.nan
    return write_volume(path, voxels, affine)


def four_d(path):
    voxels, affine = thick("cor")
    return write_volume(path, np.stack([voxels, voxels + 1], -1), affine)


def thin(path):
    voxels, affine = thick("cor")
    return write_volume(path, voxels[:, :2], affine)


BAD = {
    "nan": (nan, "NaN"), "4-D": (four_d, "expected one volume"), "thin": (thin, "2 slices, and a stack has at least 3"),
    "cut": (lambda path: cut_short(write_stack(path, "cor")), "damaged"),
    "copy": (lambda path: write_stack(path, "ax", shift=(1, 0, 0)), "the same voxels as ax.nii.gz"),
    "empty": (lambda path: path.write_bytes(b"") and path or path, "empty"),
    "far": (lambda path: write_stack(path, "cor", shift=(200, 0, 0), seed=9), "no place in common"),
    "isotropic": (lambda path: write_volume(path, head_voxels((24, 24, 24), 3)), "without a thick axis"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_one_is_left_out_and_the_others_go_on(kind, three, tmp_path):
    make, why = BAD[kind]
    path = make(tmp_path / "x_bad.nii.gz")
    names, left_out, said = combined(*three, path)
    assert names == ["ax.nii.gz", "cor.nii.gz", "sag.nii.gz"]
    assert list(left_out) == ["x_bad.nii.gz"] and why in left_out["x_bad.nii.gz"]
    assert str(tmp_path) not in left_out["x_bad.nii.gz"]
    assert said == [f"x_bad.nii.gz is left out: {left_out['x_bad.nii.gz']}"]


@pytest.mark.parametrize("kind", [kind for kind in BAD if kind not in ("far", "isotropic")])
def test_the_reference_may_not_be_a_bad_one(kind, three, tmp_path):
    make, why = BAD[kind]
    with pytest.raises(ValueError, match=f"x_bad.nii.gz cannot be used: .*{why}"):
        combined(*three, make(tmp_path / "x_bad.nii.gz"), reference="x_bad")


def test_of_two_that_do_not_meet_neither_is_believed(tmp_path):
    one, far = write_stack(tmp_path / "ax.nii", "ax"), write_stack(tmp_path / "cor.nii", "cor", shift=(0, 90, 0))
    with pytest.raises(ValueError, match="ax.nii has no place in common with cor.nii.*--combine none"):
        combined(one, far)


def test_one_is_enough_and_that_is_said(tmp_path, three):
    assert combined(three[0]) == (["ax.nii.gz"], {}, [])
    names, _, said = combined(three[0], nan(tmp_path / "bad.nii"))
    assert names == ["ax.nii.gz"] and said[-1] == "ax.nii.gz is the only stack: --reference names another one"


def test_none_is_refused_with_every_reason(tmp_path):
    with pytest.raises(ValueError, match="(?s)none of its scans.*a.nii: .*NaN.*b.nii: .*2 slices"):
        combined(nan(tmp_path / "a.nii"), thin(tmp_path / "b.nii"))


def test_more_than_a_patient_has_is_refused_unread(tmp_path):
    with pytest.raises(ValueError, match="51 scans would be stacks of one patient.*--combine none"):
        combined(*[tmp_path / f"{n}.nii" for n in range(51)])


def test_all_together_are_held_against_the_limit(three):
    size = 4e-9 * 24 * 24 * 6
    for count, fits in ((3.5, True), (2.5, False)):
        limits = Limits(max_gigabytes=count * size)
        if fits:
            assert len(read_all(group_of(*three), READ, ThroughPlaneSampling(), limits)[0]) == 3
        else:
            with pytest.raises(ValueError, match="together as float32: --max_gigabytes 1 reads more"):
                read_all(group_of(*three), READ, ThroughPlaneSampling(), limits)


def test_volumes_without_a_thick_axis_alone_are_refused(tmp_path):
    with pytest.raises(ValueError, match="none of a.nii has a thick axis"):
        combined(write_volume(tmp_path / "a.nii", head_voxels((24, 24, 24))))


def test_one_orientation_is_said(tmp_path):
    paths = [write_stack(tmp_path / f"{n}.nii", "cor", seed=n) for n in range(2)]
    _, _, (said,) = combined(*paths)
    assert said.startswith("all 2 stacks are coronal")


def test_a_volume_of_the_same_contrast_without_a_thick_axis_is_taken(tmp_path):
    paths = write_stack(tmp_path / "t2_ax.nii"), write_volume(tmp_path / "t2_space.nii", head_voxels((24, 24, 24), 3))
    names, left_out, said = combined(*paths)
    assert names == ["t2_ax.nii", "t2_space.nii"] and not left_out
    assert said == ["t2_space.nii has no thick axis, and is taken as slices 1 mm thick"]


def test_other_contrasts_are_left_out_by_name(tmp_path):
    names = "t1_ax", "flair_ax", "flair_cor"
    paths = [write_stack(tmp_path / f"{n}.nii", n.split("_")[1], seed=k) for k, n in enumerate(names)]
    stacks, left_out, _ = combined(*paths)
    assert stacks == ["flair_ax.nii", "flair_cor.nii"]
    assert left_out == {"t1_ax.nii": "another contrast than flair_ax.nii: T1w, not FLAIR"}
    stacks, left_out, _ = combined(*paths, reference="t1")
    assert stacks == ["t1_ax.nii"] and len(left_out) == 2


@pytest.mark.parametrize(("reference", "first"), [
    (None, "b_cor.nii"), ("sag", "c_sag.nii"), (1, "a_ax.nii"), ("3", "c_sag.nii"), ("a_ax.nii", "a_ax.nii"),
    ("a_ax", "a_ax.nii"), ("A_AX", "a_ax.nii"),
])  # fmt: skip
def test_the_reference(tmp_path, reference, first):
    coarse = write_stack(tmp_path / "a_ax.nii", scale=1.3)
    coarser = write_stack(tmp_path / "c_sag.nii", "sag", scale=1.3)
    names, _, _ = combined(coarse, write_stack(tmp_path / "b_cor.nii", "cor"), coarser, reference=reference)
    assert names[0] == first and len(names) == 3


@pytest.mark.parametrize(("reference", "why"), [("nii", "3"), ("tra", "none"), (4, "none"), (0, "none")])
def test_a_reference_that_names_no_one_is_refused_with_the_names(three, reference, why):
    with pytest.raises(ValueError, match=f"(?s)is {why} of its scans.*1: ax.nii.gz.*3: sag.nii.gz"):
        combined(*three, reference=reference)


def test_the_order_of_the_scans_does_not_matter(tmp_path):
    paths = [
        write_stack(tmp_path / f"{p}_{c}.nii", p, seed=n)
        for n, (p, c) in enumerate(product(("ax", "cor"), ("t1", "t2")))
    ]
    paths += [nan(tmp_path / "bad.nii"), write_stack(tmp_path / "far_t2.nii", "cor", shift=(90, 0, 0), seed=9)]
    first = combined(*paths)
    assert first[0] == ["ax_t2.nii", "cor_t2.nii"] and len(first[1]) == 4
    for order in (paths[::-1], paths[3:] + paths[:3]):
        names, left_out, _ = combined(*order)
        assert (names[0], set(names), left_out) == (first[0][0], set(first[0]), first[1])


def test_of_equally_fine_stacks_the_largest_is_the_reference(tmp_path):
    voxels, affine = thick("ax")
    write_volume(tmp_path / "a.nii", voxels[:, 4:20], affine)
    assert combined(tmp_path / "a.nii", write_stack(tmp_path / "b.nii", "cor"))[0] == ["b.nii", "a.nii"]


def test_coarse_voxels_are_said(tmp_path, three):
    voxels, affine = thick("sag")
    affine[:, 1:3] *= 2
    _, _, (said,) = combined(three[0], write_volume(tmp_path / "x.nii", voxels, affine))
    assert said.startswith("x.nii has voxels 2 mm wide")


def test_contradictory_spaces_are_said(tmp_path, three):
    mni = write_stack(tmp_path / "z.nii", "cor", seed=3, code=4)
    _, _, (said,) = combined(three[0], three[2], mni)
    assert "MNI 152, the scanner's" in said and "registration is required" in said


def test_two_patients_by_their_names_are_said(tmp_path):
    paths = [
        write_stack(tmp_path / f"sub-{n}_acq-{p}_T2w.nii", p) for n, p in (("1", "ax"), ("2", "cor"), ("1", "sag"))
    ]
    _, _, (said,) = combined(*paths, reference=1)
    assert said == (
        "by header or name sub-2_acq-cor_T2w.nii is of another patient or another day than sub-1_acq-ax_T2w.nii"
    )


SIDE = AFFINE @ np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]) @ np.diag([1, 1, 4 / 1.2, 1])


@pytest.mark.parametrize(("frame", "contradicts"), [("1.2.3.5", False), ("1.2.3.9", True)])
def test_frames_of_reference_of_dicom(tmp_path, frame, contradicts):
    write_series(tmp_path / "a", VOXELS, AFFINE, number=3)
    write_series(tmp_path / "b", VOXELS + np.arange(6) % 2, SIDE, number=4, frame=frame)
    stacks = [find_stack(tmp_path / name) for name in "ab"]
    group = Group(tuple(Member.of_series(stack, stacks) for stack in stacks))
    taken, left_out = read_all(group, READ, ThroughPlaneSampling())
    assert not left_out
    assert [one.stack.frame for one in taken] == ["1.2.3.5", frame]
    said = doubts_about(taken, {}, 1.0)
    assert any("2 FrameOfReferenceUIDs" in sentence for sentence in said) == contradicts
