"""Padding outside the field of view becomes background, whoever states it or not; background that is real stays."""

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.files.dicom_read import find_stack
from interslice.files.padding import stated_padding, without_padding
from interslice.files.read import LoadVolumed
from interslice.physics.intensity import intensity_range
from tests.support.dicom_files import write_series
from tests.support.helpers import repeatable
from tests.support.scans import head_voxels, thick_voxels, write_volume

AFFINE = np.diag([1.0, 1.0, 4.0, 1.0])
SHAPE = (40, 36, 12)
LOAD = LoadVolumed("image")


def round_view(shape=SHAPE):
    """True outside a round field of view."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape[:2]], indexing="ij")
    return np.broadcast_to((x**2 + y**2 > 1)[..., None], shape)


def ct(shape=SHAPE):
    """HU, rounded: air around a head."""
    return np.round(head_voxels(shape) * 1.5 - 1000).astype(np.float32)


def mr(shape=SHAPE):
    return np.round(head_voxels(shape))


def padded(voxels, value):
    return np.where(round_view(voxels.shape), value, voxels).astype(np.float32)


def freed(voxels, stated=None):
    stated = None if stated is None else torch.tensor(stated, dtype=torch.float32)
    volume, said = without_padding(torch.from_numpy(voxels), stated)
    return volume.numpy(), said


def rewrite(folder, **attributes):
    """Set attributes of all files, each (VR, value)."""
    for path in folder.iterdir():
        header = pydicom.dcmread(path)
        for keyword, (vr, value) in attributes.items():
            header.add_new(keyword, vr, value)
        header.save_as(path)
    return folder


@pytest.mark.parametrize("value", [-32768, -3024, -2048, -2000, -1500])
@pytest.mark.parametrize("scan", [ct, mr], ids=["CT", "MR"])
def test_padding_that_nobody_states_becomes_background(scan, value):
    voxels = scan()
    volume, said = freed(padded(voxels, value))
    outside = round_view()
    np.testing.assert_array_equal(volume[~outside], voxels[~outside])
    assert np.unique(volume[outside]).size == 1
    assert volume[outside][0] == pytest.approx(np.percentile(voxels[~outside], 0.1), abs=1)
    assert f"padding ({value}) in {outside.mean():.1%} of the voxels is set to {volume[0, 0, 0]:g}" in said


@repeatable
@given(value=st.sampled_from([-32768, -3024, -2048]), axis=st.permutations(range(3)), flip=st.booleans())
def test_the_scale_is_that_of_the_scan_without_padding(value, axis, flip):
    voxels = ct()
    before = intensity_range(torch.from_numpy(voxels))
    turned = padded(voxels, value).transpose(axis)[:: -1 if flip else 1]
    after = intensity_range(torch.from_numpy(freed(np.ascontiguousarray(turned))[0]))
    assert after == pytest.approx(before, abs=0.01 * (before[1] - before[0]))


def test_what_interpolation_made_of_padding_goes_with_it():
    voxels = np.kron(padded(ct(), -2048), np.ones((2, 2, 1), np.float32))
    blurred = (voxels + np.roll(voxels, 1, 0) + np.roll(voxels, 1, 1) + np.roll(voxels, 1, (0, 1))) / 4
    blurred[[0, -1]] = blurred[:, [0, -1]] = -2048
    assert freed(blurred)[0].min() >= -1024


WEDGES = {
    "one corner": np.s_[:8, :8, :7], "two corners": np.s_[:, :2, :7], "one face": np.s_[:3], "an edge": np.s_[:3, :4],
    "the middle of a face": np.s_[10:20, :3, 4:8],
}  # fmt: skip


@pytest.mark.parametrize("below", [None, -1, -1000, 5000], ids=lambda b: f"one voxel {b} off")
@pytest.mark.parametrize("value", [-3024, -2048, -2000])
@pytest.mark.parametrize("where", WEDGES.values(), ids=WEDGES)
def test_a_wedge_of_padding_does_not_set_the_scale(where, value, below):
    """Resampling an oblique volume leaves wedges at its border; a single voxel, lower still, changes nothing."""
    voxels = ct()
    before = intensity_range(torch.from_numpy(voxels))
    voxels[where] = value
    outside = np.zeros(SHAPE, bool)
    outside[where] = True
    assert 0.005 < outside.mean() < 0.15
    if below is not None:
        voxels[20, 18, 6] = value + below
    volume, said = freed(voxels)
    assert np.unique(volume[outside]).size == 1
    assert -1024 <= volume[outside][0] < -950
    assert f"padding ({value if below in (None, 5000) else f'{value + below} to {value}'})" in said
    after = intensity_range(torch.from_numpy(volume))
    assert after == pytest.approx(before, abs=0.03 * (before[1] - before[0]))


def test_two_values_of_padding_are_both_seen():
    """As of a round field of view, -2000, in a volume that was resampled afterwards, -3024."""
    voxels = padded(ct(), -2000)
    voxels[:4] = -3024
    volume, said = freed(voxels)
    assert volume.min() >= -1024
    assert "padding (-3024 to -2000)" in said


def test_what_lies_far_below_is_padding_though_another_common_value_is_real():
    """Phase from -4096 to 4095 in 32 steps, each of them common and at the border, and padding far below."""
    phase = np.random.default_rng(0).integers(-16, 16, SHAPE).astype(np.float32) * 256
    np.testing.assert_array_equal(freed(phase)[0], phase)
    volume, said = freed(np.where(round_view(), -32768, phase).astype(np.float32))
    np.testing.assert_array_equal(volume[~round_view()], phase[~round_view()])
    assert "padding (-32768)" in said and volume.min() == -4096


@pytest.mark.parametrize("voxels", {
    "MR": mr(), "CT": ct(), "clipped CT": ct().clip(-1024), "zeros at the border": np.pad(mr() + 300, 5),
    "brain at -1 to 1": np.pad(mr() / 500 + 0.5, 5, constant_values=-1),
    "signed": mr() - 500, "one low voxel": np.where(np.arange(mr().size).reshape(SHAPE) == 77, -3024, ct()),
    "a hole inside": np.where(np.pad(np.ones((4, 4, 4), bool), [(18, 18), (16, 16), (4, 4)]), -3024, ct()),
    "low at one corner": np.where(np.indices(SHAPE).sum(0) < 5, -3024, ct()), "all padding": np.full(SHAPE, -3024),
}.items(), ids=lambda item: item[0])  # fmt: skip
def test_other_volumes_are_left_as_they_are(voxels):
    voxels = voxels[1].astype(np.float32)
    volume, said = freed(voxels)
    np.testing.assert_array_equal(volume, voxels)
    assert said == ""


@pytest.mark.parametrize(("value", "lowest", "highest"), [(-500, -500, -500), (9000, 9000, 9000), (-480, -500, -450)])
def test_stated_padding_becomes_background_below_and_above_the_real_values(value, lowest, highest):
    voxels = mr()
    volume, said = freed(padded(voxels, value), [[lowest] * SHAPE[2], [highest] * SHAPE[2]])
    assert "padding" in said
    assert set(np.unique(volume[round_view()])) == {np.percentile(voxels[~round_view()], 0.1, method="lower")}


@pytest.mark.parametrize(("value", "lift"), [(0.0, 100), (0.0, 700), (50.0, 700), (-1000.0, -600), (-1024.0, -900)])
def test_stated_padding_that_is_background_already_is_left(value, lift):
    """A brain without its skull, in 0: however far its least value lies above, 0 is what surrounds it."""
    voxels = padded(mr() + lift, value)
    volume, said = freed(voxels, [[value] * SHAPE[2]] * 2)
    np.testing.assert_array_equal(volume, voxels)
    assert said == ""


def test_infinite_voxels_are_no_padding():
    """The check of volumes refuses them, and has to see them."""
    voxels = padded(ct(), -2048)
    voxels[0, 0, 0] = voxels[20, 18] = -np.inf
    volume, said = freed(voxels)
    np.testing.assert_array_equal(np.isinf(volume), np.isinf(voxels))
    assert "padding (-2048)" in said


def test_channels_and_input_are_left_alone():
    voxels = padded(ct(), -2048)[None]
    kept = voxels.copy()
    assert freed(voxels)[0].shape == voxels.shape
    np.testing.assert_array_equal(voxels, kept)


# -- in files ---------------------------------------------------------------------------------------------------------
def test_every_slice_has_its_rescaling(tmp_path):
    """Slope and intercept differ from slice to slice, as they may in MR."""
    stored = np.round(thick_voxels()).astype(int) + 60
    outside = round_view(stored.shape)
    stored[outside] = 65000
    write_series(tmp_path / "series", stored, AFFINE, slope=0.1)
    rewrite(tmp_path / "series", PixelPaddingValue=("US", 65000))
    slices = np.arange(stored.shape[2])
    expected = np.where(outside, np.nan, stored * 0.1 * (slices + 1) - slices)
    with pytest.warns(UserWarning, match="series: padding .* set to .*, the background"):
        image = LOAD({"image": str(tmp_path / "series")})["image"].numpy()[0]
    np.testing.assert_allclose(image[~outside], expected[~outside], rtol=1e-5, atol=1e-4)
    assert set(np.unique(image[outside]).round(3)) == {
        np.float32(np.nanpercentile(expected, 0.1, method="lower")).round(3)
    }


@pytest.mark.parametrize(("signed", "vr", "value", "limit", "expected"), [
    (1, "SS", -2000, None, (-3024, -3024)), (0, "US", 100, 96, (-928, -924)), (0, "US", 96, 100, (-928, -924)),
    (1, "US", 63536, None, (-3024, -3024)), (0, "SS", -1, None, (64511, 64511)),
])  # fmt: skip
def test_a_header_states_stored_values(tmp_path, signed, vr, value, limit, expected):
    write_series(tmp_path / "series", np.round(thick_voxels()).astype(int), AFFINE)
    about = {"PixelPaddingValue": (vr, value), "PixelRepresentation": ("US", signed)}
    about |= {"RescaleIntercept": ("DS", "-1024"), "RescaleSlope": ("DS", "1")}
    about |= {} if limit is None else {"PixelPaddingRangeLimit": (vr, limit)}
    stated = stated_padding(find_stack(rewrite(tmp_path / "series", **about)))
    assert stated.shape == (2, 6)
    assert stated.T.tolist() == [list(expected)] * 6


def test_nothing_is_stated_of_other_files(tmp_path):
    write_series(tmp_path / "series", np.round(thick_voxels()).astype(int), AFFINE)
    assert stated_padding(find_stack(tmp_path / "series")) is None
    assert stated_padding(None) is None


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_every_format_is_freed_of_padding(tmp_path, suffix):
    import itk

    voxels = padded(ct(), -3024).astype(np.int16)
    path = tmp_path / f"scan{suffix}"
    if suffix == ".nii.gz":
        write_volume(path, voxels)
    else:
        itk.imwrite(itk.image_from_array(np.ascontiguousarray(voxels.T)), str(path))
    with pytest.warns(UserWarning, match=r"scan.*: padding \(-3024\)"):
        image = LOAD({"image": str(path)})["image"]
    assert float(image.min()) == pytest.approx(-1000, abs=10)
    assert float(image.max()) == voxels.max()
