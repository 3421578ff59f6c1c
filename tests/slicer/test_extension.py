"""The folder is what the extension manager's build takes, and its code runs in the Python of older Slicers."""

import ast
import re
import sys

import pytest
from PIL import Image

from scripts.slicer_icon import ICON, icon
from tests.slicer.conftest import MODULE
from tests.support.scans import ROOT

SOURCES = sorted(MODULE.rglob("*.py"))


def test_the_build_names_every_file_and_no_other():
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
    name = re.search(r"set\(MODULE_NAME (\w+)\)", text).group(1)
    named = {line.strip().replace("${MODULE_NAME}", name) for line in text.splitlines() if line.startswith("  ${MOD")}
    named |= {
        line.strip().replace("${MODULE_NAME}", name) for line in text.splitlines() if line.startswith("  Resources")
    }
    files = {p.relative_to(MODULE).as_posix() for p in MODULE.rglob("*") if p.suffix in (".py", ".png")}
    assert named == {f for f in files if "__pycache__" not in f} and name == MODULE.name
    assert "add_subdirectory(InterSliceReconstruction)" in (MODULE.parent / "CMakeLists.txt").read_text(
        encoding="utf-8"
    )
    for folder in ("Testing", "Testing/Python"):
        assert (MODULE / folder / "CMakeLists.txt").is_file()


def test_the_icon_is_that_of_its_script():
    with Image.open(ROOT / ICON) as shipped:
        assert shipped.size == (128, 128) and shipped.convert("RGBA").tobytes() == icon().tobytes()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_code_for_slicer_runs_in_python_3_9_and_needs_nothing_of_the_package(path):
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    ours = {"InterSliceReconstructionLib", "slicer", "qt", "ctk", "vtk", "numpy"}
    assert not names & {"interslice", "torch", "monai", "nibabel", "scripts"}
    assert names - ours <= set(sys.stdlib_module_names)
    first = next((n for n in tree.body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))), None)
    if any(isinstance(n, (ast.FunctionDef, ast.AnnAssign)) for n in ast.walk(tree)):
        assert isinstance(first, ast.ImportFrom) and first.module == "__future__"  # X | None is text in 3.9
