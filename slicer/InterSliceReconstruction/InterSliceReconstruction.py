"""Reconstructs volumes with the package interslice, inside 3D Slicer (docs/how_to/slicer.md)."""

from __future__ import annotations

import time

from InterSliceReconstructionLib import installation
from InterSliceReconstructionLib.job import Settings
from InterSliceReconstructionLib.panel import Panel
from InterSliceReconstructionLib.reconstruction import Reconstruction
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

import slicer


class InterSliceReconstruction(ScriptedLoadableModule):
    """What Slicer says of the module."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "Inter-slice reconstruction"
        parent.categories = ["Filtering"]
        parent.dependencies = []
        parent.contributors = ["The authors of interslice"]
        parent.helpText = (
            "Makes isotropic volumes of thick MRI slices, and volumes of few CT views or undersampled k-space, with a "
            "2-D diffusion prior whose noise agrees between slices. Research software, not for diagnosis."
        )
        parent.acknowledgementText = (
            "The idea of slice-consistent noise is of Du et al., ICLR 2026 (arXiv 2602.04162); this is an independent "
            "implementation."
        )


class InterSliceReconstructionWidget(ScriptedLoadableModuleWidget):
    """The panel in Slicer's frame."""

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        self.panel = Panel(self.layout)

    def cleanup(self) -> None:
        self.panel.close()


class InterSliceReconstructionLogic(ScriptedLoadableModuleLogic):
    """For scripts: one call that waits, with Slicer's windows alive."""

    def reconstruct(self, node, python: str = "", root: str = "", **settings):
        """The reconstructed volume of a node.

        Args:
            node: a scalar volume.
            python: that runs it; empty: Slicer's.
            root: folder of the bundle; empty: where the package lies.
            settings: see `InterSliceReconstructionLib.job.Settings`.

        Raises:
            RuntimeError: the package is missing, or the reconstruction failed; it says why.
        """
        base = slicer.util.startupEnvironment() if python else None
        found = installation.look(python or installation.slicer_python(), root, base)
        if not found.ready:
            raise RuntimeError(installation.advice(found, root, not python))
        run = Reconstruction(slicer, found, Settings(**settings), base=base, node=node)
        try:
            while not run.ended():
                slicer.app.processEvents()
                time.sleep(0.1)
            if run.failure():
                raise RuntimeError(run.failure())
            (volume,), _ = run.load()
            return volume
        finally:
            run.cancel()
            run.close()


class InterSliceReconstructionTest(ScriptedLoadableModuleTest):
    """Inside Slicer: a small volume comes back in its place, if the package is installed."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_a_small_volume()

    def test_a_small_volume(self) -> None:
        import numpy as np

        if not installation.look(installation.slicer_python()).ready:
            self.delayDisplay("Slicer's Python has no interslice: nothing is tested")
            return
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (6, 24, 24)], indexing="ij"))
        node = slicer.util.addVolumeFromArray((900 * (np.square(grid).sum(0) < 0.7)).astype(np.float32))
        node.SetName("ball")
        node.SetSpacing(1, 1, 4)
        volume = InterSliceReconstructionLogic().reconstruct(node, preset="fast", device="cpu")
        self.assertEqual(volume.GetImageData().GetDimensions(), (24, 24, 24))
        self.assertGreater(np.corrcoef(slicer.util.arrayFromVolume(volume)[2::4].ravel(),
                                       slicer.util.arrayFromVolume(node).ravel())[0, 1], 0.9)  # fmt: skip
