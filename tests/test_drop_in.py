"""docs/how_to/drop_in.md, as it stands: every block of Python runs, is short, and draws a fresh field for each step."""

import ast
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from tests.support.libraries import library
from tests.support.scans import ROOT

PAGE = (ROOT / "docs/how_to/drop_in.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def libraries(code):
    """Top-level modules that a block imports, other than the bundle and torch."""
    imports = [node for node in ast.parse(code).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = [getattr(node, "module", None) or alias.name for node in imports for alias in node.names]
    return {name.split(".")[0] for name in names} - {"interslice", "torch"}


def test_the_page_shows_every_library():
    assert set().union(*map(libraries, CODE)) == {"diffusers", "k_diffusion", "monai", "deepinv"}


@pytest.mark.parametrize("code", CODE, ids=lambda code: "_".join(sorted(libraries(code))))
def test_a_block_is_short_and_runs(code):
    assert len([line for line in code.splitlines() if line.strip()]) < 15
    for name in libraries(code):
        library(name)
    names = {}
    exec(compile(code, "docs/how_to/drop_in.md", "exec"), names)
    x = np.asarray(names["x"])
    assert x.shape in [(12, 1, 16, 16), (12, 16, 16, 1)] and np.isfinite(x).all()
    assert names["noise"].next_step >= 4  # the start, and a field for each step that adds noise


@pytest.mark.slow
@pytest.mark.network
def test_the_block_of_k_diffusion_runs_with_the_real_library(tmp_path):
    """Without what its training needs; in a process of its own, so that nothing is left behind."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*install, "k-diffusion==0.1.1.post1", "torchdiffeq==0.2.5"], check=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    tests = [
        "tests/test_drop_in.py",
        "tests/sampling/test_adapters_libraries.py",
        "-k",
        "k_diffusion and not real_library",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests, "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    assert done.returncode == 0 and "4 passed" in done.stdout and "skipped" not in done.stdout, done.stdout[-3000:]
