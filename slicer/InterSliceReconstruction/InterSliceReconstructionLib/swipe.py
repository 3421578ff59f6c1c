"""A swipe in a slice view: the foreground volume left of a line, the background right of it.

Slicer blends the two layers of a view with one opacity everywhere. Here the view shows the background alone, and the
finished picture of the foreground, which Slicer makes for every view and moment, is laid over its left part.
"""

from __future__ import annotations

import vtk


class Swipe:
    """The overlay of one slice view.

    Args:
        renderer: of the view.
        picture: output port of the foreground's picture, of the view's size, with colours and opacity (RGBA).
    """

    def __init__(self, renderer, picture) -> None:
        self.renderer = renderer
        self.clip = vtk.vtkImageClip()
        self.clip.SetInputConnection(picture)
        self.clip.ClipDataOn()
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(self.clip.GetOutputPort())
        self.picture = vtk.vtkActor2D()
        self.picture.SetMapper(mapper)
        self.ends = vtk.vtkLineSource()
        line = vtk.vtkPolyDataMapper2D()
        line.SetInputConnection(self.ends.GetOutputPort())
        self.line = vtk.vtkActor2D()
        self.line.SetMapper(line)
        self.line.GetProperty().SetColor(1.0, 0.8, 0.2)
        for actor in (self.picture, self.line):
            renderer.AddViewProp(actor)

    def move(self, share: float, width: int, height: int) -> None:
        """Put the line at a share (0 to 1) of the width of the view, in pixels."""
        column = column_of(share, width)
        self.picture.SetVisibility(column > 0)
        if column > 0:
            self.clip.SetOutputWholeExtent(0, column - 1, 0, height - 1, 0, 0)
        self.ends.SetPoint1(column, 0, 0)
        self.ends.SetPoint2(column, height, 0)

    def remove(self) -> None:
        """Take the overlay away."""
        for actor in (self.picture, self.line):
            self.renderer.RemoveViewProp(actor)


def column_of(share: float, width: int) -> int:
    """How many columns of pixels lie left of a line at this share of the width."""
    return round(min(max(share, 0.0), 1.0) * width)
