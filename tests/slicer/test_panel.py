"""What the panel does when it is touched, with Qt's widgets replaced."""

import contextlib
import sys
import time
from types import SimpleNamespace

import pytest

from tests.slicer.test_reconstruction import COPY
from tests.support import fake_qt
from tests.support.scans import ROOT, THICK, thick_voxels


@pytest.fixture
def kept():
    return {"InterSliceReconstruction/python": sys.executable, "InterSliceReconstruction/root": str(ROOT)}


@pytest.fixture
def panel(slicer, kept, monkeypatch):
    qt, ctk = fake_qt.modules(kept)
    monkeypatch.setitem(sys.modules, "qt", qt)
    monkeypatch.setitem(sys.modules, "ctk", ctk)
    slicer.qMRMLNodeComboBox = fake_qt.Nodes
    slicer.util.tryWithErrorDisplay = lambda *_, **__: contextlib.nullcontext()
    from InterSliceReconstructionLib import panel

    made = panel.Panel(fake_qt.Widget())
    lines = []
    monkeypatch.setattr(panel, "Swipe", lambda *words: lines.append(SimpleNamespace(
        move=lambda *at: None, remove=lambda: lines.pop())) or lines[-1])  # fmt: skip
    made.swipes = lines
    yield made
    made.close()


@pytest.fixture
def pretend(panel, tmp_path):
    """The panel runs this script in place of the bundle."""

    def use(script):
        python = tmp_path / "python"
        python.write_text(
            f"#!{sys.executable}\nimport pathlib, shutil, sys, time\nwords = sys.argv\n"
            "out = pathlib.Path(words[words.index('--output_dir') + 1])\n"
            "source = pathlib.Path(words[words.index('--dataset_dir') + 1])\n" + COPY + script
        )
        python.chmod(0o755)
        panel.found = type(panel.found)(str(python), (3, 11), (), str(ROOT))
        panel.start_button.enabled = True

    return use


def until_done(panel):
    latest = time.monotonic() + 30
    while panel.timer.running:
        assert time.monotonic() < latest
        panel.timer.send()
        time.sleep(0.02)


def test_it_says_whether_it_is_ready(panel, kept):
    assert panel.advice.text == f"Ready: {ROOT}" and panel.start_button.enabled and not panel.cancel_button.enabled
    assert not panel.install_button.enabled  # another Python than Slicer's is not installed into
    panel.python.currentPath = "/nowhere/python"
    panel.check()
    assert "does not start" in panel.advice.text and not panel.start_button.enabled
    assert kept["InterSliceReconstruction/python"] == "/nowhere/python"  # for the next session


def test_nothing_is_installed_without_a_click(panel, slicer, monkeypatch):
    lacking = type(panel.found)("PythonSlicer", (3, 12), ("torch", "interslice"), "")
    monkeypatch.setattr(sys.modules["InterSliceReconstructionLib.installation"], "look", lambda *_: lacking)
    panel.python.currentPath = ""
    panel.check()
    assert "torch, interslice missing in Slicer's Python" in panel.advice.text and not panel.start_button.enabled
    assert slicer.installed == [] and panel.install_button.enabled
    panel.install_button.send(True)
    assert len(slicer.installed) == 1 and str(ROOT) in " ".join(slicer.installed[0])


def test_a_run_from_the_click_to_the_views(panel, pretend, slicer):
    node = slicer.add("scan", thick_voxels(), THICK)
    panel.volume.node = node
    pretend(
        "sys.stderr.write('sampling:  50%|# | 2/4 [00:01<00:01,  1step/s]')\nsys.stderr.flush()\ntime.sleep(0.5)\n"
        "case('scan', source)\nassert words[words.index('--noise') + 1] == 'matern'\n"
        "assert words[words.index('--seed') + 1] == '7'\n"
    )
    panel.noise.choose("matern")
    panel.seed.value = 7
    panel.start_button.send(True)
    assert panel.cancel_button.enabled and not panel.start_button.enabled and panel.status.text == "Reading"
    latest = time.monotonic() + 20
    while panel.bar.value == 0 and time.monotonic() < latest and panel.timer.running:
        panel.timer.send()
    assert panel.bar.value == 500 and panel.status.text == "sampling: 50%, 0:01 left"
    until_done(panel)
    assert panel.status.text == "Loaded the result" and slicer.said == [] and panel.bar.value == 0
    assert panel.start_button.enabled and not panel.cancel_button.enabled
    shown = slicer.layouts.views["InterSliceInput"].layers, slicer.layouts.views["InterSliceResult"].layers
    assert [layers["background"] for layers in shown] == ["id of scan", "id of scan reconstructed"]

    panel.fade.send(250)
    assert slicer.layers["foregroundOpacity"] == 0.25 and slicer.layers["foreground"].GetName() == "scan reconstructed"
    panel.swipe.send(500)
    assert slicer.layers["foregroundOpacity"] == 0.0 and len(panel.swipes) == 2
    panel.beside_button.send(True)
    assert not panel.swipes
    slicer.nodes[1].scene = None  # the result was deleted from the scene
    slicer.layers.clear()
    panel.fade.send(100)
    assert not slicer.layers


def test_a_run_is_cancelled(panel, pretend, slicer, tmp_path):
    panel.path.currentPath = str(tmp_path)
    pretend("time.sleep(60)\n")
    panel.start_button.send(True)
    panel.cancel_button.send(True)
    until_done(panel)
    assert panel.status.text == "Cancelled" and slicer.said == [] and panel.start_button.enabled
    assert not list((tmp_path / "temporary").iterdir())


def test_what_failed_is_shown_beside_what_did_not(panel, pretend, slicer, tmp_path):
    slicer.export(slicer.add("scan", thick_voxels(), THICK), str(tmp_path / "scan.nii.gz"))
    panel.path.currentPath = str(tmp_path / "scan.nii.gz")
    pretend("case('good', source)\nprint('error: 1 of 2 cases failed: bad')\nsys.exit(1)\n")
    panel.start_button.send(True)
    until_done(panel)
    assert slicer.said == ["error: 1 of 2 cases failed: bad"] and panel.status.text == "Loaded the result"
    assert slicer.layers["background"].GetName() == "good reconstructed"
    assert not panel.fade.enabled  # there is nothing to compare with


def test_without_an_input_nothing_starts(panel, pretend, slicer):
    pretend("")
    panel.start_button.send(True)
    assert slicer.said == ["choose what to reconstruct: a volume, or a file or folder"] and not panel.timer.running
    panel.task.choose("ct")
    assert not panel.volume.enabled
    panel.volume.node = slicer.add("scan", thick_voxels(), THICK)
    panel.start_button.send(True)
    assert len(slicer.said) == 2  # a volume is no projections


def test_the_module_as_slicer_loads_it(panel, slicer):
    import InterSliceReconstruction as module

    parent = SimpleNamespace()
    module.InterSliceReconstruction(parent)
    assert parent.title == "Inter-slice reconstruction" and "not for diagnosis" in parent.helpText
    widget = module.InterSliceReconstructionWidget()
    module.ScriptedLoadableModuleWidget.setup = lambda self: None
    widget.layout = fake_qt.Widget()
    widget.setup()
    assert widget.panel.start_button.enabled
    widget.cleanup()
    with pytest.raises(RuntimeError, match="does not start"):
        module.InterSliceReconstructionLogic().reconstruct(None, python="/nowhere/python")
