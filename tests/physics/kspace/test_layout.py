"""The layout of k-space is found and mended: what is read is the right k-space, however it was saved, and not else."""

import re
import warnings

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interslice.files.doubts import doubts_of
from interslice.physics.kspace import CartesianSampling
from interslice.physics.kspace.layout import centred, gathers_energy, peak_of, slices_agree, with_coils_second
from interslice.physics.kspace.read import LoadKspaced, read_kspace
from tests.physics.kspace.test_kspace import header
from tests.support.helpers import normal, repeatable, scan
from tests.support.scans import head_voxels

IN_PLANE = (-2, -1)


def kspace_of(coils=4, size=(24, 28), slices=6, acceleration=1.0, noise=0.0, **scanner):
    """k-space (Z, C, KY, KX) of a head that lies in the middle of a larger field of view."""
    volume = torch.from_numpy(head_voxels((*size, slices)))
    builder = CartesianSampling(num_coils=coils, acceleration=acceleration, field_of_view=1.2, **scanner)
    operator = builder.for_volume(scan(volume, (1.0, 1.0, 4.0)))
    y = operator.forward(volume)
    y += noise * float(volume.max()) * normal(*y.shape) * operator.mask[..., None]
    return torch.view_as_complex(y).transpose(0, 1).numpy()


def transform(image, axes):
    return np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(image, axes), axes=axes, norm="ortho"), axes)


def unshifted(kspace, axes):
    """k-space as numpy's plain transform of the same image gives it, but for the place of its centre."""
    image = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(kspace, axes), axes=axes, norm="ortho"), axes)
    return np.fft.fftshift(np.fft.fftn(image, axes=axes, norm="ortho"), axes)


WRONG = {
    "centre at index 0": (lambda k: np.fft.ifftshift(k, IN_PLANE), "centre of k-space is at index 0 along readout and"),
    "one centre at index 0": (lambda k: np.fft.ifftshift(k, -1), "at index 0 along phase, and is moved"),
    "image not shifted": (lambda k: unshifted(k, IN_PLANE), "shifted by half a field of view along readout and phase"),
    "one axis not shifted": (lambda k: unshifted(k, (-2,)), "shifted by half a field of view along readout, as by"),
    "numpy's fft2 as it is": (lambda k: np.fft.ifftshift(unshifted(k, IN_PLANE), IN_PLANE), "index 0 .*half a field"),
    "3-D": (lambda k: transform(k, (0,)), "k-space is 3-D: its third transform"),
    "3-D, centre at index 0": (lambda k: np.fft.ifftshift(transform(k, (0,)), (0, *IN_PLANE)), "index 0 .*is 3-D"),
    "coils last": (lambda k: np.moveaxis(k, 1, -1), "is taken as .slices, readout, phase, coils., and the"),
    "coils last, centre at index 0": (lambda k: np.moveaxis(np.fft.ifftshift(k, IN_PLANE), 1, -1), "coils.*index 0"),
}
RIGHT = [
    {"coils": c, "size": s, "slices": z, "acceleration": a, "noise": n, **more}
    for c, s, z, a, n, more in (
        (1, (48, 44), 12, 1, 0, {}), (4, (45, 47), 13, 1, 0.01, {}),
        (8, (48, 44), 10, 4, 0.01, {"center_fraction": 0.2}),
        (8, (48, 44), 12, 8, 0.1, {"center_fraction": 0.1}), (4, (48, 45), 1, 2, 0, {"pattern": "equispaced"}),
    )
]  # fmt: skip


def write(path, kspace, **datasets):
    with h5py.File(path, "w") as file:
        for name, value in ({"kspace": kspace, "ismrmrd_header": header(*kspace.shape[-2:])} | datasets).items():
            file[name] = value
    return path


def read(path):
    """k-space (Z, C, KY, KX) of a file, and all that was said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read_kspace(path)
    said = " ".join(str(w.message) for w in caught if "ismrmrd_header" not in str(w.message))
    assert all(sentence in said for sentence in doubts_of(found)) and bool(said) == bool(doubts_of(found))
    return torch.view_as_complex(found.as_tensor()[0]).transpose(0, 1).numpy(), said


@pytest.mark.parametrize("case", RIGHT, ids=lambda c: f"{c['coils']} coils {c['size']} {c['acceleration']}")
@pytest.mark.parametrize("wrong", [None, *WRONG])
def test_what_is_read_is_the_right_kspace(wrong, case, tmp_path):
    right = kspace_of(**case)
    if wrong is None:
        found, said = read(write(tmp_path / "scan.h5", right))
        assert np.array_equal(found, right) and said == ""
        return
    if ("coils last" in wrong and case["coils"] == 1) or ("3-D" in wrong and case["slices"] == 1):
        return  # nothing is wrong then
    change, message = WRONG[wrong]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, said = read(write(tmp_path / "scan.h5", change(right).astype(np.complex64)))
    np.testing.assert_allclose(found, right, atol=2e-6 * abs(right).max())
    assert re.search(message, said), said


def test_a_mask_moves_with_its_kspace_if_it_starts_at_zero_too(tmp_path):
    right = kspace_of(acceleration=2, center_fraction=0.3)
    lines = (right != 0).any((0, 1, 2))
    zero_first = np.fft.ifftshift(right, IN_PLANE)
    for mask in (np.fft.ifftshift(lines), lines):
        found, _ = read(write(tmp_path / "scan.h5", zero_first, mask=mask))
        assert np.array_equal(found, right)
        whole = np.fft.ifftshift(kspace_of(), IN_PLANE)  # complete k-space, undersampled by the mask
        assert np.array_equal(read(write(tmp_path / "scan.h5", whole, mask=mask))[0] != 0, right != 0)


@given(st.integers(8, 33), st.integers(8, 33), st.integers(1, 8), st.integers(1, 5), st.integers(0, 99))
@repeatable
def test_noise_has_no_layout_and_is_left_alone(rows, columns, coils, slices, seed):
    kspace = torch.view_as_complex(normal(coils, slices, rows, columns, 2, seed=seed)).numpy()
    found, _, said = centred(kspace, None)
    assert found is kspace and said == []
    assert with_coils_second(kspace)[0] is kspace


@given(shift=st.floats(-0.3, 0.3), fill=st.floats(0.2, 1.0), size=st.integers(24, 49))
@repeatable
def test_an_object_anywhere_near_the_middle_is_left_there(shift, fill, size):
    x = np.arange(size) - size // 2
    image = (np.abs(x - shift * (1 - fill) * size) < fill * size / 2) * (1.0 + 0.3 * np.sin(x))
    kspace = transform(np.outer(image, image), IN_PLANE)[None, None].astype(np.complex64)
    assert centred(kspace, None)[2] == []


@given(slices=st.integers(4, 12), bright=st.integers(0, 11), noise=st.sampled_from([0.0, 0.01, 0.1]))
@repeatable
def test_one_bright_slice_among_empty_ones_is_no_third_transform(slices, bright, noise):
    kspace = kspace_of(coils=2, slices=slices).swapaxes(0, 1).copy()
    kspace[:, np.arange(slices) != bright % slices] *= 0
    kspace += noise * 1000 * torch.view_as_complex(normal(*kspace.shape, 2)).numpy()
    assert not gathers_energy(kspace) or slices_agree(kspace)


def ellipsoid(thickness, slices, noise, uneven, coils=3, seed=0):
    """k-space (Z, C, KY, KX) of slices of a compact subject, with noise of a share of the strongest point."""
    u, v, w = np.meshgrid(*(np.arange(n) - n // 2 for n in (48, 40, slices)), indexing="ij")
    volume = ((u / 12) ** 2 + (v / 9) ** 2 + (w / thickness) ** 2 < 1) * (1 + uneven * (u > 3))
    at = np.arange(coils) * 2 * np.pi / coils
    phases = [np.exp(1j * (u * np.cos(t) + v * np.sin(t)) / 24) * (1 + 0.02 * (u * np.sin(t) - v)) for t in at]
    kspace = transform(np.stack([p * volume for p in phases]).transpose(3, 0, 1, 2), IN_PLANE)
    scatter = torch.view_as_complex(normal(*kspace.shape, 2, seed=seed)).numpy()
    return (kspace + noise * abs(kspace).max() * scatter).astype(np.complex64)


@given(
    thickness=st.floats(1.1, 6.0), slices=st.integers(4, 24), noise=st.sampled_from([0.0, 1e-4, 1e-3, 1e-2]),
    uneven=st.floats(0, 1), alternating=st.booleans(),
)  # fmt: skip
@repeatable
def test_slices_of_a_compact_subject_are_not_transformed(thickness, slices, noise, uneven, alternating):
    """Complete, or undersampled by a mask that differs from slice to slice."""
    kspace = ellipsoid(thickness, slices, noise, uneven).swapaxes(0, 1)
    if alternating:
        lines = np.arange(40)
        measured = (lines % 3 == np.arange(slices)[:, None] % 3) | (abs(lines - 20) < 5)
        kspace = kspace * measured[:, None]
    found, _, said = centred(kspace, None)
    assert found is kspace
    assert said == [] or "taken for slices; set --read#0#layout three_d if k-space is 3-D" in " ".join(said)


def test_the_layout_can_be_set(tmp_path):
    right = ellipsoid(3.0, 20, 1e-4, 0.3)
    path = write(tmp_path / "scan.h5", right)
    assert "taken for slices" in read(path)[1]
    as_stored = LoadKspaced("image", layout="as_stored")({"image": path})["image"]
    assert doubts_of(as_stored) == ()
    assert np.array_equal(torch.view_as_complex(as_stored.as_tensor()[0]).transpose(0, 1).numpy(), right)
    write(tmp_path / "3d.h5", transform(right, (0,)).astype(np.complex64))
    three_d = LoadKspaced("image", layout="three_d")({"image": tmp_path / "3d.h5"})["image"]
    found = torch.view_as_complex(three_d.as_tensor()[0]).transpose(0, 1).numpy()
    np.testing.assert_allclose(found, right, atol=2e-6 * abs(right).max())
    with pytest.raises(ValueError, match="layout must be one of auto, as_stored, three_d, got '3d'"):
        LoadKspaced("image", layout="3d")


def test_an_undersampled_third_axis_is_refused(tmp_path):
    kspace = transform(kspace_of(slices=12), (0,))
    kspace[1, ..., ::3] = 0
    with pytest.raises(ValueError, match="3-D and undersampled along its third axis"):
        read_kspace(write(tmp_path / "scan.h5", kspace.astype(np.complex64)))


@pytest.mark.parametrize("order", [(2, 3, 0, 1), (2, 0, 3, 1), (0, 2, 1, 3)])
def test_an_order_that_cannot_be_told_is_refused_by_name(order, tmp_path):
    kspace = np.ascontiguousarray(kspace_of().transpose(order))
    with pytest.raises(ValueError, match=r"has its energy along axes .* bring its axes into the order \(slices, coils"):
        read_kspace(write(tmp_path / "scan.h5", kspace))


def test_a_single_slice_may_have_its_coils_last(tmp_path):
    right = kspace_of(size=(48, 44), slices=1)
    found, said = read(write(tmp_path / "scan.h5", np.moveaxis(right[0], 0, -1)))
    assert np.array_equal(found, right) and "(readout, phase, coils)" in said


def test_a_missing_part_is_said(tmp_path):
    kspace = kspace_of()[..., 11:]  # the centre is no longer in the middle
    _, said = read(write(tmp_path / "scan.h5", kspace))
    assert re.search(r"largest at index \d+ of 19 along phase: the centre is expected at N // 2", said)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_complex_numbers_of_matlab_are_read(kind, tmp_path):
    right = kspace_of()
    stored = np.empty(right.shape, [("real", kind), ("imag", kind)])
    stored["real"], stored["imag"] = right.real, right.imag
    found, said = read(write(tmp_path / "scan.h5", stored))
    assert np.array_equal(found, right) and said == ""


def test_the_centre_of_each_axis_by_size():
    for size in (44, 45):
        centre = kspace_of(coils=1, size=(size, size), slices=1)
        assert peak_of(centre, -1) == centre.shape[-1] // 2
        assert peak_of(np.fft.ifftshift(centre, -1), -1) == 0
        assert peak_of(centre, 1) is None
