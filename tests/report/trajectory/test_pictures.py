"""Pictures of the process: the right slice at the right step, in proportion, small, and looping."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from interslice.report.picture import oriented_slice
from interslice.report.trajectory.paths import in_plane
from interslice.report.trajectory.pictures import (
    FILM_FRAMES,
    Film,
    film,
    path_panels,
    process,
    save_small,
    spread,
    write_film,
)
from interslice.sampling.trajectory import Trajectory
from tests.support.helpers import normal

SPACING = (1.0, 1.5, 3.0)
WINDOW = (-1.0, 1.0)


@pytest.fixture(scope="module")
def record():
    trajectory = Trajectory({"axial": 3, "coronal": 0.5, "sagittal": 0.5}, neighbours=3)
    trajectory.begin(torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64)))
    for step in range(4):
        trajectory(0, step, 90 - 10 * step, 0, normal(12, 10, 8, seed=step), normal(12, 10, 8, seed=10 + step))
    return trajectory.records[0]


def drawn(figure):
    return [axes for axes in figure.axes if axes.images]


@pytest.mark.parametrize(("plane", "index", "aspect"), [("axial", 3, 1.5), ("coronal", 5, 3.0), ("sagittal", 6, 2.0)])
def test_a_film_shows_the_chosen_slice_in_proportion(record, plane, index, aspect):
    shown = film(record.slabs[plane], "x0_hat", WINDOW)
    assert shown.aspect == pytest.approx(aspect) and shown.window == WINDOW
    for step, image in enumerate(shown.images):
        np.testing.assert_array_equal(image, oriented_slice(normal(12, 10, 8, seed=10 + step).numpy(), plane, index))


def test_noise_has_a_window_twice_as_wide_about_the_same_middle(record):
    assert film(record.slabs["axial"], "x_t", (-1.0, 0.4)).window == pytest.approx((-1.7, 1.1))


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 100])
def test_steps_are_spread_from_the_first_to_the_last(count):
    kept = spread(count, 8)
    assert len(kept) == min(count, 8) and kept[0] == 0 and kept[-1] == count - 1
    assert np.ptp(np.diff(kept)) <= 1 if len(kept) > 2 else True


def test_the_table_has_a_column_per_step_and_pictures_in_proportion(record):
    films = {p: {k: film(s, k, WINDOW) for k in ("x_t", "x0_hat")} for p, s in record.slabs.items()}
    figure = process(films, [f"step {i}" for i in range(4)], "a title")
    FigureCanvasAgg(figure).draw()
    pictures = drawn(figure)
    assert len(pictures) == 3 * 2 * 4
    size = [n * s for n, s in zip((12, 10, 8), SPACING)]
    for axes, (plane, kind, step) in zip(
        pictures, [(p, k, i) for p in films for k in ("x_t", "x0_hat") for i in range(4)]
    ):
        np.testing.assert_array_equal(axes.images[0].get_array(), films[plane][kind].images[step])
        assert axes.images[0].get_clim() == films[plane][kind].window
        across, up = (size[a] for a, p in enumerate(("sagittal", "coronal", "axial")) if p != plane)
        box = axes.get_window_extent()
        assert box.height / box.width == pytest.approx(up / across, rel=0.01)
    boxes = [a.get_window_extent() for a in pictures]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert {"a title", "step 0", "step 3", "axial", "x_t"} <= {t.get_text() for t in figure.texts}


def test_a_film_shows_one_step_after_the_other_and_loops(tmp_path):
    levels = np.array([-1.0, -0.4, 0.2, 1.0])
    flat = Film(np.ones((4, 20, 20)) * levels[:, None, None], WINDOW, 1.0)
    write_film(tmp_path / "f.gif", {"axial": {"a": flat, "b": flat}}, [f"step {i}" for i in range(4)])
    with Image.open(tmp_path / "f.gif") as gif:
        assert gif.n_frames == 4 and gif.info["loop"] == 0
        durations = []
        for step, level in enumerate(levels):
            gif.seek(step)
            durations.append(gif.info["duration"])
            grey = np.asarray(gif.convert("L"))
            for x in (0.3, 0.8):
                assert grey[int(0.8 * grey.shape[0]), int(x * grey.shape[1])] == pytest.approx(
                    127.5 * (level + 1), abs=5
                )
        assert durations[-1] > durations[0] == durations[1]


@pytest.mark.slow
def test_a_film_of_noise_stays_small(tmp_path):
    noise = Film(np.random.default_rng(0).normal(size=(40, 128, 128)), WINDOW, 1.0)
    films = {p: {"x_t": noise, "x0_hat": noise} for p in "abc"}
    write_film(tmp_path / "f.gif", films, [f"step {i}" for i in range(40)])
    assert (tmp_path / "f.gif").stat().st_size < 1.5e6
    with Image.open(tmp_path / "f.gif") as gif:
        assert gif.n_frames == FILM_FRAMES


def test_few_colours_change_little(tmp_path, record):
    films = {p: {"x0_hat": film(s, "x0_hat", WINDOW)} for p, s in record.slabs.items()}
    figure = process(films, ["a", "b", "c", "d"], "a title")
    figure.savefig(tmp_path / "whole.png", dpi=100)
    save_small(figure, tmp_path / "small.png")
    assert not plt.get_fignums()  # no figure is kept by matplotlib, whoever drew it
    sizes = [(tmp_path / f"{name}.png").stat().st_size for name in ("small", "whole")]
    assert sizes[0] < 0.8 * sizes[1]
    small, whole = (np.asarray(Image.open(tmp_path / f"{n}.png").convert("RGB"), float) for n in ("small", "whole"))
    assert np.abs(small - whole).max() < 16


def test_panels_of_paths_share_a_scale_and_have_a_line_per_slice():
    paths = np.random.default_rng(0).normal(size=(5, 4, 30))
    fields = {"one": paths, "other": 0.1 * paths}
    figure = path_panels({"x_t": fields, "x0_hat": fields}, np.arange(5.0), "a title")
    FigureCanvasAgg(figure).draw()
    panels = [a for a in figure.axes if a.lines]
    assert len(panels) == 4
    assert len({a.get_xlim() + a.get_ylim() for a in panels}) == 1
    for axes, paths in zip(panels, [*fields.values()] * 2):
        lines = [line.get_xydata() for line in axes.lines if len(line.get_xydata()) == 4]
        np.testing.assert_allclose(lines, in_plane(paths)[0])
    assert "distance 1.00" in panels[0].get_title() and "distance 0.10" in panels[1].get_title()


def test_a_panel_of_slices_that_do_not_move_is_drawn():
    assert path_panels({"x_t": {"one": np.ones((3, 2, 5))}}, [0.0, 1.0, 2.0], "still").axes
