"""NRRD: headers written by hand, with their affines worked out by hand; ITK judges where it reads the same."""

import warnings

import itk
import numpy as np
import pytest

from interslice.files.check import check_volume
from interslice.files.read import LoadVolumed
from tests.support.headers import VOXELS, affine_of, write_nrrd


def load(path):
    return LoadVolumed("image")({"image": str(path)})["image"]


def read(path):
    """A volume of which nothing is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return load(path)


FOUR = {"dimension": 4, "space_directions": "none (1,0,0) (0,1.5,0) (0,0,2)"}
SAME = {
    "plain": {},
    "a vector of one component": FOUR | {"sizes": "1 6 5 4", "kinds": "vector domain domain domain"},
    "a list of one": FOUR | {"sizes": "1 6 5 4", "kinds": "list domain domain domain"},
    "last": {"dimension": 4, "sizes": "6 5 4 1", "kinds": "domain domain domain list",
             "space_directions": "(1,0,0) (0,1.5,0) (0,0,2) none"},
    "between": {"dimension": 4, "sizes": "6 1 5 4", "kinds": "domain list domain domain",
                "space_directions": "(1,0,0) none (0,1.5,0) (0,0,2)"},
    "in time": {"dimension": 4, "sizes": "6 5 4 1", "kinds": "domain domain domain time",
                "space": "left-posterior-superior-time", "space_origin": "(-10,20,30,0)",
                "space_directions": "(1,0,0,0) (0,1.5,0,0) (0,0,2,0) (0,0,0,1)"},
    "initials": {"space": "LPS"},
    "millimetres": {"space_units": '"mm" "mm" "mm"'},
    "a measurement frame": {"measurement_frame": "(0,1,0) (1,0,0) (0,0,1)"},
}  # fmt: skip


@pytest.mark.parametrize("fields", SAME.values(), ids=SAME)
def test_headers_that_say_the_same_are_read_the_same(tmp_path, fields):
    volume = read(write_nrrd(tmp_path / "scan.nrrd", **fields))
    np.testing.assert_array_equal(volume[0], VOXELS)
    np.testing.assert_allclose(volume.affine, affine_of())


SPACES = {
    "right-anterior-superior": (1, 1, 1),
    "RAS": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "LAS": (-1, 1, 1),
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    "directions", ["(1,0,0) (0,1.5,0) (0,0,2)", "(-1,0,0) (0,1.5,0) (0,0,2)"], ids=["right", "left"]
)
def test_spaces(tmp_path, space, directions):
    path = write_nrrd(tmp_path / "scan.nrrd", space=space, space_directions=directions)
    steps = (-1, 1.5, 2) if "-1" in directions else (1, 1.5, 2)
    np.testing.assert_allclose(read(path).affine, affine_of(steps, signs=SPACES[space]))
    image = itk.imread(str(path), itk.F)
    theirs = np.diag([-1, -1, 1]) @ (np.asarray(image.GetDirection()) * np.array(image.GetSpacing()))
    np.testing.assert_allclose(theirs, read(path).affine[:3, :3])


@pytest.mark.parametrize(
    ("unit", "factor"), [("m", 1000), ("cm", 10), ("um", 0.001), ("microns", 0.001), ("meters", 1000)]
)
def test_lengths_become_millimetres(tmp_path, unit, factor):
    fields = {"space_units": f'"{unit}" "{unit}" "{unit}"', "thicknesses": "nan nan 1.5"}
    with pytest.warns(UserWarning, match=f"lengths are in {unit}, and are converted to mm"):
        volume = load(write_nrrd(tmp_path / "scan.nrrd", **fields))
    np.testing.assert_allclose(volume.affine, np.diag([*[factor] * 3, 1]) @ affine_of())
    np.testing.assert_allclose(volume.meta["slice_thickness"], 1.5 * factor)


@pytest.mark.parametrize("space", [None, "scanner-xyz", "3D-right-handed"])
def test_a_space_without_sides_is_said(tmp_path, space):
    fields = {"space": space} if space else {
        "space": None, "space_directions": None, "space_origin": None, "spacings": "1 1.5 2"
    }  # fmt: skip
    with pytest.warns(UserWarning, match="left and right are not known; LPS is assumed, as by ITK"):
        volume = load(write_nrrd(tmp_path / "scan.nrrd", **fields))
    np.testing.assert_allclose(volume.affine, affine_of(origin=(-10, 20, 30) if space else (0, 0, 0)))


def test_shear_is_kept_and_refused(tmp_path):
    volume = read(write_nrrd(tmp_path / "scan.nrrd", space_directions="(1,0,0) (0,1.5,0) (0.5,0,2)"))
    assert volume.affine[0, 2] == -0.5
    with pytest.raises(ValueError, match="14.0 degrees off a right angle"):
        check_volume(volume)


REFUSED = {
    "a time series": ({"dimension": 4, "sizes": "2 3 5 4", "kinds": "list domain domain domain",
                       "space_directions": "none (1,0,0) (0,1.5,0) (0,0,2)"}, "expected one volume, got 2"),
    "a plane": ({"dimension": 2, "sizes": "6 20", "kinds": "domain domain", "space_directions": "(1,0,0) (0,1,0)"},
                r"expected three axes in space, got 2 of \(6, 20\)"),
    "left-handed": ({"space": "3D-left-handed"}, "the space '3D-left-handed' is none of RAS, LAS, LPS"),
    "an unknown space": ({"space": "right-superior-posterior"}, "is none of RAS, LAS, LPS; repair the header"),
    "an unknown unit": ({"space_units": '"px" "px" "px"'}, "lengths are in 'px', which is none of mm, cm"),
    "no spacing": ({"space": None, "space_directions": None, "space_origin": None}, "states no spacing"),
    "fewer voxels": ({"sizes": "6 5 40"}, "480 bytes of voxels are there, expected 4800"),
    "fewer axes": ({"dimension": 99}, "cannot be read, is it damaged"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_volume_is_refused_in_words(tmp_path, fields, message):
    path = write_nrrd(tmp_path / "scan.nrrd", **fields)
    with pytest.raises(ValueError, match=f"^{path}: .*{message}"):
        check_volume(load(path))
