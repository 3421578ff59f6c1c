"""The module's parts on Python's path, with Slicer's modules replaced."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from tests.support import fake_slicer
from tests.support.scans import ROOT

MODULE = ROOT / "slicer" / "InterSliceReconstruction"


@pytest.fixture
def anew(monkeypatch):
    """The module's parts can be imported, and are imported anew."""
    monkeypatch.syspath_prepend(str(MODULE))
    for name in [n for n in sys.modules if n.startswith("InterSliceReconstruction")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def slicer(tmp_path, monkeypatch, anew):
    """Slicer with an empty scene."""
    (tmp_path / "temporary").mkdir()
    made = fake_slicer.Slicer(tmp_path / "temporary")
    vtk = SimpleNamespace(vtkMatrix4x4=fake_slicer.Matrix)
    for name, module in (("slicer", made), ("vtk", vtk)):
        monkeypatch.setitem(sys.modules, name, module)
    base = ModuleType("slicer.ScriptedLoadableModule")
    for name in ("", "Widget", "Logic", "Test"):
        setattr(base, f"ScriptedLoadableModule{name}", type(f"Base{name}", (), {"__init__": lambda self, *_: None}))
    monkeypatch.setitem(sys.modules, base.__name__, base)
    return made
