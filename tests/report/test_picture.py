"""Reports: radiological convention, proportions in millimetres, one grey window, and differences in their place."""

import numpy as np
import pytest
from matplotlib import image as image_file
from matplotlib.backends.backend_agg import FigureCanvasAgg

from interslice.planes import PLANES
from interslice.report.picture import LABELS, Panel, oriented_slice, report

SHAPE, SPACING = (60, 50, 24), (1.0, 1.5, 3.0)
POSITIVE = {"sagittal": "R", "coronal": "A", "axial": "S"}  # where the index of each axis of a RAS+ volume grows
NEGATIVE = {"R": "L", "A": "P", "S": "I"}


@pytest.fixture(scope="module")
def truth():
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    return np.where(np.square(grid).sum(0) < 0.8, 0.5, -1.0) + 0.2 * grid[0]


@pytest.fixture(scope="module")
def figure(truth):
    panels = [Panel("Input", truth + 0.1, "19.0 dB"), Panel("Result", truth - 0.05, "25.0 dB")]
    differences = {"Truth": np.linspace(0, 1, 23), "Result": np.linspace(1, 2, 23)}
    figure = report(Panel("Truth", truth), panels, SPACING, (-1.0, 1.0), differences, "axial", "A case")
    FigureCanvasAgg(figure).draw()
    return figure


def pictures(figure):
    """{(row, column): axes with an image}, counted over the grid."""
    found = {}
    for axes in figure.axes:
        if axes.images:
            place = axes.get_subplotspec()
            found[place.rowspan.start, place.colspan.start] = axes
    return found


# -- convention -----------------------------------------------------------------------------------
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("corner", list(np.ndindex(2, 2, 2)))
def test_a_marker_is_on_the_side_that_the_labels_name(plane, corner):
    """The patient's right is on the left of the page, anterior (or, side on, superior) is up."""
    volume = np.zeros((4, 5, 6))
    at = [c * (n - 1) for c, n in zip(corner, volume.shape, strict=True)]
    volume[tuple(at)] = 1
    picture = oriented_slice(volume, plane, at[PLANES[plane]])
    row, column = np.argwhere(picture)[0]
    left, right, top, bottom = LABELS[plane]
    sides = {left if column == 0 else right, top if row == 0 else bottom}
    names = [positive if c else NEGATIVE[positive] for c, positive in zip(corner, POSITIVE.values(), strict=True)]
    assert sides == {name for axis, name in enumerate(names) if axis != PLANES[plane]}


def test_labels_follow_radiological_convention():
    assert LABELS["axial"] == ("R", "L", "A", "P")
    assert LABELS["coronal"] == ("R", "L", "S", "I")
    assert LABELS["sagittal"][2:] == ("S", "I")


@pytest.mark.parametrize("plane", PLANES)
def test_a_slice_is_a_flip_and_a_transpose_and_nothing_more(plane):
    volume = np.arange(4 * 5 * 6.0).reshape(4, 5, 6)
    shown, cut = oriented_slice(volume, plane, 2), volume.take(2, PLANES[plane])
    np.testing.assert_array_equal(np.sort(shown.ravel()), np.sort(cut.ravel()))


# -- figure ---------------------------------------------------------------------------------------
def test_pictures_have_the_proportions_of_the_patient(figure):
    size = [n * s for n, s in zip(SHAPE, SPACING, strict=True)]
    shown = pictures(figure)
    for row, plane in [(0, "axial"), (2, "coronal"), (4, "sagittal")]:
        across, up = (size[a] for a in range(3) if a != PLANES[plane])
        for (r, column), axes in shown.items():
            if r in (row, row + 1):
                box = axes.get_window_extent()
                assert box.height / box.width == pytest.approx(up / across, rel=0.02), (plane, column)


def test_pictures_fill_their_frames(figure):
    """Scale bars and letters lie inside the picture: they do not stretch its limits."""
    for axes in pictures(figure).values():
        rows, columns = axes.images[0].get_array().shape
        assert axes.get_xlim() == (-0.5, columns - 0.5)
        assert axes.get_ylim() == (rows - 0.5, -0.5)


def test_a_scale_bar_fits_into_a_small_volume(truth):
    small, ones = Panel("Truth", truth[:30, :20, :12]), {"Truth": np.ones(11)}
    figure = report(small, [small], (1.0, 1.0, 1.0), (-1.0, 1.0), ones, "axial", "A small case")
    test_pictures_fill_their_frames(figure)


def test_the_scale_bar_has_the_length_it_names(figure):
    for row, plane in [(0, "axial"), (2, "coronal"), (4, "sagittal")]:
        axes = pictures(figure)[row, 0]
        millimetres = next(float(t.get_text().split()[0]) for t in axes.texts if t.get_text().endswith(" mm"))
        (start, end) = axes.lines[0].get_xdata()
        across = next(s for a, s in enumerate(SPACING) if a != PLANES[plane])
        assert (end - start) * across == pytest.approx(millimetres)


def test_one_grey_window_and_errors_of_the_right_sign(figure):
    shown = pictures(figure)
    assert len(shown) == 3 * 3 + 3 * 2  # three planes of three volumes, and two error maps each
    for (row, column), axes in shown.items():
        picture = axes.images[0]
        if row % 2 == 0:
            assert picture.get_clim() == (-1, 1)
        else:
            np.testing.assert_allclose(picture.get_array(), {1: 0.1, 2: -0.05}[column], atol=1e-12)
            assert picture.get_clim()[0] == -picture.get_clim()[1]


def test_differences_are_drawn_at_the_borders_of_the_slices_in_millimetres(figure):
    axes = next(a for a in figure.axes if a.get_legend())
    assert [line.get_label() for line in axes.lines] == ["Truth", "Result"]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), 3.0 * (np.arange(23) + 0.5))
    np.testing.assert_allclose(axes.lines[1].get_ydata(), np.linspace(1, 2, 23))
    assert "axial" in axes.get_xlabel() and "mm" in axes.get_xlabel()


def test_the_figure_is_saved_as_a_picture_with_its_titles(figure, tmp_path):
    figure.savefig(tmp_path / "report.png", dpi=50)
    pixels = image_file.imread(tmp_path / "report.png")
    assert pixels[..., :3].std() > 0.05
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert [t.split("\n")[0] for t in titles] == ["Truth", "Input", "Result"]
    assert "25.0 dB" in titles[2]
