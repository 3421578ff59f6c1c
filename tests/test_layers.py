"""Who may import whom: the parts meet in the configs, and a loop of imports would undo that."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FREE = {
    "torch",
    "torch.nn.functional",
    "numpy",
    "math",
    "copy",
    "abc",
    "collections",
    "collections.abc",
    "functools",
    "numbers",
    "dataclasses",
    "typing",
    "__future__",
    "json",
    "os",
    "warnings",
    "importlib.util",
    "numba",
}
"""What the maths may import besides itself; numba is optional and kept to one module."""
ALLOWED = {
    "noise": set(),
    "adapters": {"diffusion", "noise"},
    "markov_noise": {"noise"},
    "noise_length": {"markov_noise", "noise"},
    "evidence": {"linear_solvers"},
    "diffusion": set(),
    "linear_solvers": set(),
    "operators": {"operators"},
    "network": {"tracing"},
    "tracing": set(),
    "noise_choice": {"markov_noise", "noise", "noise_length"},
    "variance_exploding": set(),
    "prior": {"diffusion"},
    "total_variation": set(),
    "step": set(),
    "data_consistency": {"linear_solvers", "step", "total_variation"},
    "posterior_steps": {"data_consistency", "linear_solvers", "noise", "step", "total_variation"},
    "volume_noise": {"diffusion"},
    "inferers": {"diffusion", "geometry", "step", "volume_noise"},
    "geometry": set(),
    "intensity": set(),
    "inputs": set(),
    "patches": set(),
    "metrics": set(),
    "report": set(),
    "weights": set(),
    "training": {"outputs"},
    "outputs": set(),
    "run_record": {"inputs", "outputs"},
    "dicom_stack": set(),
    "dicom_input": {"dicom_stack", "inputs"},
    "deidentify": set(),
    "dicom_output": {"", "deidentify", "dicom_input", "dicom_stack", "outputs"},
    "html_parts": {"html_volumes", "report"},
    "html_volumes": set(),
    "html_report": {"geometry", "html_parts", "html_volumes", "inputs", "outputs", "report"},
    "save_results": {"dicom_output", "inputs", "outputs"},
    "baselines": {"linear_solvers", "operators", "total_variation"},
    "attenuation": set(),
    "ismrmrd_files": set(),
    "kspace_files": {"ismrmrd_files", "operators"},
    "kspace": {"intensity", "kspace_files", "linear_solvers"},
    "rtk_geometry": {"operators"},
    "projections": {"attenuation", "inputs", "operators", "rtk_geometry"},
    "trajectory": {"metrics"},
    "slice_paths": set(),
    "trajectory_report": {"report", "slice_paths"},
    "trajectory_output": {"inputs", "outputs", "trajectory", "trajectory_report"},
    "evaluation": {"baselines", "inputs", "metrics", "outputs", "report"},
}
"""Modules of the package that each part may import."""
MATHS = {"noise", "markov_noise", "noise_length", "diffusion", "linear_solvers", "operators"}
"""Parts that need torch and numpy alone."""


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def part(path):
    return path.relative_to(ROOT / "bundle").with_suffix("").parts[0]


MODULES = sorted(p for p in (ROOT / "bundle").rglob("*.py") if part(p) != "__init__")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_part_imports_only_what_it_may(path):
    own = {name.split(".")[1] for name in imports(path) if name.startswith("bundle.")}
    assert own <= ALLOWED[part(path)]
    assert not any(name.split(".")[0] in ("scripts", "tests") for name in imports(path))


@pytest.mark.parametrize("path", [p for p in MODULES if part(p) in MATHS], ids=str)
def test_the_maths_needs_torch_alone(path):
    assert {n for n in imports(path) if not n.startswith("bundle.")} <= FREE


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_solver_does_no_input_or_output():
    banned = {"matplotlib", "nibabel", "json", "pathlib", "os"}
    for name in ("noise", "markov_noise", "diffusion", "prior", "data_consistency", "inferers"):
        assert not {n.split(".")[0] for n in imports(ROOT / f"bundle/{name}.py")} & banned
