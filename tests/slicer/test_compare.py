"""Side by side, fading, and swiping, in Slicer's views."""

import numpy as np
import pytest

from tests.support.scans import OBLIQUE, thick_voxels


class Line:
    """In place of VTK's overlay, which was tried by hand with VTK alone."""

    def __init__(self, renderer, picture):
        self.renderer, self.picture, self.at, self.removed = renderer, picture, None, False

    def move(self, share, width, height):
        self.at = (share, width, height)

    def remove(self):
        self.removed = True


@pytest.fixture
def compare(slicer):
    from InterSliceReconstructionLib import compare

    return compare


@pytest.fixture
def two(slicer):
    return [slicer.add(name, thick_voxels(), np.diag([1, 1, 4, 1])) for name in ("scan", "result")]


@pytest.fixture
def comparison(slicer, compare, two):
    lines = []

    def line(renderer, picture):
        lines.append(Line(renderer, picture))
        return lines[-1]

    made = compare.Comparison(slicer, *two, line)
    made.lines = lines
    return made


@pytest.mark.parametrize(("order", "shown"), [([0, 1, 2], "Sagittal"), ([0, 2, 1], "Sagittal"), ([2, 1, 0], "Coronal")])
def test_the_views_show_what_thick_slices_lack(order, shown, compare):
    thick = np.eye(4)
    thick[:3, :3] = np.diag([1, 1, 4.0])[order]  # axial, coronal and sagittal slices
    assert compare.orientation_for(thick) == shown
    assert compare.orientation_for(OBLIQUE @ np.diag([1, 1, 4, 1.0])) == "Sagittal"


def test_side_by_side_both_views_are_linked_and_alike(comparison, compare, slicer, two):
    for orientation in ("Sagittal", "Coronal"):  # the second time the layout is there
        comparison.side_by_side(orientation)
        assert slicer.layouts.layout == compare.LAYOUT and slicer.layouts.sliceViewNames() == sorted(compare.VIEWS)
        views = [slicer.layouts.views[name] for name in compare.VIEWS]
        assert [v.layers["background"] for v in views] == [node.GetID() for node in two]
        assert all(v.linked and v.hot and v.orientation == orientation for v in views)
        assert all(v.layers["foreground"] is None and v.layers["label"] is None for v in views)
    assert all(v.fitted == 2 for v in views)


def test_fading_mixes_both_everywhere(comparison, slicer, two):
    comparison.fade(0.3)
    assert slicer.layers == {"background": two[0], "foreground": two[1], "label": None, "foregroundOpacity": 0.3}


def test_swiping_shows_the_result_left_of_a_line(comparison, slicer):
    comparison.swipe(0.5)
    assert slicer.layers["foregroundOpacity"] == 0.0  # the rest of the view is the input alone
    assert len(comparison.lines) == 3 and {line.at for line in comparison.lines} == {(0.5, 300, 200)}
    assert {line.picture for line in comparison.lines} == {f"picture of {name}" for name in ("Red", "Green", "Yellow")}
    comparison.swipe(0.25)
    assert len(comparison.lines) == 3 and {line.at[0] for line in comparison.lines} == {0.25}
    red = slicer.layouts.views["Red"]
    red.size = (500, 400, 1)
    next(iter(red.observers.values()))()  # as when its window is made larger
    assert (0.25, 500, 400) in {line.at for line in comparison.lines} and red.rendered >= 3


def test_lines_go_with_the_swipe(comparison, slicer):
    comparison.swipe(0.5)
    views = list(slicer.layouts.views.values())
    comparison.fade(1.0)
    assert all(line.removed for line in comparison.lines) and not any(view.observers for view in views)
    comparison.swipe(0.5)
    comparison.side_by_side("Sagittal")
    assert len(comparison.lines) == 6 and all(line.removed for line in comparison.lines)


def test_a_line_stays_in_its_view(slicer, monkeypatch):
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "vtk", SimpleNamespace())
    from InterSliceReconstructionLib.swipe import column_of

    assert [column_of(share, 301) for share in (-1, 0, 0.5, 1, 2)] == [0, 0, 150, 301, 301]
