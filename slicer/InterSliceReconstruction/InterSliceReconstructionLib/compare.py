"""The input beside its result, faded into it, or wiped over it, in linked slice views."""

from __future__ import annotations

VIEWS = ("InterSliceInput", "InterSliceResult")
"""Names of the two views side by side."""
LAYOUT = 18201
"""Number of their layout, above those that Slicer has itself."""
DESCRIPTION = (
    '<layout type="horizontal">'
    + "".join(
        f'<item><view class="vtkMRMLSliceNode" singletontag="{tag}">'
        f'<property name="orientation" action="default">{{orientation}}</property>'
        f'<property name="viewlabel" action="default">{label}</property>'
        f'<property name="viewcolor" action="default">{colour}</property></view></item>'
        for tag, label, colour in zip(VIEWS, ("I", "R"), ("#808080", "#4B96D7"))
    )
    + "</layout>"
)


def orientation_for(affine) -> str:
    """The orientation of slice views that shows what thick slices lack: one that contains the thick axis.

    Args:
        affine: (4, 4) from voxels to RAS, mm.
    """
    spacing = [sum(float(affine[row][axis]) ** 2 for row in range(3)) ** 0.5 for axis in range(3)]
    thick = max(range(3), key=spacing.__getitem__)
    along = max(range(3), key=lambda row: abs(float(affine[row][thick])))
    return "Sagittal" if along != 0 else "Coronal"


class Comparison:
    """Two volumes that lie on each other.

    Args:
        slicer: Slicer's module.
        source: the input's node, None where the input was no volume of the scene.
        result: the result's node.
        make_swipe: as `swipe.Swipe`.
    """

    def __init__(self, slicer, source, result, make_swipe=None) -> None:
        self.slicer, self.source, self.result = slicer, source, result
        self._make_swipe = make_swipe
        self._swipes: dict = {}
        self._observed: list = []
        self._share = 0.5

    def side_by_side(self, orientation: str) -> None:
        """The input left, the result right, which scroll, zoom and move together."""
        self.stop()
        manager = self.slicer.app.layoutManager()
        node = manager.layoutLogic().GetLayoutNode()
        description = DESCRIPTION.format(orientation=orientation)
        if node.IsLayoutDescription(LAYOUT):
            node.SetLayoutDescription(LAYOUT, description)
        else:
            node.AddLayoutDescription(LAYOUT, description)
        manager.setLayout(LAYOUT)
        for name, volume in zip(VIEWS, (self.source, self.result)):
            widget = manager.sliceWidget(name)
            widget.mrmlSliceNode().SetOrientation(orientation)
            composite = widget.mrmlSliceCompositeNode()
            composite.SetLinkedControl(True)
            composite.SetHotLinkedControl(True)
            composite.SetBackgroundVolumeID(volume.GetID() if volume is not None else None)
            composite.SetForegroundVolumeID(None)
            composite.SetLabelVolumeID(None)
        for name in VIEWS:
            manager.sliceWidget(name).sliceLogic().FitSliceToAll()

    def fade(self, share: float) -> None:
        """Both in all slice views: the input at 0, the result at 1, a mixture between."""
        self.stop()
        self._layers(share)

    def swipe(self, share: float) -> None:
        """Both in all slice views: the result left of a line at a share of the width, the input right of it."""
        self._share = share
        if not self._swipes:
            self._layers(0.0)
            manager = self.slicer.app.layoutManager()
            for name in manager.sliceViewNames():
                widget = manager.sliceWidget(name)
                renderer = widget.sliceView().renderWindow().GetRenderers().GetItemAsObject(0)
                picture = widget.sliceLogic().GetForegroundLayer().GetImageDataConnection()
                self._swipes[name] = self._make_swipe(renderer, picture)
                node = widget.mrmlSliceNode()
                self._observed.append((node, node.AddObserver("ModifiedEvent", lambda *_: self._move())))
        self._move()

    def stop(self) -> None:
        """Take the lines of a swipe away; the volumes stay in the views."""
        for node, tag in self._observed:
            node.RemoveObserver(tag)
        for swipe in self._swipes.values():
            swipe.remove()
        names, self._observed, self._swipes = list(self._swipes), [], {}
        self._render(names)

    def _layers(self, share: float) -> None:
        self.slicer.util.setSliceViewerLayers(
            background=self.source, foreground=self.result, label=None, foregroundOpacity=share
        )

    def _move(self) -> None:
        manager = self.slicer.app.layoutManager()
        for name, swipe in self._swipes.items():
            width, height, _ = manager.sliceWidget(name).mrmlSliceNode().GetDimensions()
            swipe.move(self._share, width, height)
        self._render(self._swipes)

    def _render(self, names) -> None:
        manager = self.slicer.app.layoutManager()
        for name in names:
            widget = manager.sliceWidget(name)
            if widget is not None:  # a layout may have gone meanwhile
                widget.sliceView().scheduleRender()
