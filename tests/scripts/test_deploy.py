"""scripts/deploy: the MONAI Deploy application gives what the bundle gives, in the SDK's own environment (--tools)."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from interslice import __version__
from scripts.deploy.bundle_folder import find_bundle
from tests.support.dicom_files import LPS, write_enhanced, write_localiser, write_series
from tests.support.environments import clean_environment, copy_bundle, make_environment
from tests.support.scans import INFERENCE, ROOT, thick_voxels, write_volume

APP = ROOT / "scripts" / "deploy"
AFFINE = LPS @ np.array([[0.9, 0, 0, -20.0], [0, 1.1, 0, 15.0], [0, 0, 4.4, 40.0], [0, 0, 0, 1]])
"""Pixels that are no squares: mixing up their sides would show."""


def pins(path):
    """{name: line} of a file of requirements."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return {line.split("==")[0]: line for line in lines if "==" in line and not line.startswith("#")}


def test_the_bundle_is_the_named_folder_or_the_one_inside_it(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name / "configs").mkdir(parents=True)
        (tmp_path / name / "configs" / "metadata.json").touch()
    assert find_bundle(tmp_path / "first") == tmp_path / "first"
    with pytest.raises(ValueError, match="2 bundles: first, second; name the folder of one by -m"):
        find_bundle(tmp_path)
    shutil.rmtree(tmp_path / "second")
    assert find_bundle(tmp_path) == tmp_path / "first"
    shutil.rmtree(tmp_path / "first")
    with pytest.raises(ValueError, match=r"holds no bundle \(configs/metadata.json\)"):
        find_bundle(tmp_path)


def test_the_application_pins_what_the_bundle_pins():
    ours, bundle = pins(APP / "requirements.txt"), pins(ROOT / "requirements.txt")
    assert {name: ours[name] for name in ours.keys() & bundle.keys()} == {
        name: bundle[name] for name in ours.keys() & bundle.keys()
    }
    assert {"torch", "monai", "numpy", "nibabel", "pydicom"} <= ours.keys() & bundle.keys()


def test_the_package_has_the_version_of_the_bundle():
    assert re.search(r"^  version: (.*)$", (APP / "app.yaml").read_text(encoding="utf-8"), re.M)[1] == __version__
    tags = re.findall(r"(?:iscs|amd64):([\d.]+)", (ROOT / "docs/how_to/deploy.md").read_text(encoding="utf-8"))
    assert tags == [__version__] * 2


@pytest.fixture(scope="module")
def sdk_python(tmp_path_factory):
    """The interpreter of an environment with the App SDK; MONAI is there too, as the SDK installs itself into it."""
    ours = pins(APP / "requirements.txt")
    packages = [line for name, line in ours.items() if name not in pins(ROOT / "requirements.txt")]
    return make_environment(tmp_path_factory.mktemp("deploy") / "venv", [ours["monai"], *packages])


@pytest.fixture
def bundle_copy(tmp_path, tiny_overrides, tiny_weights):
    changes = {k: v for k, v in tiny_overrides("").items() if k not in ("dataset_dir", "output_dir", "checkpoint")}
    return copy_bundle(tmp_path / "package" / "iscs", tiny_weights, inference=changes)


@pytest.fixture
def deploy(sdk_python, tmp_path):
    """Runs the application: `deploy("-m", "scripts.deploy", "-i", folder, ...)`; words replace lines of app.yaml."""

    def run(*command, where=ROOT, variables=(), **settings):
        text = (APP / "app.yaml").read_text(encoding="utf-8")
        for name, value in settings.items():
            text, number = re.subn(rf"^  {name}: \S+( .*)?$", f"  {name}: {value}", text, flags=re.M)
            assert number == 1
        (tmp_path / "app.yaml").write_text(text, encoding="utf-8")
        libraries = next(sdk_python.parents[1].glob("lib/python*/site-packages/nvidia/cu13/lib"))
        environment = clean_environment(
            HOLOSCAN_CONFIG_PATH=str(tmp_path / "app.yaml"),
            LD_LIBRARY_PATH=os.pathsep.join([str(libraries), os.environ.get("LD_LIBRARY_PATH", "")]),
            **dict(variables),
        )
        words = [str(sdk_python), *map(str, command)]
        return subprocess.run(
            words, cwd=where, env=environment, capture_output=True, encoding="utf-8", timeout=300, errors="replace"
        )

    return run


def dicom_volume(folder):
    """Voxels and affine (RAS) of a written series, by the files' own positions and without our reader."""
    files = sorted((pydicom.dcmread(p) for p in folder.glob("*.dcm")), key=lambda d: d.InstanceNumber)
    first, second = files[:2]
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.ImageOrientationPatient[:3]) * first.PixelSpacing[1]
    affine[:3, 1] = np.array(first.ImageOrientationPatient[3:]) * first.PixelSpacing[0]
    affine[:3, 2] = np.array(second.ImagePositionPatient) - np.array(first.ImagePositionPatient)
    affine[:3, 3] = first.ImagePositionPatient
    voxels = np.stack([d.pixel_array.T * float(d.RescaleSlope) for d in files], axis=-1)
    return voxels, LPS @ affine, files


def same_volume(path, other):
    """Two NIfTI files: float32, up to rounding of the network's sums, and exactly in the same place."""
    ours, direct = nib.load(path), nib.load(other)
    assert ours.get_data_dtype() == np.float32
    np.testing.assert_allclose(ours.get_fdata(), direct.get_fdata(), atol=1e-5 * direct.get_fdata().max())
    assert np.array_equal(ours.affine, direct.affine)
    return direct


@pytest.mark.tools
def test_files_come_out_as_from_a_direct_run(deploy, bundle_copy, run_here, tiny_overrides, tmp_path):
    for seed, name in enumerate(("first", "second")):
        write_volume(tmp_path / "scans" / f"{name}.nii.gz", thick_voxels(seed), spacing=(1, 1, 4))
    words = ["-m", "scripts.deploy", "-i", tmp_path / "scans", "-o", tmp_path / "out", "-m", bundle_copy]
    done = deploy(*words, output_format="both")
    assert done.returncode == 0, done.stderr[-3000:]
    run_here("inference", INFERENCE, tiny_overrides(tmp_path / "scans"))
    for name in ("first", "second"):
        nifti = tmp_path / "out" / name / f"{name}_recon.nii.gz"
        direct = same_volume(nifti, tmp_path / "results" / name / f"{name}_recon.nii.gz")
        assert direct.shape == (20, 18, 24)
        voxels, affine, files = dicom_volume(tmp_path / "out" / name / f"{name}_recon")
        np.testing.assert_allclose(voxels, direct.get_fdata(), atol=0.5 * float(files[0].RescaleSlope) + 1e-3)
        np.testing.assert_allclose(affine, direct.affine, atol=1e-5)
    assert not list((tmp_path / "out").rglob(".partial*"))


@pytest.mark.tools
def test_a_series_among_others_comes_out_as_from_a_direct_run(deploy, bundle_copy, run_here, tiny_overrides, tmp_path):
    """Laid out as in a package: a folder of another name, started from elsewhere, paths in the environment."""
    study = tmp_path / "study"
    source = write_series(study, np.round(thick_voxels()), AFFINE, slope=0.5)
    write_localiser(study)
    shutil.copytree(APP, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    (bundle_copy / "configs" / "ours.json").write_text('{"noise": "ou"}')
    paths = {"INPUT": study, "OUTPUT": tmp_path / "out", "MODEL": bundle_copy.parent}
    done = deploy(
        tmp_path / "app",
        where=tmp_path,
        variables={f"HOLOSCAN_{name}_PATH": str(path) for name, path in paths.items()},
        output_format="both",
        configs="[inference, ours]",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run_here("inference", INFERENCE, tiny_overrides(study, series=3, noise="ou"))
    case = tmp_path / "out" / "study"
    direct = same_volume(case / "study_recon.nii.gz", tmp_path / "results" / "study" / "study_recon.nii.gz")
    np.testing.assert_allclose(direct.header.get_zooms(), (0.9, 1.1, 0.9), atol=0.05)
    voxels, affine, files = dicom_volume(case / "study_recon")
    np.testing.assert_allclose(voxels, direct.get_fdata(), atol=0.5 * float(files[0].RescaleSlope) + 1e-3)
    np.testing.assert_allclose(affine, direct.affine, atol=1e-4)
    assert {d.PatientID for d in files} == {"P4711"} and {d.ImageType[0] for d in files} == {"DERIVED"}
    assert {d.StudyInstanceUID for d in files} == {source[0].StudyInstanceUID}
    assert len({d.SeriesInstanceUID for d in files} | {source[0].SeriesInstanceUID}) == 2


@pytest.mark.tools
def test_a_multi_frame_file_comes_out_as_from_a_direct_run(deploy, bundle_copy, run_here, tiny_overrides, tmp_path):
    write_enhanced(tmp_path / "study" / "frames.dcm", np.round(thick_voxels()), AFFINE)
    write_localiser(tmp_path / "study")
    words = ["-m", "scripts.deploy", "-i", tmp_path / "study", "-o", tmp_path / "out", "-m", bundle_copy]
    done = deploy(*words, output_format="nifti")
    assert done.returncode == 0, done.stderr[-3000:]
    run_here("inference", INFERENCE, tiny_overrides(tmp_path / "study", series=3))
    name = "study/study_recon.nii.gz"
    assert same_volume(tmp_path / "out" / name, tmp_path / "results" / name).shape == (20, 18, 30)
    assert [p.name for p in (tmp_path / "out" / "study").iterdir()] == ["study_recon.nii.gz"]


def only_localiser(folder):
    write_localiser(folder)
    return r"no series fits the rules in app.yaml; .*\n  series 1 'localizer', MR, 1 files"


def two_series(folder):
    for number in (3, 4):
        write_series(folder, np.round(thick_voxels()), AFFINE, number=number)
    return "several series fit the rules in app.yaml; narrow them to one:\n  series [34]"


def missing_slice(folder):
    write_series(folder, np.round(thick_voxels()), AFFINE, skip=(2,))
    return "1 slices are missing, between"


def not_a_number(folder):
    voxels = thick_voxels()
    voxels[3, 4, 2] = np.nan
    write_volume(folder / "scan.nii.gz", voxels, spacing=(1, 1, 4))
    return "scan.nii.gz: 1 voxel is NaN or infinite"


def nothing(folder):
    folder.mkdir()
    return "No study loaded from path"


@pytest.mark.tools
@pytest.mark.parametrize("make", [only_localiser, two_series, missing_slice, not_a_number, nothing])
def test_bad_input_ends_with_the_reason_and_without_output(make, deploy, bundle_copy, tmp_path):
    reason = make(tmp_path / "scans")
    done = deploy("-m", "scripts.deploy", "-i", tmp_path / "scans", "-o", tmp_path / "out", "-m", bundle_copy)
    assert done.returncode == 1
    assert re.search(rf"^no result: .*{reason}", done.stderr, re.M), done.stderr[-3000:]
    assert not [p for p in Path(tmp_path / "out").rglob("*") if p.is_file()]


@pytest.mark.tools
def test_unknown_settings_are_refused(deploy, bundle_copy, thick_file, tmp_path):
    words = ["-m", "scripts.deploy", "-i", thick_file, "-o", tmp_path / "out", "-m", bundle_copy]
    done = deploy(*words, output_format="tiff")
    assert done.returncode == 1 and "output_format must be one of nifti, dicom, both, got 'tiff'" in done.stderr
