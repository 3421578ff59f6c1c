"""The report page: it holds what it shows, fetches nothing, keeps folders to itself; and the handler that writes it."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, LoadImaged, Orientationd

from interslice.files.findings import Findings
from interslice.files.restore import Restored
from interslice.files.write import write_json
from interslice.physics import Measured, operator_of
from interslice.physics.baselines import Interpolation
from interslice.physics.measurement import reconstructed
from interslice.physics.thick import ScalePercentilesd, ThroughPlaneSampling
from interslice.report.page.write import ASSETS, LIMITS, WriteReport, without_folders, write_page
from interslice.report.titles import RECON, title_of
from tests.support.report_pages import WINDOW, contents, full_page, metrics_of_three, whole_numbers
from tests.support.scans import (
    EVALUATE,
    INFERENCE,
    OBLIQUE,
    ROOT,
    chest_voxels,
    head_voxels,
    thick_voxels,
    write_volume,
)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.found += [v for k, v in attrs if k in ("src", "href", "srcset", "action", "data", "poster")]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    return path, full_page(path)


def test_the_page_holds_the_volumes(page):
    data, found = contents(page[0])
    for name, volume in page[1].items():
        np.testing.assert_allclose(found[name], volume, atol=data["volumes"][name]["step"] / 2 * 1.001)
    np.testing.assert_allclose(data["affine"], OBLIQUE)
    assert data["labels"]["input"] == "Nearest" and data["unit"] == "HU" and data["window"] == list(WINDOW)
    assert "error" in data["volumes"] and "volume-error" not in page[0].read_text(encoding="utf-8")


def test_the_page_asks_for_nothing_and_forbids_it(page):
    links = Links()
    links.feed(page[0].read_text(encoding="utf-8"))
    assert links.found and all(link.startswith(("data:", "#")) for link in links.found)
    policy = next(a["content"] for t, a in links.tags if t == "meta" and a.get("http-equiv"))
    assert "default-src 'none'" in policy and "http" not in policy
    assert not {t for t, _ in links.tags} & {"iframe", "object", "embed", "base"}


def test_the_page_names_limits_case_and_files_but_no_folder(page):
    text = page[0].read_text(encoding="utf-8")
    own = text[: text.index('id="page-data"')] + text[text.index('id="page-data"') : text.index('id="volume-input"')]
    assert LIMITS in own and "a &lt;case&gt;" in own and "scan.nii.gz" in own and "&lt;b&gt;model.pt" in own
    assert not re.search("someone|patients|secret|models/", own)
    assert "unit=&#x27;1/mm&#x27;" in own and "g.json" in own
    assert "12.35" in own and "slices 4 mm apart" in own and "BSD 2-Clause License" in own


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/a/b c/d.pt", "d.pt"),
        ("./models/x.pt", "x.pt"),
        (r"C:\Users\me\x.pt", "x.pt"),
        ("~/x.pt", "x.pt"),
        ("read('/a/b/x.pt')", "read('x.pt')"),
        ("1/mm", "1/mm"),
        ("SlerpNoise(angle='orthogonal')", "SlerpNoise(angle='orthogonal')"),
    ],
)
def test_paths_lose_their_folders_and_other_text_stays(text, kept):
    assert without_folders({"a": [text]}) == {"a": [kept]}


def test_bytes_of_a_name_that_are_no_text_become_question_marks(tmp_path):
    volumes = {"input": whole_numbers(0), "result": whole_numbers(1)}
    write_page(tmp_path / "p.html", "\udcff", volumes, np.eye(4), WINDOW, record={"scan": "\udcff.nii.gz"})
    assert "?.nii.gz" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_a_page_without_truth_has_no_metrics_and_no_error(tmp_path):
    write_page(tmp_path / "p.html", "c", {"input": whole_numbers(0), "result": whole_numbers(1)}, np.eye(4), WINDOW)
    data, found = contents(tmp_path / "p.html")
    assert set(data["volumes"]) == {"input", "result"} == set(found)
    assert "How close to the truth" not in (tmp_path / "p.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("volumes", "window", "words"),
    [
        ({"result": 0}, WINDOW, "input, result"),
        ({"input": 0, "result": 1, "errror": 2}, WINDOW, "errror"),
        ({"input": 0, "result": 0}, (1.0, 1.0), "must rise"),
    ],
)
def test_what_a_page_cannot_show_is_refused_before_it_is_written(volumes, window, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        write_page(tmp_path / "p.html", "c", {n: whole_numbers(s) for n, s in volumes.items()}, np.eye(4), window)
    assert not list(tmp_path.iterdir())


def test_a_volume_that_is_not_finite_is_refused(tmp_path):
    broken = whole_numbers(0)
    broken[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="result are finite"):
        write_page(tmp_path / "p.html", "c", {"input": whole_numbers(0), "result": broken}, np.eye(4), WINDOW)


def test_volumes_of_two_grids_are_refused(tmp_path):
    volumes = {"input": whole_numbers(0), "result": whole_numbers(0, (3, 3, 3))}
    with pytest.raises(ValueError, match=r"one grid.*\(3, 3, 3\)"):
        write_page(tmp_path / "p.html", "c", volumes, np.eye(4), WINDOW)


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground"),
    [(ink, ground) for ink in ("ink", "muted", "accent") for ground in ("paper", "panel")]
    + [("accent-ink", "accent"), ("warn", "warn-paper")],
)
def test_text_stands_out_from_its_ground(scheme, ink, ground):
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    blocks = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style, re.S)]
    colours = blocks[scheme == "dark"]
    levels = sorted(luminance(colours[name]) for name in (ink, ground))
    assert (levels[1] + 0.05) / (levels[0] + 0.05) >= 4.5


def test_the_viewer_comes_with_its_licence():
    licence = (ASSETS / "NIIVUE-LICENSE").read_text(encoding="utf-8")
    assert "Copyright (c) 2021, Niivue" in licence and "0.69.0" in licence
    assert (ASSETS / "niivue.umd.js").stat().st_size == 2_284_381  # unchanged
    script = (ASSETS / "niivue.umd.js").read_text(encoding="utf-8").lower()
    assert "</script" not in script and "<!--" not in script  # it is put inside a script element


@pytest.mark.parametrize("affine", [np.diag([1.0, 1.0, 4.0, 1.0]), OBLIQUE @ np.diag([1.0, 1.0, 4.0, 1.0])])
def test_the_handler_shows_the_scan_on_the_grid_of_the_result(affine, tmp_path):
    thick = thick_voxels()
    scan = write_volume(tmp_path / "scan.nii.gz", thick, affine)
    preprocessing = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            Orientationd("image", axcodes="RAS", labels=None),
            Measured("image", ThroughPlaneSampling()),
            ScalePercentilesd(["image", "label"], allow_missing_keys=True),
        ]
    )
    item = preprocessing({"image": str(scan)})
    x = operator_of(item["image"]).linear_reconstruction(item["image"].as_tensor()[0])
    found = Findings().with_map("std", torch.full((1, *x.shape), 0.1))
    item = Restored("pred", preprocessing)(item | {"pred": reconstructed(x, item["image"], found)})
    folder = tmp_path / "out" / "scan"
    for name in ("metrics.json", "run.json"):
        write_json(folder / name, {"scan": "of an earlier run"})  # nothing is read back from the disk
    baselines = {"input": Interpolation(order=0, label="Nearest"), "cubic": Interpolation(order=3)}
    record = {"scan": "a scan", "source": str(scan)}
    WriteReport(preprocessing, baselines, lambda _: record).write(item, folder)
    data, volumes = contents(folder / "report.html")
    half = data["volumes"]["result"]["step"] / 2 * 1.01
    assert set(volumes) == {"input", "result", "std"} and data["labels"]["input"] == "Nearest"
    np.testing.assert_allclose(volumes["input"], thick.repeat(4, 2), atol=half)
    np.testing.assert_allclose(volumes["result"], item["pred"][0], atol=half)
    np.testing.assert_allclose(data["affine"], item["pred"].affine)
    low, high = item["image"].applied_operations[-1]["extra_info"].values()
    np.testing.assert_allclose(data["window"], [low, high], rtol=1e-4)
    np.testing.assert_allclose(volumes["std"], 0.05 * (high - low), atol=1)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "a scan" in text and str(tmp_path) not in text and "earlier" not in text


TASKS = {
    "thick slices": ([], {}),
    "few views": (["configs/task_svct.json"], {"num_views": 12}),
    "k-space": (["configs/task_csmri.json"], {"num_coils": 2}),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_shows_its_input_and_the_truth(task, tmp_path, monkeypatch):
    """Projections and k-space are no volumes: the first baseline is, on the grid of the result."""
    monkeypatch.chdir(ROOT)
    overlays, settings = TASKS[task]
    voxels = chest_voxels() if task == "few views" else head_voxels((24, 24, 10))
    truth = write_volume(tmp_path / "case.nii.gz", voxels, np.diag([-1.0, 1.0, 1.0, 1.0]))
    parser = ConfigParser()
    parser.read_config([INFERENCE, *overlays, EVALUATE])
    parser.update(settings)
    preprocessing, baselines = map(parser.get_parsed_content, ("preprocessing", "baselines"))
    item = preprocessing({"image": str(truth)})
    assert item["label"].shape != item["image"].shape
    x = list(baselines.values())[-1](item["image"].as_tensor()[0].float(), operator_of(item["image"]))
    item = Restored("pred", preprocessing)(item | {"pred": reconstructed(x, item["image"])})
    named = dict(zip(["input", "least_squares", "recon"], metrics_of_three().values()))
    titles = {name: title_of(name, baselines) for name in named}
    item["evaluation"] = SimpleNamespace(metrics=named, titles=titles)
    window = parser.get_parsed_content("window")
    WriteReport(preprocessing, baselines, lambda _: {}, window, "u").write(item, tmp_path)
    data, volumes = contents(tmp_path / "report.html")
    covered = voxels[:, :, : volumes["truth"].shape[2]]
    half = data["volumes"]["truth"]["step"] / 2 * 1.01
    np.testing.assert_allclose(volumes["truth"], covered, atol=half + 1e-3 * np.ptp(covered))
    errors = [np.abs(volumes[n] - covered).mean() for n in ("input", "result")]
    assert 0 < errors[0] < 0.3 * np.ptp(covered)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert title_of("input", baselines) in text and RECON in text
    if task == "few views":
        np.testing.assert_allclose(data["window"], [-1000, 400], atol=0.1)
