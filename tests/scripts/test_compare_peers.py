"""Other programs are run on the same files and measured alike; what becomes of one does not touch the others."""

import json
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from interslice.report.metrics import evaluate
from interslice.usage import UsageError
from scripts.studies import compare_peers
from scripts.studies.compare_peers import common_box, make_case, on_grid, table_of
from scripts.studies.peers import Peer, PeerFailure, chosen, registered
from tests.support.scans import ROOT, head_voxels, write_volume

LINEAR = """
import sys, time, pathlib
import nibabel as nib, numpy as np
kind, source, folder, ratio = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4])
image = nib.load(source)
y, affine = np.asarray(image.dataobj), image.affine.copy()
if kind == "hangs":
    time.sleep(600)
if kind == "fails":
    sys.exit("no patches fit")
fine = (np.arange(y.shape[2] * ratio) + 0.5) / ratio - 0.5
low = np.clip(np.floor(fine).astype(int), 0, y.shape[2] - 2)
share = np.clip(fine - low, 0, 1).astype(np.float32)
x = y[..., low] * (1 - share) + y[..., low + 1] * share
affine[:3, 3] += affine[:3, 2] * ((1 / ratio - 1) / 2)
affine[:3, 2] /= ratio
if kind == "cropped":
    x, affine[:3, 3] = x[2:, 1:-1, 3:], (affine @ [2, 1, 3, 1])[:3]
if kind == "flipped":
    affine[:3, 3] += affine[:3, 0] * (len(x) - 1)
    affine[:3, 0], x = -affine[:3, 0], x[::-1]
if kind == "text":
    (folder / "thin_result.nii").write_text("no volume")
elif kind != "silent":
    nib.save(nib.Nifti1Image(x.astype(np.float32), affine), folder / "thin_result.nii")
"""
RATIO = 4


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "linear.py"
    path.write_text(LINEAR, encoding="utf-8")

    def peer(kind):
        arguments = (str(path), kind, "{input}", "{folder}", "{ratio}")
        return Peer(kind, sys.executable, arguments, "*_result.nii", "1.0", "MIT", gpu=kind == "linear")

    return peer


@pytest.fixture
def config(monkeypatch):
    monkeypatch.chdir(ROOT)
    parser = ConfigParser()
    parser.read_config(["configs/inference.json", "configs/evaluate.json"])
    parser.update({"operator#ratio": RATIO})
    return parser


@pytest.fixture
def case(config, tmp_path):
    """A head whose header is turned and moved."""
    affine = np.diag([1.0, 1.0, 1.2, 1.0])
    affine[:3, 3] = 7, -20, 5
    path = tmp_path / "head.nii.gz"
    nib.save(nib.Nifti1Image(head_voxels((26, 24, 30)).astype(np.float32), affine), path)
    return make_case(path, config, tmp_path / "work")


def run(case, config, peers, **settings):
    return compare_peers.compare(case, peers, config.get_parsed_content("baselines"), RATIO, **settings)


def linear(case):
    """What the program above makes of a measurement, by other means, in the prior's range."""
    y = case.y.numpy()
    fine = (np.arange(y.shape[2] * RATIO) + 0.5) / RATIO - 0.5
    return torch.from_numpy(np.apply_along_axis(lambda v: np.interp(fine, np.arange(len(v)), v), 2, y)).float()


def assert_alike(found, expected, tolerance):
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_alike(found[key], value, tolerance)
        else:
            assert found[key] == pytest.approx(value, rel=tolerance), key


@pytest.mark.slow
def test_a_program_scores_what_its_result_is_worth(case, config, program):
    """Linear interpolation as a program, and computed here: the same metrics, on the same grid."""
    found = run(case, config, {"linear": program("linear"), "flipped": program("flipped")})
    x = linear(case)
    residual = float((case.operator.forward(x) - case.y).square().mean().sqrt()) / 2
    expected = evaluate(x, case.truth, 2.0, -1.0, residual)
    for name in ("linear", "flipped"):  # a result that is stored the other way round is the same result
        assert_alike(found["results"][name]["metrics"], expected, 1e-4)
        assert found["results"][name]["seconds"] > 0
    assert found["box"] == [[0, n] for n in case.truth.shape]
    baseline = config.get_parsed_content("baselines")["total_variation"](case.y, case.operator)
    assert found["results"]["total_variation"]["metrics"]["volume"]["psnr"] == pytest.approx(
        evaluate(baseline, case.truth, 2.0, -1.0, 0.0)["volume"]["psnr"]
    )


@pytest.mark.slow
def test_all_are_measured_where_all_have_something(case, config, program):
    found = run(case, config, {"linear": program("linear"), "cropped": program("cropped")})
    x, y, z = case.truth.shape
    assert found["box"] == [[2, x], [1, y - 1], [3, z]]
    linear_psnr, cropped = (found["results"][n]["metrics"]["volume"]["psnr"] for n in ("linear", "cropped"))
    assert cropped == pytest.approx(linear_psnr, rel=1e-6)
    box = tuple(slice(*b) for b in found["box"])
    part = evaluate(linear(case)[box], case.truth[box], 2.0, -1.0, 0.0)
    assert cropped == pytest.approx(part["volume"]["psnr"], rel=1e-4)


@pytest.mark.slow
def test_one_that_gives_nothing_is_named_and_the_others_go_on(case, config, program, capsys):
    kinds = ("fails", "silent", "text", "hangs", "linear")
    found = run(case, config, {k: program(k) for k in kinds}, timeout=20.0)["results"]
    assert "ended with status 1: no patches fit" in found["fails"]["failed"]
    assert "it wrote none" in found["silent"]["failed"]
    assert "was ended after 20 s (--timeout)" in found["hangs"]["failed"]
    assert found["text"]["failed"]
    assert "metrics" in found["linear"]
    said = capsys.readouterr().err
    assert all(f": {kind}: " in said for kind in kinds[:-1])
    assert not any(str(case.thick.parent) in result.get("failed", "") for result in found.values())


def test_what_a_hanging_program_started_ends_with_it(tmp_path):
    script = tmp_path / "parent.py"
    mark = tmp_path / "mark"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(mark)!r}).touch()"
    script.write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])", encoding="utf-8")
    peer = Peer("hangs", sys.executable, (str(script),), "*")
    with pytest.raises(PeerFailure, match="was ended after 1 s"):
        peer.run(tmp_path / "in", tmp_path / "out", 5.0, timeout=1.0)
    time.sleep(3.5)
    assert not mark.exists()


def test_the_thick_file_is_the_measurement_and_lies_where_it_was_measured(case):
    image = nib.load(case.thick)
    slope, offset = case.scale
    torch.testing.assert_close(
        torch.from_numpy(image.get_fdata(dtype=np.float32)) * slope + offset, case.y, rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(image.affine, case.operator.range_affine(torch.from_numpy(case.affine)).numpy())


def test_a_truth_is_cropped_to_its_middle(config, tmp_path):
    path = write_volume(tmp_path / "head.nii.gz", head_voxels((26, 24, 30)))
    part = make_case(path, config, tmp_path / "work", (10, 12, 16))
    assert tuple(part.truth.shape) == (10, 12, 16)
    slope, offset = part.scale
    np.testing.assert_allclose(
        part.truth.numpy(), nib.load(path).get_fdata()[8:18, 6:18, 7:23] * slope + offset, atol=1e-4
    )


# -- grids -----------------------------------------------------------------------------------------
def ramp(shape, affine):
    index = np.stack([*np.indices(shape), np.ones(shape)])
    return np.einsum("i,ij,jxyz->xyz", [0.5, 0.3, 0.7, 0], affine, index).astype(np.float32)


@pytest.mark.parametrize("shift", [0.0, 0.3, -1.4])
def test_a_result_counts_where_its_header_puts_it(shift):
    """A volume whose values are its positions has, on another grid, that grid's positions."""
    theirs = np.diag([0.9, 1.1, 1.3, 1.0])
    theirs[:3, 3] = -3 + shift, -2, 1
    grid = np.diag([1.0, 1.0, 1.0, 1.0])
    values, covered = on_grid(nib.Nifti1Image(ramp((20, 18, 16), theirs), theirs), (12, 11, 10), grid)
    inner = tuple(slice(r.start + 4, r.stop - 4) for r in covered)
    np.testing.assert_allclose(values[inner], ramp((12, 11, 10), grid)[inner], atol=0.05)


def test_a_result_on_the_same_grid_is_untouched():
    affine, voxels = np.diag([1.0, 2.0, 3.0, 1.0]), np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    same, covered = on_grid(nib.Nifti1Image(voxels, affine), (5, 6, 7), affine)
    assert np.array_equal(same, voxels) and covered == [range(5), range(6), range(7)]


def test_a_position_is_covered_if_it_lies_in_a_voxel():
    theirs = np.diag([2.0, 2.0, 2.0, 1.0])
    theirs[:3, 3] = 2.0
    _, covered = on_grid(nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), theirs), (12, 5, 9), np.eye(4))
    assert covered == [range(1, 8), range(1, 5), range(1, 8)]  # from 1 mm to 7 mm
    assert common_box([covered, [range(2, 12), range(5), range(9)]]) == (slice(2, 8), slice(1, 5), slice(1, 8))
    with pytest.raises(UsageError, match="no part in common"):
        common_box([covered, [range(9, 12), range(5), range(9)]])


@pytest.mark.parametrize(
    ("voxels", "affine", "words"),
    [
        (np.zeros((4, 4, 4, 2)), np.eye(4), "has 4 axes"),
        (np.full((4, 4, 4), np.nan), np.eye(4), "no numbers"),
        (np.zeros((4, 4, 4)), np.diag([1.0, 1, 1, 1]) + 99 * np.eye(4, k=3), "beside"),
        (np.zeros((9, 9, 9)), np.array([[0.8, 0.6, 0, 0], [-0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "askew"),
    ],
)
def test_results_that_cannot_be_compared_are_said_to_be(voxels, affine, words):
    with pytest.raises(PeerFailure, match=words):
        on_grid(nib.Nifti1Image(voxels.astype(np.float32), affine), (9, 9, 9), np.eye(4))


# -- the list of peers -----------------------------------------------------------------------------
def test_what_is_registered_states_its_licence_and_how_to_install_it():
    for peer in registered().values():
        assert peer.licence and peer.version and peer.install and peer.source
        words = peer.words({"input": "a.nii", "folder": "b", "ratio": "5", "gpu": 0})
        assert "a.nii" in words and not any("{" in word for word in words)


def test_a_run_that_is_not_the_authors_says_so():
    peers = chosen(registered(), ["eclare"], ["eclare=--n-patches 6400"])
    assert peers["eclare"].note(-1) == "on a CPU, --n-patches 6400" and peers["eclare"].note(0) == "--n-patches 6400"
    assert registered()["eclare"].note(0) == "" and registered()["eclare"].note(-1) == "on a CPU"
    with pytest.raises(UsageError, match="no peer is called nobody: there are eclare"):
        chosen(registered(), ["nobody"])


def test_a_list_that_is_none_is_refused(tmp_path):
    for text in ("{", '{"a": {"title": "A"}}', '{"a": 5}', "[]", '{"a": {"arguments": [], "colour": 1}}'):
        (tmp_path / "list.json").write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match="lists no peers"):
            registered(tmp_path / "list.json")


@pytest.mark.slow
def test_the_command_writes_json_and_table_and_skips_what_is_not_installed(tmp_path, monkeypatch, program, capsys):
    monkeypatch.chdir(ROOT)
    entry = {"title": "Linear", "program": sys.executable, "arguments": list(program("linear").arguments),
             "output": "*_result.nii", "version": "2", "licence": "MIT", "gpu": True}  # fmt: skip
    absent = entry | {"title": "Absent", "program": "no-such-program", "install": "pip install no-such-program"}
    (tmp_path / "list.json").write_text(json.dumps({"linear": entry, "absent": absent}), encoding="utf-8")
    (tmp_path / "peers.md").write_text("<!-- peers -->\n<!-- /peers -->\n", encoding="utf-8")
    truth = write_volume(tmp_path / "head.nii.gz", head_voxels((24, 20, 24)))
    monkeypatch.setattr(compare_peers, "OURS", Peer("Ours", sys.executable, program("linear").arguments, "*.nii"))
    compare_peers.main(
        ["--truth", str(truth), "--ratio", str(RATIO), "--registry", str(tmp_path / "list.json"), "--gpu", "-1",
         "--work_dir", str(tmp_path / "work"), "--output", str(tmp_path / "peers.json")]
    )  # fmt: skip
    assert "Absent is skipped: no-such-program is not installed (with --programs peers/bin): pip install" in (
        capsys.readouterr().out
    )
    text = (tmp_path / "peers.json").read_text(encoding="utf-8")
    record, page = json.loads(text), (tmp_path / "peers.md").read_text(encoding="utf-8")
    assert list(record["cases"]["head"]["results"]) == [
        "input",
        "cubic_consistent",
        "total_variation",
        "ours",
        "linear",
    ]
    results = record["cases"]["head"]["results"]
    assert results["linear"]["metrics"] == results["ours"]["metrics"]
    row = next(line for line in page.splitlines() if "| Linear (on a CPU) |" in line)
    assert f"| {results['linear']['metrics']['volume']['psnr']:.2f} |" in row
    assert "Linear 2 (MIT), on a CPU" in page


def test_the_page_holds_what_its_json_says():
    """Nothing, as long as nothing was published."""
    path, page = ROOT / "docs/peers.json", (ROOT / "docs/explanation/peers.md").read_text(encoding="utf-8")
    text = f"{table_of(json.loads(path.read_text(encoding='utf-8')))}\n" if path.exists() else ""
    assert f"<!-- {compare_peers.MARKER} -->\n{text}<!-- /{compare_peers.MARKER} -->" in page
