"""k-space: simulated, scaled and back, and read from files that the tests write."""

import h5py
import numpy as np
import pytest
import torch
from monai.apps.reconstruction.fastmri_reader import FastMRIReader
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose

from interslice.files.restore import Restored
from interslice.physics import Measured, operator_of
from interslice.physics.intensity import intensity_range
from interslice.physics.kspace import CartesianSampling
from interslice.physics.kspace import ismrmrd as ismrmrd_files
from interslice.physics.kspace.read import LoadKspaced, cut_readout, read_kspace
from interslice.physics.kspace.scale import ScaleKspaced
from interslice.physics.kspace.simulate import SimulateKspaced
from tests.support.helpers import normal, scan
from tests.support.scans import cut_short, head_voxels

HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <experimentalConditions><H1resonanceFrequency_Hz>128000000</H1resonanceFrequency_Hz></experimentalConditions>
  <encoding>
    <encodedSpace>
      <matrixSize><x>{rows}</x><y>{columns}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>{fov_x}</x><y>{fov_y}</y><z>5</z></fieldOfView_mm>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>{kept}</x><y>{columns}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>{shown_x}</x><y>{fov_y}</y><z>5</z></fieldOfView_mm>
    </reconSpace>
    <encodingLimits>
      <kspace_encoding_step_1><minimum>0</minimum><maximum>19</maximum><center>{center}</center></kspace_encoding_step_1>
    </encodingLimits>
    <trajectory>{trajectory}</trajectory>
  </encoding>
</ismrmrdHeader>"""
ROWS, COLUMNS, SLICES, COILS = 24, 20, 3, 2


def header(rows=ROWS, columns=COLUMNS, oversampling=1.0, center=COLUMNS // 2, trajectory="cartesian"):
    """Pixels of 2 mm along the readout and 3 mm along the phase encoding."""
    fov_x = 2.0 * rows
    return HEADER.format(
        rows=rows, columns=columns, kept=int(rows / oversampling), fov_x=fov_x, fov_y=3.0 * columns,
        shown_x=fov_x / oversampling, center=center, trajectory=trajectory,
    )  # fmt: skip


def random_kspace(*shape, seed=0):
    return torch.view_as_complex(normal(*shape, 2, seed=seed)).numpy()


def write_fastmri(path, kspace, **datasets):
    with h5py.File(path, "w") as file:
        for name, value in ({"kspace": kspace} | datasets).items():
            file[name] = value
    return path


@pytest.fixture
def head():
    return scan(torch.from_numpy(head_voxels((24, 28, 6))), (1.0, 1.0, 2.0), (-12.0, 3.0, 5.0))


def simulated(head, noise=0.0, **arguments):
    builder = CartesianSampling(**({"acceleration": 2, "num_coils": 3} | arguments))
    head.meta["filename_or_obj"] = "head.nii.gz"
    data = SimulateKspaced("image", builder, noise, seed=4)({"image": head})
    return builder, Measured("image", builder)(data)


def test_the_simulation_is_the_operator_and_noise_of_the_stated_size(head):
    builder, clean = simulated(head)
    operator = builder.for_volume(head)
    assert torch.equal(clean["image"].as_tensor()[0], operator.forward(head.as_tensor()[0]))
    noisy = simulated(head, 0.01)[1]["image"]
    noise = (noisy - clean["image"]).as_tensor()[0]
    measured = operator.mask[..., None].expand(noise.shape)
    assert not noise[~measured].any()
    assert float(noise[measured].std()) == pytest.approx(0.01 * float(head.max()), rel=0.03)
    assert torch.equal(noisy, simulated(head, 0.01)[1]["image"])
    assert clean["label"] is head and torch.equal(noisy.affine, head.affine)


def test_estimation_sees_the_kspace_and_not_the_maps_of_the_simulation(head):
    builder, data = simulated(head, acceleration=2, center_fraction=0.4)
    operator = operator_of(data["image"])
    assert operator.domain_shape == (24, 28, 6) and operator.range_shape == tuple(data["image"].shape[1:])
    assert not torch.equal(operator.maps, builder.for_volume(head).maps)
    residual = operator.forward(head.as_tensor()[0]) - data["image"].as_tensor()[0]
    assert float(residual.norm() / data["image"].norm()) < 0.1


def test_scale_is_invertible_and_its_kspace_is_that_of_the_scaled_image(head):
    _, data = simulated(head)
    raw, operator = data["image"].clone(), operator_of(data["image"])
    scale = ScaleKspaced("image")
    scaled = scale(data)
    label, y = scaled["label"].as_tensor(), scaled["image"].as_tensor()[0]
    assert operator_of(scaled["image"]) is operator  # the maps are not estimated from scaled k-space
    upper = 2 * float(head.max()) / float(label.max() + 1)
    assert upper == pytest.approx(intensity_range(head.as_tensor())[1], rel=0.15)
    torch.testing.assert_close(label, head.as_tensor() * 2 / upper - 1)
    # A x - y is that of the image, scaled.
    expected = (operator.forward(head.as_tensor()[0]) - raw.as_tensor()[0]) * 2 / upper
    torch.testing.assert_close(operator.forward(label[0]) - y, expected, atol=1e-4, rtol=0)
    result = MetaTensor(label, affine=head.affine, applied_operations=scaled["image"].applied_operations)
    restored = Restored("pred", Compose([scale]))({"pred": result})["pred"]
    torch.testing.assert_close(restored.as_tensor(), head.as_tensor(), atol=1e-2, rtol=1e-5)


def test_the_scale_does_not_depend_on_the_scanners_units(head):
    builder, data = simulated(head)
    scaled = ScaleKspaced("image")(dict(data))["image"]
    tiny = Compose([Measured("image", builder), ScaleKspaced("image")])({"image": data["image"] * 1e-7})["image"]
    torch.testing.assert_close(tiny.as_tensor(), scaled.as_tensor(), atol=1e-3, rtol=1e-3)


def test_the_operator_survives_a_loader(head):
    _, data = simulated(head)
    (batch,) = DataLoader(Dataset([{"image": data["image"]}], ScaleKspaced("image")), batch_size=1)
    (item,) = decollate_batch(batch["image"])
    assert operator_of(item) is operator_of(data["image"])


@pytest.mark.parametrize("noise", [-0.1, 1.0])
def test_noise_out_of_range_is_refused(noise):
    with pytest.raises(ValueError, match="kspace_noise must be a share of the volume's maximum from 0, below 1, got"):
        SimulateKspaced("image", CartesianSampling(), noise)


def test_a_volume_without_signal_is_refused(head):
    with pytest.raises(ValueError, match="there is no signal to measure"):
        SimulateKspaced("image", CartesianSampling())({"image": head * 0})


@pytest.mark.parametrize("coils", [1, 2])
def test_fastmri_files_are_read_as_they_are(coils, tmp_path):
    kspace = random_kspace(SLICES, COILS, ROWS, COLUMNS)
    stored = kspace if coils == 2 else kspace[:, 0]
    path = write_fastmri(tmp_path / "scan.h5", stored, ismrmrd_header=header())
    read = LoadKspaced("image")({"image": str(path)})["image"]
    assert read.shape == (1, coils, SLICES, ROWS, COLUMNS, 2)
    theirs = FastMRIReader().get_data(FastMRIReader().read(path))[0]
    assert torch.equal(
        torch.view_as_complex(read.as_tensor()[0]).transpose(0, 1).reshape(stored.shape), torch.tensor(theirs)
    )
    np.testing.assert_allclose(read.pixdim, [3, 2, 5], rtol=1e-6)
    np.testing.assert_allclose(
        read.affine @ torch.tensor([10, 12, 1, 1.0], dtype=torch.float64), [0, 0, 0, 1], atol=1e-9
    )
    assert read.meta["filename_or_obj"] == str(path) and "mask" not in read.meta


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_mask_of_the_file_counts(dims, tmp_path):
    mask = normal(*(SLICES, ROWS, COLUMNS)[-dims:]).numpy() > 0
    kspace = random_kspace(SLICES, COILS, ROWS, COLUMNS)
    path = write_fastmri(tmp_path / "scan.h5", kspace, mask=mask.astype(np.float32), ismrmrd_header=header())
    read = read_kspace(path)
    expected = (kspace * (mask if dims < 3 else mask[:, None])).swapaxes(0, 1)
    assert np.array_equal(torch.view_as_complex(read.as_tensor()[0]).numpy(), expected)
    assert np.array_equal(read.meta["mask"], np.broadcast_to(mask, (ROWS, COLUMNS)) if dims == 1 else mask)


def test_readout_oversampling_is_removed_as_the_header_says(tmp_path):
    """The middle of the image stays, at the same place and with the same values."""
    kspace = random_kspace(SLICES, COILS, ROWS, COLUMNS)
    kspace[..., ::3] = 0
    plain = read_kspace(write_fastmri(tmp_path / "a.h5", kspace, ismrmrd_header=header()))
    cut = read_kspace(write_fastmri(tmp_path / "b.h5", kspace, ismrmrd_header=header(oversampling=2)))
    assert cut.shape == (1, COILS, SLICES, ROWS // 2, COLUMNS, 2)

    def image(y):
        k = torch.view_as_complex(y.as_tensor()[0]).numpy()
        axes = (-2, -1)
        return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(k, axes), norm="ortho"), axes)

    np.testing.assert_allclose(image(cut), image(plain)[..., 6:18, :], atol=1e-5)
    np.testing.assert_allclose(
        cut.affine @ np.array([0, 0, 0, 1.0]), plain.affine @ np.array([0, 6.0, 0, 1]), atol=1e-9
    )
    assert not cut.as_tensor()[..., ::3, :].any()  # lines that were not measured stay so
    lacking = kspace.copy()
    lacking[:, :, :5] = 0  # an asymmetric echo cannot be transformed along the readout
    whole = read_kspace(write_fastmri(tmp_path / "c.h5", lacking, ismrmrd_header=header(oversampling=2)))
    assert whole.shape[3] == ROWS
    assert cut_readout(kspace, ROWS) == pytest.approx(kspace, abs=1e-5)


def test_without_a_header_the_spacing_is_unknown(tmp_path):
    path = write_fastmri(tmp_path / "scan.h5", random_kspace(SLICES, COILS, ROWS, COLUMNS))
    with pytest.warns(UserWarning, match="no ismrmrd_header: voxels are taken to be 1 x 1 x 1 mm"):
        np.testing.assert_allclose(read_kspace(path).pixdim, 1)


def damaged(what, path):
    good = random_kspace(SLICES, COILS, ROWS, COLUMNS)
    if what == "cut":
        return cut_short(write_fastmri(path, good))
    changes = {
        "real": (good.real, {}), "dims": (good[0, 0], {}), "NaN": (good * np.where(good.real > 3, np.nan, 1), {}),
        "zero": (good * 0, {}), "mask": (good, {"mask": np.ones(7)}), "xml": (good, {"ismrmrd_header": "<a"}),
        "radial": (good, {"ismrmrd_header": header(trajectory="radial")}),
        "no size": (good, {"ismrmrd_header": header().replace("<x>24</x>", "<x>many</x>", 1)}),
        "huge": (good * np.float32(1e30), {}), "tiny": (good * np.float32(1e-30), {}),
        "negative": (good, {"ismrmrd_header": header().replace("<z>5</z>", "<z>-5</z>")}),
    }  # fmt: skip
    kspace, others = changes[what]
    return write_fastmri(path, kspace, **({"ismrmrd_header": header()} | others))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("cut", "is it damaged"),
        ("real", "kspace is float32: expected complex numbers"),
        ("dims", r"shape \(24, 20\)"),
        ("NaN", "values of k-space are NaN or infinite"),
        ("zero", "0 everywhere"),
        ("mask", r"the mask has the shape \(7,\): expected one of \(20,\)"),
        ("xml", "header is not XML"),
        ("radial", "the trajectory is radial: only cartesian"),
        ("no size", "matrixSize as"),
        ("huge", r"the largest value of k-space is .*e\+30, and must lie between 1e-15 and 1e\+15.*by a constant"),
        ("tiny", "the largest value of k-space is .*e-30, and must lie between"),
        ("negative", "expected three positive numbers"),
    ],
)
def test_bad_files_are_named_with_the_reason(what, message, tmp_path):
    path = damaged(what, tmp_path / "scan.h5")
    with pytest.raises(ValueError, match=message) as error:
        read_kspace(path)
    assert str(path) in str(error.value)


def test_other_files_are_named_with_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_kspace(tmp_path / "none.h5")
    (tmp_path / "scan.nii.gz").touch()
    with pytest.raises(ValueError, match="add configs/evaluate.json to simulate"):
        read_kspace(tmp_path / "scan.nii.gz")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["image"] = np.zeros(3)
    with pytest.raises(ValueError, match="the file holds image: expected `kspace`"):
        read_kspace(tmp_path / "other.h5")


READ, PHASE, NORMAL = (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def acquisition(kspace, z, line, flags=(), number=None, directions=True, **head):
    """One line of k-space (slices, coils, readout, phase), 4 mm from slice to slice."""
    ismrmrd = pytest.importorskip("ismrmrd")
    counters = {k: head.pop(k) for k in ("repetition", "average", "kspace_encode_step_2") if k in head}
    made = ismrmrd.Acquisition.from_array(
        np.ascontiguousarray(kspace[z, :, :, line]), center_sample=kspace.shape[2] // 2, **head
    )
    made.idx.kspace_encode_step_1, made.idx.slice = line if number is None else number, z
    for name, value in counters.items():
        setattr(made.idx, name, value)
    if directions:
        made.read_dir[:], made.phase_dir[:], made.slice_dir[:] = READ, PHASE, NORMAL
        made.position[:] = (10.0, 20.0, 30.0 - 4 * z)  # slice 0 is the highest
    for flag in flags:
        made.set_flag(getattr(ismrmrd, f"ACQ_{flag}"))
    return made


def write_ismrmrd(path, acquisitions, text=None):
    ismrmrd = pytest.importorskip("ismrmrd")
    with ismrmrd.File(str(path), "w") as file:
        file["dataset"].acquisitions = acquisitions
    with h5py.File(path, "a") as file:
        file["dataset"].create_dataset("xml", data=[text or header()], dtype=h5py.special_dtype(vlen=bytes))
    return path


def test_ismrmrd_acquisitions_become_kspace_in_place(tmp_path):
    kspace = random_kspace(SLICES, COILS, ROWS, COLUMNS)
    lines = [acquisition(kspace, z, i) for z in range(SLICES) for i in range(COLUMNS) if i % 3]
    lines.insert(5, acquisition(9 * kspace, 0, 0, ["IS_NOISE_MEASUREMENT"]))
    read = read_kspace(write_ismrmrd(tmp_path / "scan.mrd", lines[::-1]))
    expected = kspace.copy()
    expected[..., ::3] = 0
    values = torch.view_as_complex(read.as_tensor()[0]).numpy()
    assert np.array_equal(values, expected[::-1].swapaxes(0, 1))  # from the lowest slice up
    assert np.array_equal(read.meta["mask"], np.broadcast_to(np.arange(COLUMNS) % 3 > 0, (ROWS, COLUMNS)))
    # Index N // 2 is at the position of the slice; left and posterior become right and anterior.
    centre = read.affine @ torch.tensor([10.0, 12, 0, 1], dtype=torch.float64)
    np.testing.assert_allclose(centre, [-10, -20, 30 - 8, 1], atol=1e-6)
    np.testing.assert_allclose(read.affine[:3, :3], np.diag([3, -2, 4]), atol=1e-6)


@pytest.mark.parametrize("change", ["samples cut", "no samples", "header a number"])
def test_acquisitions_that_libraries_cannot_read_are_said_to_be_damaged(change, tmp_path):
    """What the libraries say stands in brackets, and is not the reason."""
    kspace = random_kspace(SLICES, COILS, ROWS, COLUMNS)
    path = write_ismrmrd(tmp_path / "scan.h5", [acquisition(kspace, 0, i) for i in range(COLUMNS)])
    with h5py.File(path, "a") as file:
        if change == "header a number":
            del file["dataset/xml"]
            file["dataset/xml"] = 3.0
        else:
            lines = file["dataset/data"][()]
            lines["data"][3] = lines["data"][3][: -1 if change == "samples cut" else 0]
            file["dataset/data"][...] = lines
    with pytest.raises(ValueError, match=r"scan.h5: the file cannot be read, is it damaged\? \(\w+: .*\)"):
        read_kspace(path)


def test_repeated_lines_are_averaged_and_calibration_fills_in(tmp_path):
    a, b = random_kspace(1, COILS, ROWS, COLUMNS), random_kspace(1, COILS, ROWS, COLUMNS, seed=1)
    lines = [acquisition(a, 0, i) for i in range(0, COLUMNS, 2)]
    lines += [acquisition(b, 0, i, average=1) for i in (0, 2)]
    lines += [acquisition(b, 0, i, ["IS_PARALLEL_CALIBRATION"]) for i in (9, 10, 11)]
    values = torch.view_as_complex(read_kspace(write_ismrmrd(tmp_path / "scan.h5", lines)).as_tensor()[0]).numpy()[:, 0]
    np.testing.assert_allclose(values[..., [0, 2]], (a + b)[0][..., [0, 2]] / 2, rtol=1e-6)
    assert np.array_equal(values[..., [9, 11]], b[0][..., [9, 11]])
    assert np.array_equal(values[..., [4, 10]], a[0][..., [4, 10]])


def test_centre_reversal_and_discarded_samples(tmp_path):
    kspace = random_kspace(1, COILS, ROWS, COLUMNS)
    lines = [acquisition(kspace, 0, i, number=i + 3) for i in range(COLUMNS - 1)]
    last = COLUMNS - 1
    shifted = np.roll(kspace[..., ::-1, :], 1, 2)  # mirrored about the centre
    lines.append(acquisition(shifted, 0, last, ["IS_REVERSE"], number=last + 3, discard_post=4))
    read = read_kspace(write_ismrmrd(tmp_path / "s.h5", lines, header(center=COLUMNS // 2 + 3)))
    values = torch.view_as_complex(read.as_tensor()[0]).numpy()[:, 0]
    assert np.array_equal(values[..., :last], kspace[0][..., :last])
    assert np.array_equal(values[:, 5:, last], kspace[0][:, 5:, last]) and not values[:, 1:5, last].any()


@pytest.mark.parametrize("what", ["repetition", "partition", "outside", "coils", "unequal", "radial", "noise"])
def test_ismrmrd_scans_that_are_something_else_are_refused(what, tmp_path):
    kspace, text = random_kspace(SLICES, COILS, ROWS, COLUMNS), None
    lines = [acquisition(kspace, z, i) for z in range(SLICES) for i in range(2)]
    message = {
        "repetition": "2 values of repetition", "partition": "2 partitions of a 3-D encoding",
        "outside": "lies outside of k-space of 20 lines", "coils": "2 and 1 coils",
        "unequal": "not parallel and equally spaced", "radial": "trajectory is spiral",
        "noise": "no acquisitions of an image",
    }[what]  # fmt: skip
    if what == "repetition":
        lines.append(acquisition(kspace, 0, 3, repetition=1))
    elif what == "partition":
        lines.append(acquisition(kspace, 0, 3, kspace_encode_step_2=1))
    elif what == "outside":
        lines.append(acquisition(kspace, 0, 3, number=COLUMNS))
    elif what == "coils":
        lines.append(acquisition(kspace[:, :1], 0, 3))
    elif what == "unequal":
        lines[2].position[2] += 1
    elif what == "radial":
        text = header(trajectory="spiral")
    else:
        lines = [acquisition(kspace, 0, 0, ["IS_NOISE_MEASUREMENT"])]
    with pytest.raises(ValueError, match=message):
        read_kspace(write_ismrmrd(tmp_path / "scan.h5", lines, text))


def test_without_directions_the_position_is_unknown_and_the_middle_is_the_origin(tmp_path):
    kspace = random_kspace(SLICES, COILS, ROWS, COLUMNS)
    lines = [acquisition(kspace, z, i, directions=False) for z in range(SLICES) for i in range(3)]
    read = read_kspace(write_ismrmrd(tmp_path / "scan.h5", lines))
    np.testing.assert_allclose(read.affine[:3, :3], np.diag([-3, -2, 5]), atol=1e-6)


def test_without_the_package_the_error_names_the_command(tmp_path, monkeypatch):
    path = write_ismrmrd(tmp_path / "scan.h5", [acquisition(random_kspace(1, COILS, ROWS, COLUMNS), 0, 0)])

    class Missing:
        def __getattr__(self, name):
            raise ImportError(name)

    monkeypatch.setattr(ismrmrd_files, "ismrmrd", Missing())
    with pytest.raises(ValueError, match="pip install ismrmrd==1.15.0"):
        read_kspace(path)


def test_a_simulated_scan_goes_through_a_file(head, tmp_path):
    """The file's own mask and the values give the same operator as the simulation's."""
    builder, data = simulated(head, field_of_view=1)
    kspace = torch.view_as_complex(data["image"].as_tensor()[0]).transpose(0, 1).numpy()
    columns, rows = 24, 28
    path = write_fastmri(tmp_path / "scan.h5", kspace, ismrmrd_header=header(rows, columns))
    read = read_kspace(path)
    a, b = builder.for_measurement(read), operator_of(data["image"])
    assert torch.equal(a.mask, b.mask) and torch.equal(a.maps, b.maps)
    assert data["image"].meta["volume_shape"] == (24, 28)
