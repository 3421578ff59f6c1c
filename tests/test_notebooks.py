"""The notebooks run, with less of everything, and what they say comes true."""

import json
import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.scans import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(name, folder, monkeypatch):
    """Run a notebook where it lies; all that it printed, and how many pictures it drew."""
    for key, value in {"NOTEBOOK_QUICK": "1", "NOTEBOOK_OUTPUT": str(folder), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(key, value)
    before = set(ROOT.iterdir())
    notebook = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
    at = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources=at).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert set(ROOT.iterdir()) <= before | {ROOT / ".pytest_cache"}
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout"), pictures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_kept_without_what_it_showed(path):
    """So that a change of a notebook is a change of its text; and it names the folders that there are."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    text = "".join("".join(cell["source"]) for cell in content["cells"])
    named = re.findall(r"`(docs/[\w/.]+)`|\"((?:sample_data|models|configs)/[\w/.]+)\"", text)
    assert named and all((ROOT / (page or file)).exists() for page, file in named)


@pytest.mark.slow
def test_thick_slices_become_a_volume_nearer_to_the_truth(tmp_path, monkeypatch):
    said, pictures = run("thick_mri", tmp_path, monkeypatch)
    scan, result = map(
        float, re.search(r"PSNR: ([\d.]+) dB of the scan as it is, ([\d.]+) dB of the result", said).groups()
    )
    assert result > scan + 1 and pictures == 4
    assert float(re.search(r"less the scan: at most (\S+) of", said)[1]) < 0.01
    assert (tmp_path / "notebook_mri/adapted/head/head_prior.pt").is_file() and "with the adapted one" in said


@pytest.mark.slow
def test_projections_become_a_volume_in_its_place(tmp_path, monkeypatch):
    """The notebook itself compares the places of result and truth."""
    said, pictures = run("ct_projections", tmp_path, monkeypatch)
    assert pictures == 2 and (tmp_path / "notebook_ct/chest/chest_recon.nii.gz").is_file()
    first, last = (float(re.search(rf"{name}: (\d+) HU off", said)[1]) for name in ("back-projection", "result"))
    assert last < 0.9 * first


@pytest.mark.slow
def test_the_noise_field_makes_the_slices_of_another_solver_agree(tmp_path, monkeypatch):
    said, pictures = run("own_solver", tmp_path, monkeypatch)
    errors = {name: float(error) for name, error in re.findall(r"(\w+)[\w, ]*: inter-slice error ([\d.]+)", said)}
    assert pictures == 1 and errors["Matern"] < 0.8 * errors["independent"]
