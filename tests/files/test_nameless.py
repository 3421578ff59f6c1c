"""Without the patient: what a run leaves behind, from names to pixels of a page, does not say whose data it was."""

import gzip
import json
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest

from interslice.files.cases import Cases
from interslice.files.fingerprint import fingerprint
from interslice.files.nameless import nameless, without_paths
from interslice.files.placement import TEXT
from interslice.physics.ct.read import LoadProjectionsd
from interslice.physics.kspace.read import LoadKspaced
from tests.physics.ct.test_task import measure
from tests.physics.kspace.test_task import write_scan
from tests.support.dicom_files import AFFINE, VOXELS, write_series
from tests.support.scans import EVALUATE, INFERENCE, head_voxels, thick_voxels, write_volume

PATIENT = "Zaphod_Quuxley"
TRAJECTORY = "configs/trajectory.json"


def write_nifti(path, voxels):
    """A volume whose header's text names the patient, with an extension that does, too."""
    image = nib.Nifti1Image(voxels, np.diag([1, 1, 24 / voxels.shape[2], 1]))
    image.header["descrip"], image.header["aux_file"], image.header["db_name"] = (
        b"Zaphod_Quuxley",
        b"Zaphod_Quuxley",
        b"Zaphod_Quuxley",
    )
    image.header.set_intent("estimate", name="Zaphod_Quuxley")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"of Zaphod_Quuxley"))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def source_of(kind, folder):
    """A measurement, or a truth, of one patient, in a file or folder that has the patient's name."""
    if kind == "dicom":
        write_series(folder, VOXELS, AFFINE)
    elif kind == "nifti":
        write_nifti(folder / f"{PATIENT}.nii.gz", thick_voxels())
    elif kind == "evaluation":
        write_nifti(folder / f"{PATIENT}.nii.gz", head_voxels((20, 18, 24)))
    elif kind == "ct":
        measure(folder, "parallel")
        for suffix in ("npz", "json"):
            (folder / f"scan.{suffix}").rename(folder / f"{PATIENT}.{suffix}")
    else:
        write_scan(folder / f"{PATIENT}.h5")
    return folder


CONFIGS = {"dicom": [INFERENCE, TRAJECTORY], "nifti": [INFERENCE], "evaluation": [INFERENCE, EVALUATE],
           "ct": [INFERENCE, "configs/task_svct.json"], "k-space": [INFERENCE, "configs/task_csmri.json"]}  # fmt: skip


def contents(folder):
    """{path within the folder: bytes} of its files, unpacked where they are packed, with what is around them."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {n: b + gzip.decompress(b) if n.endswith(".gz") else b for n, b in files.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGS)
def test_nothing_that_a_run_leaves_names_the_patient(kind, run_here, tiny_overrides, tiny_weights, tmp_path, capfd):
    source = source_of(kind, tmp_path / PATIENT)
    adapted = shutil.copy(tiny_weights, tmp_path / f"{PATIENT}_prior.pt")
    settings = {"output_format": "both", "report": True, "checkpoint": str(adapted), "deidentify": "true"}
    overrides = tiny_overrides(source, **settings)
    run_here("inference", CONFIGS[kind], overrides)
    said = capfd.readouterr().err
    results = contents(tmp_path / "results")
    assert len(results) > 5
    for name, content in results.items():
        found = [s for s in (b"Zaphod", b"Quuxley", str(tmp_path).encode()) if s in name.encode() + content]
        assert not found, (name, found)
    (case,) = (tmp_path / "results").iterdir()
    record = json.loads((case / "run.json").read_text(encoding="utf-8"))
    assert record["source"] is None and case.name == f"case_{record['fingerprint']}"
    assert record["settings"]["checkpoint"] == fingerprint(adapted)
    assert PATIENT in said and f"is called {case.name}" in said  # who runs it is told which is which
    before = (case / "run.json").stat().st_mtime_ns
    run_here("inference", CONFIGS[kind], overrides | {"skip_finished": True})
    assert (case / "run.json").stat().st_mtime_ns == before


def test_the_text_of_a_nifti_header_goes_and_its_place_stays(run_here, tiny_overrides, tmp_path):
    write_nifti(tmp_path / "scan.nii.gz", thick_voxels())
    results = {}
    for on in (False, "shift_dates"):
        output = tmp_path / str(on)
        run_here(
            "inference", INFERENCE, tiny_overrides(tmp_path / "scan.nii.gz", deidentify=on, output_dir=str(output))
        )
        (path,) = output.rglob("*_recon.nii.gz")
        results[on] = nib.load(path)
    named, other = results[False], results["shift_dates"]
    assert {f: bytes(named.header[f]).strip(b"\0") for f in TEXT} == dict.fromkeys(TEXT, b"Zaphod_Quuxley")
    for field in named.header:
        if field in TEXT:
            assert bytes(other.header[field]).strip(b"\0") == b""
        else:
            np.testing.assert_array_equal(other.header[field], named.header[field], err_msg=field)
    np.testing.assert_array_equal(other.get_fdata(), named.get_fdata())


def test_a_nifti_scan_becomes_a_series_without_a_name(run_here, tiny_overrides, tmp_path):
    scan = write_volume(tmp_path / "scan.nii.gz", thick_voxels(), AFFINE)
    run_here("inference", INFERENCE, tiny_overrides(scan, output_format="dicom", deidentify="true"))
    (path,) = (tmp_path / "results").rglob("0001.dcm")
    first = pydicom.dcmread(path)
    assert (first.PatientName, first.Modality, first.PatientIdentityRemoved) == ("", "MR", "YES")


def test_names_come_from_the_data_and_not_from_their_order(tmp_path, capfd):
    for name, seed in (("a", 0), ("b", 1), ("copy", 0)):
        write_volume(tmp_path / f"{name}.nii", thick_voxels(seed))
    items = [{"image": str(tmp_path / f"{name}.nii"), "case": name} for name in ("a", "b", "copy")]
    one, two, three = nameless(items)
    assert one["case"] == f"case_{fingerprint(items[0]['image'])}" != two["case"]
    assert three["case"] == f"{one['case']}_2" and three["named"] == "copy"
    assert nameless(items[1:2])[0]["case"] == two["case"] and items[0]["case"] == "a"
    assert f"{items[1]['image']} is called {two['case']}\n" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["ct", "k-space"])
def test_the_case_of_raw_data_is_called_as_the_run_calls_it(kind, tmp_path):
    path = next(p for p in source_of(kind, tmp_path / "raw").iterdir() if p.suffix != ".json")
    load = {"ct": LoadProjectionsd, "k-space": LoadKspaced}[kind]("image")
    assert load({"image": str(path), "case": "case_1"})["image"].meta["case"] == "case_1"
    assert load({"image": str(path)})["image"].meta["case"] == PATIENT


def test_settings_name_no_file_and_no_folder(tmp_path):
    scan = write_volume(tmp_path / f"{PATIENT}.nii.gz", thick_voxels())
    said = without_paths({"guide": str(tmp_path), "checkpoint": str(scan), "seed": 0, "start": "tests"})
    assert said == {"guide": "a folder", "checkpoint": fingerprint(scan), "seed": 0, "start": "tests"}


@pytest.mark.parametrize("key", ["region", "mask", "guide"])
def test_a_companion_is_still_found_by_the_name_of_its_volume(key, tmp_path):
    scan = write_volume(tmp_path / "in" / f"{PATIENT}.nii.gz", thick_voxels())
    own = write_volume(tmp_path / "own" / f"{PATIENT}.nii.gz", thick_voxels())
    option = {"region": "region_dir"}.get(key, key if key == "guide" else "mask_dir")
    cases = Cases(str(scan), lambda d: d, deidentify=True, **{option: str(own.parent)})
    assert cases.usable[0][key] == str(own) and "named" not in cases.usable[0]


def test_a_mask_is_still_found_by_the_name_of_its_volume(tmp_path):
    write_series(tmp_path / PATIENT, VOXELS, AFFINE)
    mask = write_volume(tmp_path / "masks" / f"{PATIENT}.nii.gz", thick_voxels())
    reader = type("Reader", (), {"series": None})
    cases = Cases(str(tmp_path / PATIENT), lambda d: d, str(mask.parent), reader, deidentify=True)
    (item,) = cases.usable
    assert (
        item["region"] == str(mask) and item["case"].startswith("case_") and PATIENT not in (item.keys(), item["case"])
    )


def test_other_data_under_a_name_without_a_source_are_not_taken_for_these(tmp_path):
    volume = write_volume(tmp_path / "scan.nii", thick_voxels())
    record = tmp_path / "results" / "scan" / "run.json"
    record.parent.mkdir(parents=True)
    for known, finished in ((fingerprint(volume), ["scan"]), ("0" * 16, [])):
        record.write_text(json.dumps({"source": None, "fingerprint": known}), encoding="utf-8")
        arguments = {"skip_finished": True, "output_dir": str(tmp_path / "results")}
        if finished:
            assert Cases(str(volume), lambda d: d, **arguments).finished == finished
        else:
            with pytest.raises(ValueError, match="holds the results of other data: choose another output_dir"):
                Cases(str(volume), lambda d: d, **arguments)
