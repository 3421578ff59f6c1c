"""Every script ends plainly: its main runs inside `plain_endings`."""

import ast
import os
import subprocess
import sys

import pytest

from tests.support.scans import ROOT

PROGRAMS = [p for p in sorted((ROOT / "scripts").rglob("*.py")) if "if __name__ ==" in p.read_text(encoding="utf-8")]
FAST = [
    ("scripts.prepare_data", ["--sources", "MISSING"], 1, "MISSING: No such file or directory"),
    ("scripts.prepare_data", ["--sources", "BROKEN"], 1, r"a file cannot be read, is it damaged? (JSONDecodeError: "),
    ("scripts.data.make_sample", ["--volume", "BROKEN"], 1, "BROKEN cannot be read, is it damaged?"),
    (
        "scripts.inspect_noise",
        ["--seed", "-1"],
        1,
        "the seed of a draw must be a whole number, not negative, below 2^63",
    ),
    ("scripts.inspect_noise", ["--spacing", "0"], 2, "--spacing must be a positive number of mm"),
    ("scripts.export", ["--zip", "docs"], 1, "docs is a folder: name the file to write"),
    ("scripts.reproduce", ["--only", "x"], 2, "invalid choice"),
]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_main_runs_inside_plain_endings(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.parent.name == "deploy":  # finds the bundle first, from which it takes them
        tree = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
        assert any("plain_endings" in ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.With))
        return
    last = tree.body[-1]
    assert isinstance(last, ast.If) and ast.unparse(last.test) == "__name__ == '__main__'"
    (block,) = last.body
    assert isinstance(block, ast.With) and ast.unparse(block.items[0]).startswith("plain_endings(")


def test_all_programs_are_looked_at():
    assert len(PROGRAMS) >= 15


@pytest.mark.slow
@pytest.mark.parametrize(("module", "words", "status", "said"), FAST)
def test_a_script_that_cannot_go_on_says_why_in_its_last_line(module, words, status, said, tmp_path):
    (tmp_path / "broken.nii").write_text("{")
    places = {"MISSING": str(tmp_path / "none.json"), "BROKEN": str(tmp_path / "broken.nii")}
    words = [places.get(word, word) for word in words]
    for name, place in places.items():
        said = said.replace(name, place)
    done = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
    assert said in done.stderr.strip().splitlines()[-1], done.stderr
