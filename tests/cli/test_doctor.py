"""`interslice doctor`: a sound installation passes; each fault is named, and the other checks still run."""

import re

import pytest
import torch

from interslice.cli import doctor
from interslice.files.root_cause import root_cause
from interslice.noise.field import SlerpNoise
from interslice.physics.thick import ThroughPlane
from tests.support.scans import random_network


def examined(capsys, device="cpu", folder=None):
    failed = doctor.examine(device, folder or doctor.ROOT / "eval")
    lines = capsys.readouterr().out.splitlines()
    return failed, {line[7:19].strip(): line for line in lines}


@pytest.mark.slow
def test_this_installation_is_well(capsys, tmp_path):
    failed, said = examined(capsys, folder=tmp_path)
    assert failed == 0, said
    assert all(line.startswith("ok ") for line in said.values()) and len(said) == 8
    assert list(tmp_path.iterdir()) == []


def test_a_missing_and_another_version_are_named(monkeypatch):
    real = doctor.importlib.metadata.version

    def version(package):
        if package == "h5py":
            raise doctor.importlib.metadata.PackageNotFoundError(package)
        return "0.1" if package == "scipy" else real(package)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    with pytest.raises(doctor.Wrong, match=r"missing: h5py; other versions: scipy 0.1 \(tested.*pip install -r"):
        doctor.versions()


def test_an_installed_package_is_held_to_what_it_asks_for(monkeypatch):
    asked = ["torch>=2.13,<3", "scipy<1", "numba>=1; extra == 'ct'"]
    monkeypatch.setattr(doctor, "is_installed", lambda: True)
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _: asked)
    with pytest.raises(
        doctor.Wrong, match=r"^other versions: scipy [\d.]+ \(tested with <1\).*: pip install \. in the .*"
    ):
        doctor.versions()
    del asked[1]
    assert "1 packages as asked for" in doctor.versions()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_named():
    with pytest.raises(doctor.Wrong, match="device cuda cannot be used .*: try --device cpu"):
        doctor.device("cuda")


def test_weights_of_another_task_are_named(tmp_path, monkeypatch):
    scale = {"kind": "hounsfield", "low": -1000.0, "high": 1000.0}
    torch.save(random_network(scale=scale).state_dict(), tmp_path / "model.pt")
    real = doctor.workflow
    monkeypatch.setattr(doctor, "workflow", lambda c, **s: real(c, checkpoint=str(tmp_path / "model.pt"), **s))
    with pytest.raises(RuntimeError) as error:
        doctor.weights("MRI", [], doctor.ROOT / "sample_data/mri/truth/colin27_t1.nii.gz")
    assert "were trained on Hounsfield units" in root_cause(error.value)


@pytest.mark.slow
def test_weights_that_do_not_denoise_are_named(tmp_path, monkeypatch):
    shipped = torch.load(doctor.ROOT / "models/model.pt", weights_only=True)
    torch.save({k: torch.randn_like(v) * 0.01 if v.is_floating_point() else v for k, v in shipped.items()},
               doctor.ROOT / tmp_path / "model.pt")  # fmt: skip
    real = doctor.workflow
    monkeypatch.setattr(doctor, "workflow", lambda c, **s: real(c, checkpoint=str(tmp_path / "model.pt"), **s))
    with pytest.raises(doctor.Wrong, match="does not remove noise .*fetch that again"):
        doctor.weights("MRI", [], doctor.ROOT / "sample_data/mri/truth/colin27_t1.nii.gz")


def test_an_adjoint_that_is_none_is_named(monkeypatch):
    monkeypatch.setattr(ThroughPlane, "adjoint", lambda self, y: self._along(y, "pseudo_inverse"))
    with pytest.raises(doctor.Wrong, match="thick slices: <Ax, y> = .*please report"):
        doctor.adjoints()


def test_noise_that_is_not_as_stated_is_named(monkeypatch):
    real = SlerpNoise._draw
    monkeypatch.setattr(SlerpNoise, "_draw", lambda self, *a, **k: 1.2 * real(self, *a, **k))
    with pytest.raises(doctor.Wrong, match="slerp: a covariance is off by 0.4"):
        doctor.noise_fields()


def test_a_full_or_closed_disk_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(doctor.Wrong, match="cannot be written .*choose another --output_dir"):
        doctor.disk(tmp_path / "file" / "below")
    monkeypatch.setattr(doctor, "FREE_SPACE", 1e9)
    with pytest.raises(doctor.Wrong, match="GB are left beside"):
        doctor.disk(tmp_path)


def test_one_fault_does_not_hide_the_others_and_ends_with_a_status(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "checks", lambda *_: [("one", lambda: 1 / 0), ("two", lambda: "fine")])
    with pytest.raises(SystemExit, match="1 of the checks found something wrong"):
        doctor.main([])
    said = capsys.readouterr().out
    assert re.search(r"WRONG  one +ZeroDivisionError: division by zero\nok +two +fine", said)
