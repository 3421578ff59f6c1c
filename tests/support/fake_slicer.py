"""Slicer's Python interface, as far as the module uses it: a scene of volumes that nibabel reads and writes, and views.

Written after Slicer's documentation; where the two differ, these tests say nothing.
"""

from __future__ import annotations

from types import SimpleNamespace

import nibabel as nib
import numpy as np


class Matrix:
    """vtk.vtkMatrix4x4."""

    def __init__(self):
        self.array = np.eye(4)


class Display:
    def __init__(self):
        self.window, self.level, self.auto = 1.0, 0.5, True

    def GetWindow(self):
        return self.window

    def GetLevel(self):
        return self.level

    def SetAutoWindowLevel(self, on):
        self.auto = bool(on)

    def SetWindowLevel(self, window, level):
        self.window, self.level = window, level


class Volume:
    """vtkMRMLScalarVolumeNode: voxels (I, J, K) and their place."""

    def __init__(self, name, voxels, affine, scene=None):
        self.name, self.voxels, self.affine, self.scene = name, voxels, np.asarray(affine, float), scene
        self.attributes, self.transform, self.storage, self.display = {}, None, None, Display()

    def GetName(self):
        return self.name

    def GetID(self):
        return f"id of {self.name}"

    def GetScene(self):
        return self.scene

    def GetAttribute(self, name):
        return self.attributes.get(name)

    def GetImageData(self):
        return None if self.voxels is None else SimpleNamespace(GetDimensions=lambda: self.voxels.shape)

    def GetIJKToRASMatrix(self, matrix):
        matrix.array = self.affine

    def GetDisplayNode(self):
        return self.display

    def GetTransformNodeID(self):
        return self.transform

    def SetAndObserveTransformNodeID(self, transform):
        self.transform = transform

    def GetStorageNode(self):
        return self.storage

    def SetAndObserveStorageNodeID(self, storage):
        self.storage = storage


class View:
    """A slice widget with its nodes."""

    def __init__(self, name):
        self.name, self.orientation, self.fitted, self.rendered = name, "Axial", 0, 0
        self.linked, self.hot, self.layers = False, False, {}
        self.size, self.observers, self.renderer = (300, 200, 1), {}, object()

    mrmlSliceNode = mrmlSliceCompositeNode = sliceLogic = sliceView = lambda self: self  # noqa: E731

    def SetOrientation(self, orientation):
        self.orientation = orientation

    def SetLinkedControl(self, on):
        self.linked = on

    def SetHotLinkedControl(self, on):
        self.hot = on

    def SetBackgroundVolumeID(self, volume):
        self.layers["background"] = volume

    def SetForegroundVolumeID(self, volume):
        self.layers["foreground"] = volume

    def SetLabelVolumeID(self, volume):
        self.layers["label"] = volume

    def FitSliceToAll(self):
        self.fitted += 1

    def GetDimensions(self):
        return self.size

    def AddObserver(self, event, work):
        assert event == "ModifiedEvent"
        self.observers[len(self.observers) + 1] = work
        return len(self.observers)

    def RemoveObserver(self, tag):
        del self.observers[tag]

    def scheduleRender(self):
        self.rendered += 1

    def renderWindow(self):
        return SimpleNamespace(GetRenderers=lambda: SimpleNamespace(GetItemAsObject=lambda k: self.renderer))

    def GetForegroundLayer(self):
        return SimpleNamespace(GetImageDataConnection=lambda: f"picture of {self.name}")


class Layouts:
    """The layout manager and its node."""

    def __init__(self):
        self.views = {name: View(name) for name in ("Red", "Green", "Yellow")}
        self.shown = {*self.views}
        self.descriptions, self.layout = {}, 1

    layoutLogic = GetLayoutNode = lambda self: self  # noqa: E731

    def IsLayoutDescription(self, number):
        return number in self.descriptions

    def AddLayoutDescription(self, number, text):
        assert number not in self.descriptions
        self.descriptions[number] = text

    def SetLayoutDescription(self, number, text):
        assert number in self.descriptions
        self.descriptions[number] = text

    def setLayout(self, number):
        import xml.etree.ElementTree as tree

        self.layout = number
        names = [v.get("singletontag") for v in tree.fromstring(self.descriptions[number]).iter("view")]
        self.views |= {name: View(name) for name in names if name not in self.views}
        self.shown = {*names}

    def sliceViewNames(self):
        return sorted(self.shown)

    def sliceWidget(self, name):
        return self.views.get(name)


class Slicer:
    """The module `slicer`."""

    def __init__(self, folder):
        self.nodes, self.said, self.installed, self.layers = [], [], [], {}
        self.database = {}
        self.layouts = Layouts()
        self.app = SimpleNamespace(temporaryPath=str(folder), layoutManager=lambda: self.layouts,
                                   processEvents=lambda: None)  # fmt: skip
        self.mrmlScene = SimpleNamespace(RemoveNode=lambda node: None)
        self.dicomDatabase = SimpleNamespace(instanceValue=lambda uid, tag: self.database.get((uid, tag), ""))
        self.util = SimpleNamespace(
            exportNode=self.export, loadVolume=self.load, arrayFromVTKMatrix=lambda m: m.array.copy(),
            setSliceViewerLayers=lambda **layers: self.layers.update(layers), errorDisplay=self.said.append,
            pip_install=self.installed.append, startupEnvironment=lambda: {"PATH": "of the system"},
        )  # fmt: skip

    def add(self, name, voxels, affine):
        self.nodes.append(Volume(name, voxels, affine, self.mrmlScene))
        return self.nodes[-1]

    def export(self, node, path, properties=None, world=False):
        nib.save(nib.Nifti1Image(node.voxels, node.affine), path)
        return True

    def load(self, path, properties):
        image = nib.load(path)
        node = self.add(properties["name"], np.asarray(image.dataobj), image.affine)
        node.storage, node.shown = f"storage of {path}", properties["show"]
        return node
