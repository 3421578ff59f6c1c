"""Who may import whom: the parts meet in the configs, and a loop of imports would undo that."""

import ast

import pytest

from tests.support.scans import ROOT

BELOW = {"noise": set(), "files": set(), "physics": {"files"}, "prior": {"files"}}
BELOW["sampling"] = {*BELOW}
BELOW["report"] = {*BELOW}
BELOW["page"] = {"files"}
BELOW["bids"] = {"files", "physics"}
BELOW["pacs"] = {"files"}
BELOW["cli"] = {*BELOW}
"""The rooms of the package that each may import, besides itself and HALL."""
HALL = ("home", "planes", "ranks", "usage")
"""Modules that belong to no room."""
MODULES = sorted(p for p in (ROOT / "interslice").rglob("*.py"))


def imports(path):
    tree = path if isinstance(path, ast.AST) else ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.parent.name != "interslice"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_run_one_way(path):
    room = path.relative_to(ROOT / "interslice").parts[0]
    used = {name.split(".")[1] for name in imports(path) if name.startswith("interslice.")}
    assert used <= {room, *HALL} | BELOW[room]
    assert not any(name.split(".")[0] in ("scripts", "tests") for name in imports(path))


def test_few_modules_stand_in_the_hall():
    hall = {"__init__.py", "__main__.py", *(f"{name}.py" for name in HALL)}
    assert {p.name for p in MODULES if p.parent.name == "interslice"} == hall


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_solver_does_no_input_or_output():
    banned = {"matplotlib", "nibabel", "json", "pathlib", "os", "pydicom", "itk", "h5py"}
    maths = [p for p in MODULES if p.parts[-2] in ("noise", "sampling", "thick")]
    maths += [
        ROOT / "interslice/physics/ct" / f"{n}.py" for n in ("cone_beam", "ray_transform", "filtered_back_projection")
    ]
    for path in maths:
        assert not {n.split(".")[0] for n in imports(path)} & banned, path


UNIX = ("chown", "fork", "getuid", "posix_fallocate", "sched_getaffinity", "statvfs")
"""Functions of `os` that Windows lacks."""


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_one_system_alone_has_is_asked_for_first(path):
    """Modules of Unix are imported where the system is known; its functions are looked for before they are called."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    for node in tree.body:
        for name in imports(ast.Module([node], [])) if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            assert name.split(".")[0] not in ("fcntl", "grp", "posix", "pwd", "resource", "termios"), name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            alone = node.attr in UNIX
            assert not alone or f'hasattr(os, "{node.attr}")' in text, f"os.{node.attr}"


@pytest.mark.slow
def test_importing_the_package_changes_nothing_for_others(fresh_python):
    """No backend, warning filter or log level is set by an import; drawing keeps no figure."""
    code = """
import importlib, logging, pkgutil, warnings
import h5py, ignite, ismrmrd, itk, matplotlib, monai.bundle, monai.engines, monai.handlers, monai.networks.nets
import monai.transforms, nibabel, numba, pydicom, scipy.ndimage, skimage.restoration, torch.utils.tensorboard, tqdm

def state():
    loggers = {n: l.level for n, l in logging.root.manager.loggerDict.items() if isinstance(l, logging.Logger)}
    return matplotlib.rcParams["backend"], list(warnings.filters), loggers

before = state()
import interslice
for module in pkgutil.walk_packages(interslice.__path__, "interslice."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        assert error.name == "triton", error  # for GPUs, and not in requirements-dev.txt
after = state()
assert after[0] == before[0], after[0]
assert after[1] == before[1], [f for f in after[1] if f not in before[1]]
assert before[2].items() <= after[2].items(), before[2].items() - after[2].items()
"""
    fresh_python(code)
