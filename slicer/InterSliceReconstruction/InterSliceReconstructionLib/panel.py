"""The panel of the module: widgets, and what happens when they are touched."""

from __future__ import annotations

import os

import ctk
import qt

import slicer

from . import installation, scene
from .compare import Comparison, orientation_for
from .job import NOISES, PRESETS, TASKS, Settings
from .reconstruction import Reconstruction
from .swipe import Swipe

INTERVAL = 300
"""Milliseconds between two looks at the process."""
STEPS = 1000
"""Of the progress bar and the sliders."""
SETTINGS = "InterSliceReconstruction/"
"""Where Slicer keeps the paths between sessions."""
WARNING = "Research software, not for diagnosis: what was not measured is filled in by a diffusion prior."


class Panel:
    """All widgets, in a layout of the module's."""

    def __init__(self, layout) -> None:
        self.run = None
        self.source = None
        self.result = None
        self.comparison = None
        self.timer = qt.QTimer()
        self.timer.setInterval(INTERVAL)
        self.timer.connect("timeout()", self.look)
        self._input(layout)
        self._place(layout)
        self._compare(layout)
        warning = qt.QLabel(WARNING)
        warning.wordWrap = True
        layout.addWidget(warning)
        layout.addStretch(1)
        self.task_changed()
        self.check()

    # -- widgets ------------------------------------------------------------------------------------
    @staticmethod
    def _box(layout, title, closed=False):
        box = ctk.ctkCollapsibleButton()
        box.text, box.collapsed = title, closed
        layout.addWidget(box)
        return qt.QFormLayout(box)

    @staticmethod
    def _choice(form, label, names, titles=None):
        box = qt.QComboBox()
        for name, title in zip(names, titles or names):
            box.addItem(title, name)
        form.addRow(label, box)
        return box

    @staticmethod
    def _button(text, work, enabled=True):
        button = qt.QPushButton(text)
        button.enabled = enabled
        button.connect("clicked(bool)", lambda *_: work())
        return button

    @staticmethod
    def _slider(form, label, work):
        slider = qt.QSlider(qt.Qt.Horizontal)
        slider.setRange(0, STEPS)
        slider.connect("valueChanged(int)", lambda value: work(value / STEPS))
        form.addRow(label, slider)
        return slider

    def _input(self, layout) -> None:
        form = self._box(layout, "Reconstruct")
        self.task = self._choice(form, "Task:", [*TASKS], [title for title, _ in TASKS.values()])
        self.task.connect("currentIndexChanged(int)", lambda *_: self.task_changed())
        self.volume = slicer.qMRMLNodeComboBox()
        self.volume.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.volume.addEnabled = self.volume.removeEnabled = False
        self.volume.noneEnabled, self.volume.showChildNodeTypes = True, False
        self.volume.setMRMLScene(slicer.mrmlScene)
        form.addRow("Volume:", self.volume)
        self.path = ctk.ctkPathLineEdit()
        self.path.filters = ctk.ctkPathLineEdit.Files | ctk.ctkPathLineEdit.Dirs
        self.path.toolTip = "A NIfTI file, a folder with a DICOM series, projections or k-space"
        form.addRow("Or a file or folder:", self.path)
        self.preset = self._choice(form, "Preset:", PRESETS)
        self.noise = self._choice(form, "Noise field:", NOISES)
        self.seed = qt.QSpinBox()
        self.seed.setRange(0, 2**31 - 1)
        form.addRow("Seed:", self.seed)
        self.device = self._choice(form, "Device:", ("", "cpu", "cuda"), ("GPU if there is one", "CPU", "GPU"))
        self.output = self._directory()
        self.output.toolTip = "Where files of the results go; empty: they are in the scene alone"
        form.addRow("Keep files in:", self.output)
        self.start_button = self._button("Reconstruct", self.start)
        self.cancel_button = self._button("Cancel", self.cancel, enabled=False)
        row = qt.QHBoxLayout()
        row.addWidget(self.start_button)
        row.addWidget(self.cancel_button)
        form.addRow(row)
        self.bar = qt.QProgressBar()
        self.bar.setRange(0, STEPS)
        form.addRow(self.bar)
        self.status = qt.QLabel()
        self.status.wordWrap = True
        form.addRow(self.status)

    def _place(self, layout) -> None:
        form = self._box(layout, "Installation", closed=True)
        self.python = ctk.ctkPathLineEdit()
        self.python.filters = ctk.ctkPathLineEdit.Files | ctk.ctkPathLineEdit.Executable
        self.python.toolTip = "The Python of an environment that has the package; empty: that of Slicer"
        self.python.currentPath = qt.QSettings().value(f"{SETTINGS}python", "")
        form.addRow("Python:", self.python)
        self.root = self._directory()
        self.root.toolTip = "The folder of the bundle, with configs/ and models/; empty: where the package lies"
        self.root.currentPath = qt.QSettings().value(f"{SETTINGS}root", "")
        form.addRow("Bundle:", self.root)
        self.advice = qt.QLabel()
        self.advice.wordWrap = True
        self.advice.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        form.addRow(self.advice)
        self.install_button = self._button("Install into Slicer's Python", self.install, enabled=False)
        form.addRow(self._button("Check", self.check), self.install_button)

    def _compare(self, layout) -> None:
        form = self._box(layout, "Compare input and result")
        self.beside_button = self._button("Side by side", self.side_by_side, enabled=False)
        form.addRow(self.beside_button)
        self.fade = self._slider(form, "Fade:", lambda share: self.shown(lambda c: c.fade(share)))
        self.swipe = self._slider(form, "Swipe:", lambda share: self.shown(lambda c: c.swipe(share)))
        self.fade.enabled = self.swipe.enabled = False

    @staticmethod
    def _directory():
        edit = ctk.ctkPathLineEdit()
        edit.filters = ctk.ctkPathLineEdit.Dirs
        return edit

    # -- where the package is -----------------------------------------------------------------------
    def is_own(self) -> bool:
        """Whether Slicer's Python is to run it."""
        return not self.python.currentPath

    def environment(self) -> dict:
        """Of the Python that runs it: Slicer's own needs Slicer's, any other must not have it."""
        return dict(os.environ) if self.is_own() else slicer.util.startupEnvironment()

    def check(self) -> None:
        """Look for the package, and say what is missing."""
        for name in ("python", "root"):
            qt.QSettings().setValue(f"{SETTINGS}{name}", getattr(self, name).currentPath)
        hint = self.root.currentPath
        python = self.python.currentPath or installation.slicer_python()
        self.found = installation.look(python, hint, self.environment())
        self.advice.text = installation.advice(self.found, hint, self.is_own()) or f"Ready: {self.found.root}"
        able = self.is_own() and self.found.version >= installation.LOWEST and installation.is_bundle(hint)
        self.install_button.enabled = able and not self.found.ready
        self.start_button.enabled = self.found.ready and self.run is None

    def install(self) -> None:
        """Put the package into Slicer's Python, which the user has asked for by this click alone."""
        with slicer.util.tryWithErrorDisplay("The package could not be installed.", waitCursor=True):
            slicer.util.pip_install(installation.requirements(self.root.currentPath))
        self.check()

    # -- a run --------------------------------------------------------------------------------------
    def task_changed(self) -> None:
        """Only thick slices can be a volume of the scene; the rest is files."""
        self.volume.enabled = self.task.currentData == "thick"

    def settings(self) -> Settings:
        """What is set."""
        chosen = (box.currentData for box in (self.task, self.preset, self.noise))
        return Settings(*chosen, seed=self.seed.value, device=self.device.currentData)

    def start(self) -> None:
        """Begin, in a process of its own."""
        settings, path = self.settings(), self.path.currentPath
        node = self.volume.currentNode() if settings.task == "thick" and not path else None
        try:
            self.run = Reconstruction(
                slicer, self.found, settings, output_dir=self.output.currentPath, base=self.environment(), node=node,
                path=path,
            )  # fmt: skip
        except (OSError, RuntimeError, ValueError) as error:
            slicer.util.errorDisplay(str(error))
            return
        self.busy(True, "Reading")
        self.timer.start()

    def cancel(self) -> None:
        """End the run."""
        if self.run is not None:
            self.run.cancel()
            self.status.text = "Ending"

    def look(self) -> None:
        """See how far it is, and bring in what is done."""
        if self.run is None:
            return
        if not self.run.ended():
            if self.run.progress is not None and not self.run.job.cancelled:
                self.bar.value = round(STEPS * self.run.progress.share)
                self.status.text = str(self.run.progress)
            return
        self.timer.stop()
        run, self.run = self.run, None
        try:
            said = self.finish(run)
        finally:
            run.close()
            self.busy(False, "")
        self.status.text = said

    def finish(self, run: Reconstruction) -> str:
        """Load what was made, even where other cases failed; returns what to say."""
        nodes, warnings = run.load()
        if nodes:
            self.source, self.result = run.node, nodes[-1]
            self.comparison = Comparison(slicer, self.source, self.result, Swipe)
            self.beside_button.enabled = self.fade.enabled = self.swipe.enabled = self.source is not None
            if self.source is not None:
                self.side_by_side()
            else:
                slicer.util.setSliceViewerLayers(background=self.result, fit=True)
        failed = run.failure()
        if failed:
            slicer.util.errorDisplay(failed)
        if run.job.cancelled:
            return "Cancelled"
        return "; ".join([f"Loaded {len(nodes)} results" if len(nodes) != 1 else "Loaded the result", *warnings])

    def busy(self, running: bool, said: str) -> None:
        """Whether the buttons start or cancel."""
        self.start_button.enabled, self.cancel_button.enabled = not running and self.found.ready, running
        self.bar.value = 0
        self.status.text = said

    # -- comparing ----------------------------------------------------------------------------------
    def shown(self, work) -> None:
        """Do something with the two volumes, if both are still in the scene."""
        gone = [node for node in (self.source, self.result) if node is None or node.GetScene() is None]
        if self.comparison is not None and not gone:
            work(self.comparison)

    def side_by_side(self) -> None:
        """Both, in the orientation that shows the thick slices."""
        self.shown(lambda c: c.side_by_side(orientation_for(scene.affine_of(slicer, self.source))))

    def close(self) -> None:
        """Slicer ends, or reloads the module: the process goes, and so do the lines in the views."""
        self.timer.stop()
        if self.run is not None:
            self.run.cancel()
            self.run.close()
            self.run = None
        if self.comparison is not None:
            self.comparison.stop()
