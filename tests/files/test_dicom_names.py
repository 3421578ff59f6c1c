"""Several stacks in one series: what is one stack, what each is called, and what is refused as none."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from interslice.files.cases import Cases
from interslice.files.dicom_names import is_called, name_of
from interslice.files.dicom_read import find_stack
from interslice.files.dicom_search import choose, search
from interslice.files.read import LoadVolumed
from tests.support.dicom_files import write_changed as write
from tests.support.dicom_files import write_localiser
from tests.support.scans import thick_voxels

STRAIGHT = np.diag([1.0, 1.0, 4.0, 1.0])
VOXELS = np.round(thick_voxels()).astype(int)


def load(source, **options):
    return LoadVolumed("image", **options)({"image": str(source)})["image"]


@pytest.mark.parametrize(
    "times",
    [[f"{98 + 0.001 * (k % 2):.3f}" for k in range(6)], ["98.001", *["98"] * 4, "98.001"], ["0.061"] + ["0.06"] * 5],
    ids=["alternating", "at the ends", "short"],
)
def test_echo_times_that_differ_by_rounding_are_one(tmp_path, times):
    write(tmp_path, lambda ds, k: setattr(ds, "EchoTime", times[k]))
    np.testing.assert_array_equal(load(tmp_path)[0], VOXELS)


@pytest.fixture
def echoes(tmp_path):
    """Two echoes of one series, magnitude and phase of the second; {name: voxels}."""
    uid = generate_uid()
    kinds = {"5/TE4.6": ("4.6", "M", 0), "5/TE2.3": ("2.3", "M", 1), "5/P": ("2.3", "P", 2)}
    for name, (time, kind, plus) in kinds.items():

        def edit(ds, _, time=time, kind=kind):
            ds.SeriesInstanceUID, ds.EchoTime, ds.ImageType = uid, time, ["ORIGINAL", "PRIMARY", kind]

        write(tmp_path / "parts", edit, voxels=VOXELS + plus, number=5)
        for path in sorted((tmp_path / "parts").iterdir()):
            path.rename(tmp_path / f"{name.replace('/', '_')}_{path.name}")
    (tmp_path / "parts").rmdir()
    return {name: VOXELS + plus for name, (_, _, plus) in kinds.items()}


def test_echoes_and_kinds_have_names_that_choose_them(tmp_path, echoes):
    with pytest.raises(ValueError, match="holds 3 stacks of slices; name one by --series") as error:
        find_stack(tmp_path)
    listed = [line.split("--series ")[1].split(":")[0] for line in str(error.value).splitlines()[1:]]
    assert len(listed) == 3 and "5/TE4.6" in listed and "5/P" in listed
    for name in [*listed, "5/te4.6", "5/P/TE2.3"]:
        stack = find_stack(tmp_path, name)
        same = [v for v in echoes.values() if np.array_equal(load(tmp_path, series=name)[0], v)]
        assert len(same) == 1 and is_called(stack, name)
    np.testing.assert_array_equal(load(tmp_path, series="5/P")[0], echoes["5/P"])
    np.testing.assert_array_equal(load(tmp_path, series="5/TE4.6")[0], echoes["5/TE4.6"])
    with pytest.raises(ValueError, match="holds 2 stacks"):
        find_stack(tmp_path, "5/M")
    with pytest.raises(ValueError, match="no series number or UID 5/TE9"):
        find_stack(tmp_path, "5/TE9")


def test_series_of_one_folder_are_cases_of_their_own(tmp_path, echoes):
    def case(name):
        reader = LoadVolumed("image", series=name)
        (item,) = Cases(str(tmp_path), reader, reader=reader, output_dir=str(tmp_path / "out")).usable
        return item["case"]

    names = {case(name) for name in ("5/P", "5/TE4.6", "5/TE2.3/M")}
    assert names == {f"{tmp_path.name}_{own}" for own in ("5-P", "5-TE4.6", "5-TE2.3-M")}


def test_any_image_chooses_its_stack(tmp_path, echoes):
    for stack in search(tmp_path).stacks:
        for s in stack.slices:
            chosen = choose(search(tmp_path), s.instance)
            assert [t.path for t in chosen.slices] == [t.path for t in stack.slices]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["10", "20"]), st.sampled_from(["M", "P", "R"]), st.sampled_from([3.0, 4.0]),
                  st.sampled_from([5, 6])),
        min_size=2, max_size=5, unique=True,
    )
)  # fmt: skip
def test_every_stack_has_a_name_of_its_own(tmp_path_factory, kinds):
    folder, uid = tmp_path_factory.mktemp("series"), generate_uid()
    for n, (time, kind, thickness, number) in enumerate(kinds):

        def edit(ds, _, time=time, kind=kind, thickness=thickness):
            ds.SeriesInstanceUID, ds.EchoTime, ds.ImageType = uid, time, ["ORIGINAL", "PRIMARY", kind]
            ds.SliceThickness = str(thickness)

        write(folder / str(n), edit, voxels=VOXELS[:, :, :3], number=number)
    found = search(folder / "0")
    for n in range(1, len(kinds)):
        more = search(folder / str(n))
        found.stacks += more.stacks
    names = [name_of(stack, found.stacks) for stack in found.stacks]
    assert len(set(names)) == len(kinds)
    for name, stack in zip(names, found.stacks):
        assert choose(found, name) is stack


def test_a_mosaic_is_called_one(tmp_path):
    def edit(ds, k):
        ds.ImageType, ds.ImagePositionPatient = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], ["-100", "-100", "-30"]

    write(tmp_path, edit)
    with pytest.raises(ValueError, match="a mosaic, which packs the slices of a volume in one image: convert it"):
        find_stack(tmp_path)


@pytest.mark.parametrize("stated", [True, False])
def test_two_slice_distances_are_two_scans(tmp_path, stated):
    """As in heads whose base was scanned finely; the headers state each thickness, or one for all."""
    places = np.r_[np.arange(5) * 2.5, 10.25 + np.arange(4) * 7.5]

    def edit(ds, k):
        ds.ImagePositionPatient = ["0", "0", f"{places[k]}"]
        ds.SliceThickness = "7.5" if stated and k > 4 else "2.5"

    voxels = np.dstack([VOXELS, VOXELS[:, :, :3]])
    write(tmp_path, edit, voxels=voxels, affine=STRAIGHT)
    if stated:
        np.testing.assert_array_equal(load(tmp_path, series="3/2.5mm")[0], voxels[:, :, :5])
        np.testing.assert_array_equal(load(tmp_path, series="3/7.5mm")[0], voxels[:, :, 5:])
    else:
        words = (
            r"5 slices 2.50 mm apart from 0.00 to 10.00 mm \(00 to 04\), then 4 slices 7.50 mm apart from 10.25 to "
            r"32.75 mm \(05 to 08\)"
        )
        with pytest.raises(ValueError, match=words):
            find_stack(tmp_path)


def test_a_localiser_among_series_of_a_disc_is_named_as_such(tmp_path, capfd):
    write(tmp_path / "disc" / "b")
    write_localiser(tmp_path / "disc" / "a")
    cases = Cases(str(tmp_path / "disc"), LoadVolumed("image"), reader=LoadVolumed("image"), output_dir=str(tmp_path))
    assert [item["case"] for item in cases.usable] == ["b"]
    with pytest.raises(SystemExit, match="(?s)1 of 2 volumes have no result:.*/a: no series.*localizer.*: a localiser"):
        cases.finish()
