"""What a page takes: it is written piece by piece, so that a large scan can have one."""

import tracemalloc

import numpy as np
import pytest

from interslice.report.page import volumes, write
from interslice.report.page.write import neighbour_profiles, write_page
from tests.support.report_pages import WINDOW, contents


def wave(shape, phase):
    grid = np.meshgrid(*[np.linspace(phase, 3, n, dtype=np.float32) for n in shape], indexing="ij", sparse=True)
    return (500 + 400 * np.sin(grid[0]) * np.cos(2 * grid[1]) * np.cos(grid[2])).astype(np.float32)


def peak_of(path, depth):
    """Bytes that writing a page of three volumes takes besides the volumes, and the size of one of them."""
    shown = {name: wave((100, 100, depth), i) for i, name in enumerate(("input", "result", "std"))}
    tracemalloc.start()
    try:
        write_page(path, "c", shown, np.eye(4), WINDOW)
        return tracemalloc.get_traced_memory()[1], shown["input"].nbytes
    finally:
        tracemalloc.stop()


def test_a_page_takes_one_copy_of_one_of_its_volumes(tmp_path, monkeypatch):
    """That copy is sorted, to find the range; everything else is done in slabs, and the page itself is never held."""
    monkeypatch.setattr(volumes, "SLAB", 50_000)
    small, large = (peak_of(tmp_path / "p.html", depth) for depth in (50, 100))
    assert (large[0] - small[0]) / (large[1] - small[1]) < 1.3


@pytest.mark.parametrize("slab", [1, 800, 10**9])
def test_slabs_leave_no_trace(slab, monkeypatch, tmp_path):
    """The page is the same whether a volume is packed slice by slice or whole."""
    shown = {"input": wave((20, 30, 9), 0), "result": 1000 * np.random.default_rng(0).random((20, 30, 9))}
    write_page(tmp_path / "usual.html", "c", shown, np.eye(4), WINDOW)
    monkeypatch.setattr(volumes, "SLAB", slab)
    write_page(tmp_path / "other.html", "c", shown, np.eye(4), WINDOW)
    assert (tmp_path / "usual.html").read_bytes() == (tmp_path / "other.html").read_bytes()
    data, found = contents(tmp_path / "other.html")
    for name, volume in shown.items():
        np.testing.assert_allclose(found[name], volume, atol=data["volumes"][name]["step"] / 2 * 1.001)


def test_a_page_that_fails_on_the_way_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_):
        yield "the first piece"
        raise OSError("no space left on device")

    monkeypatch.setattr(write, "packed", broken)
    with pytest.raises(OSError, match="no space"):
        write_page(tmp_path / "p.html", "c", {n: wave((9, 9, 9), 0) for n in ("input", "result")}, np.eye(4), WINDOW)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(7, 5, 6), (1, 5, 6), (7, 1, 1)])
def test_profiles_are_means_of_differences(shape):
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for axis, profile in enumerate(neighbour_profiles(volume)):
        others = tuple(a for a in range(3) if a != axis)
        np.testing.assert_allclose(
            profile, np.abs(np.diff(volume, axis=axis)).mean(others, dtype=np.float64), rtol=1e-6
        )
