"""The gallery's pictures, of tiny volumes, and the page that shows them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from scripts import gallery
from tests.support.scans import ROOT, chest_voxels, head_voxels, write_volume

PAGE = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")


def test_the_page_shows_all_pictures_and_they_are_small():
    shown = set(re.findall(r"\]\(gallery/(\w+)\.jpg\)", PAGE))
    assert shown == set(gallery.pictures(gallery.SCENES, {}, {}))
    for name in shown:
        path = ROOT / f"docs/gallery/{name}.jpg"
        assert path.stat().st_size <= gallery.LARGEST
        with Image.open(path) as picture:
            picture.load()  # whole
    assert "python -m scripts.gallery\n" in PAGE


def test_the_noise_that_is_shown_differs_across_the_slices_alone():
    """Identical noise has the same row everywhere; independent noise nowhere."""
    figure = gallery.noise_fields(16, 12)
    cuts = {axes.get_title(): np.asarray(axes.images[0].get_array()) for axes in figure.axes}
    assert np.ptp(cuts["identical"], axis=0).max() == 0
    along = {name: np.corrcoef(cut[:-1].ravel(), cut[1:].ravel())[0, 1] for name, cut in cuts.items()}
    assert abs(along["independent"]) < 0.3 < 0.9 < min(along["slerp"], along["matern"])


@pytest.mark.slow
def test_a_scan_is_drawn_with_its_spread_and_its_steps(tmp_path, monkeypatch, tiny_overrides, capsys):
    monkeypatch.chdir(ROOT)
    write_volume(tmp_path / "head/head.nii.gz", head_voxels((20, 18, 20)))
    write_volume(tmp_path / "chest/chest.nii.gz", chest_voxels((24, 24, 6)))
    scenes = {
        "mri": replace(gallery.SCENES["mri"], sample=str(tmp_path / "head"), crop=(20, 18, 20)),
        "ct": replace(gallery.SCENES["ct"], sample=str(tmp_path / "chest"), crop=(24, 24, 6)),
    }
    tiny = {k: v for k, v in tiny_overrides("").items() if k not in ("dataset_dir", "output_dir")}
    tiny |= {"num_draws": 2, "baselines#total_variation#iterations": 5}
    gallery.main(["--output", str(tmp_path / "drawn"), "--only", "mri", "spread", "steps", "ct"], scenes, **tiny)
    written = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert written == ["ct.jpg", "mri.jpg", "spread.jpg", "steps.jpg"] and capsys.readouterr().out.count("wrote") == 4
    for name in written:
        with Image.open(tmp_path / "drawn" / name) as picture:
            assert min(picture.size) > 150 and np.asarray(picture.convert("L")).std() > 20
