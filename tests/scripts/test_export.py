"""What scripts.export writes: TorchScript and ONNX that agree with the network, and a zip file of the bundle."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import load_net_with_metadata
from monai.networks.nets import diffusion_model_unet

from interslice.prior.network import SliceUNet
from interslice.prior.slices import SlicePrior
from interslice.prior.tracing import example_inputs, traced
from interslice.prior.weights import EXTRA_STATE
from scripts import export
from scripts.hubs import LINK
from tests.support.scans import CHANNELS, GROUPS, INFERENCE, ROOT, random_network

OTHER_SIZES = ((1, 1, 1), (1, 6, 5), (5, 3, 8))
"""Batch, rows and columns; sides in multiples of what the network needs."""
DOCS = (ROOT / "docs/how_to/export.md").read_text(encoding="utf-8")
TORCH_EXAMPLE, ONNX_EXAMPLE, ZIP_EXAMPLE, _ = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)


@pytest.fixture
def tiny_export(tiny_weights, tmp_path, monkeypatch):
    """Runs scripts.export on a tiny network, from the root of the bundle: `tiny_export("--torchscript", path)`."""
    monkeypatch.chdir(ROOT)
    overlay = tmp_path / "tiny.json"
    overlay.write_text(json.dumps({"network_def#channels": CHANNELS, "network_def#norm_num_groups": GROUPS}))

    def run(*words, checkpoint=tiny_weights):
        configs = ["--config_file", INFERENCE, str(overlay)]
        export.main([*map(str, words), "--checkpoint", str(checkpoint), *configs])

    return run


def agree(run, network, tolerance):
    """Whether `run` gives what the network gives, which differs from size to size and from time to time."""
    for seed, size in enumerate(OTHER_SIZES):
        x, timesteps = example_inputs(network.multiple, *size, seed=100 + seed)
        with torch.no_grad():
            expected, later = network(x, timesteps), network(x, (timesteps + 500) % 1000)
            torch.testing.assert_close(run(x, timesteps), expected, rtol=0, atol=tolerance)
            torch.testing.assert_close(run(x, (timesteps + 500) % 1000), later, rtol=0, atol=tolerance)
        assert float((expected - later).abs().max()) > 10 * tolerance  # the timestep counts
    return True


def test_the_trace_holds_for_other_sizes_and_other_weights():
    network, other = random_network().eval(), random_network(1).eval()
    trace = traced(network)
    assert agree(trace, network, 1e-6)
    assert list(trace.state_dict()) == [name for name in network.state_dict() if name != EXTRA_STATE]
    trace.load_state_dict({name: v for name, v in other.state_dict().items() if name != EXTRA_STATE})
    assert agree(trace, other, 1e-6)


def test_a_network_of_one_channel_per_group_is_compared():
    """Group normalisation needs more than one pixel then, at the bottom of the U too."""
    network = SliceUNet((8, 16), norm_num_groups=8)
    torch.nn.init.normal_(network.out[-1].conv.weight)
    assert export.largest_difference(network.eval(), network, Path("x.ts")) == 0


def test_tracing_leaves_the_network_and_monai_as_they_were():
    network, embedding = random_network().train(), diffusion_model_unet.get_timestep_embedding
    traced(network)
    assert network.training and not network._forward_pre_hooks
    assert diffusion_model_unet.get_timestep_embedding is embedding


@pytest.mark.parametrize("shape", [(1, 1, 8, 9), (1, 1, 7, 8), (1, 8, 8)])
def test_the_trace_refuses_sides_that_do_not_fit(shape):
    with pytest.raises(torch.jit.Error, match=r"H and W multiples of 2, got .*8.*: pad them"):
        traced(random_network())(torch.zeros(shape), torch.tensor([1]))


def test_gradients_flow_through_the_trace():
    """Solvers such as DPS need them."""
    network, x_t, v = random_network(), torch.randn(8, 6, 10), torch.randn(8, 6, 10)
    prior = SlicePrior(torch.linspace(0.99, 0.01, 1000), multiple=network.multiple, precision="float32")
    expected = prior.pull_back(network.eval(), x_t, 400, 1, v)
    assert float((expected - v).abs().max()) > 1e-3
    torch.testing.assert_close(prior.pull_back(traced(network), x_t, 400, 1, v), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.cuda
def test_what_was_traced_on_the_cpu_runs_on_the_gpu(tmp_path):
    network = random_network().eval()
    traced(network).save(tmp_path / "model.ts")
    module = torch.jit.load(tmp_path / "model.ts").cuda()
    assert agree(lambda x, t: module(x.cuda(), t.cuda()).cpu(), network, 1e-4)


def test_the_torchscript_file_holds_network_metadata_and_configs(tiny_export, tmp_path, capsys):
    path = tmp_path / "made" / "prior.ts"
    tiny_export("--torchscript", path)
    assert f"wrote {path} (" in capsys.readouterr().out
    module, metadata, extra = load_net_with_metadata(path, more_extra_files=["inference.json", "tiny.json"])
    assert agree(module, random_network().eval(), 1e-6)
    assert metadata == json.loads((ROOT / "configs/metadata.json").read_text(encoding="utf-8"))
    assert json.loads(extra["inference.json"]) == json.loads((ROOT / INFERENCE).read_text(encoding="utf-8"))
    assert json.loads(extra["tiny.json"])["network_def#channels"] == list(CHANNELS)
    assert list(path.parent.iterdir()) == [path]


def test_the_torchscript_file_fixes_no_device_and_names_no_machine(tiny_export, tmp_path):
    tiny_export("--torchscript", tmp_path / "prior.ts")
    with zipfile.ZipFile(tmp_path / "prior.ts") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    code = b"".join(text for name, text in contents.items() if name.endswith(".py"))
    assert b"prim.device(timesteps)" in code and b'torch.device("' not in code
    assert not any(str(place).encode() in c for place in (ROOT, sys.prefix) for c in contents.values())


def run_python(code, folder):
    """Run code in a process of its own, in a folder from which this package cannot be imported."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_plain_torch_runs_the_torchscript_file(tiny_export, tmp_path):
    """The example of docs/how_to/export.md, where MONAI cannot be imported either."""
    tiny_export("--torchscript", tmp_path / "export" / "model.ts")
    without = "import sys; sys.modules['monai'] = sys.modules['interslice'] = None\n"
    run_python(without + TORCH_EXAMPLE + "torch.save((x, timesteps, eps), 'eps.pt')", tmp_path)
    x, timesteps, eps = torch.load(tmp_path / "eps.pt")
    with torch.no_grad():
        torch.testing.assert_close(eps, random_network().eval()(x, timesteps), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_run_with_the_traced_network_gives_the_same_volume(
    tiny_export, run_here, tiny_overrides, thick_file, tmp_path
):
    """As docs/how_to/export.md says: one option, and the weights are those of `checkpoint`."""
    tiny_export("--torchscript", tmp_path / "prior.ts")
    volumes = []
    for name, others in (
        ("eager", {}),
        ("traced", {"network": f"$torch.jit.load({str(tmp_path / 'prior.ts')!r}, map_location=@device)"}),
    ):
        run_here(
            "inference",
            INFERENCE,
            tiny_overrides(thick_file, output_dir=str(tmp_path / name), precision="float32", **others),
        )
        volumes.append(nib.load(tmp_path / name / "thick" / "thick_recon.nii.gz").get_fdata())
    np.testing.assert_allclose(volumes[1], volumes[0], atol=1e-3)  # of 1000


@pytest.mark.slow
def test_onnx_agrees_for_other_sizes(tiny_export, tmp_path, monkeypatch):
    """With the session of the example in docs/how_to/export.md."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "export" / "model.onnx"
    tiny_export("--onnx", path)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(ONNX_EXAMPLE, names)
    session, network = names["session"], random_network().eval()
    with torch.no_grad():
        expected = network(torch.from_numpy(names["x"]), torch.from_numpy(names["timesteps"]))
    np.testing.assert_allclose(names["eps"], expected.numpy(), rtol=0, atol=1e-5)

    def run(x, timesteps):
        return torch.from_numpy(session.run(["eps"], {"x": x.numpy(), "timesteps": timesteps.numpy()})[0])

    assert agree(run, network, 1e-5)
    inputs = {i.name: i.shape for i in session.get_inputs()}
    assert inputs == {"x": ["batch", 1, "2*rows", "2*columns"], "timesteps": ["batch"]}
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["metadata.json"])
    assert metadata == json.loads((ROOT / "configs/metadata.json").read_text(encoding="utf-8"))
    assert not any(str(place).encode() in path.read_bytes() for place in (ROOT, sys.prefix))
    with pytest.raises(Exception, match="[Nn]on concat axis dimensions must match"):
        run(torch.zeros(1, 1, 8, 9), torch.tensor([1]))


def test_missing_onnx_packages_are_named_before_any_work(tiny_export, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(SystemExit):
        tiny_export("--onnx", tmp_path / "prior.onnx", "--torchscript", tmp_path / "prior.ts")
    message = capsys.readouterr().err
    assert "ONNX needs onnxscript: install" in message and "--torchscript --zip" in message
    assert not (tmp_path / "prior.ts").exists()


def test_without_options_everything_is_written(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export, "find_spec", lambda name: True)
    monkeypatch.setattr(export, "read_network", lambda *_: (None, None))
    for kind, result in (("torchscript", 0.0), ("onnx", 1e-6), ("zip", (7, "abc"))):
        monkeypatch.setattr(
            export, f"write_{kind}", lambda path, *_, text=kind, result=result: path.write_text(text) and result
        )
    export.main([])
    version = json.loads((ROOT / "configs/metadata.json").read_text(encoding="utf-8"))["version"]
    written = {p.name: p.read_text() for p in (tmp_path / "export").iterdir()}
    assert written == {"model.ts": "torchscript", "model.onnx": "onnx", f"{export.NAME}_v{version}.zip": "zip"}
    assert "largest difference from the network 1e-06" in capsys.readouterr().out


def test_an_export_that_differs_is_not_written(tiny_export, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises((OSError, ValueError), match="is not written: it differs from the network by"):
        tiny_export("--torchscript", tmp_path / "made" / "prior.ts")
    assert list((tmp_path / "made").iterdir()) == []


def test_untrained_weights_are_refused(tiny_export, tmp_path):
    torch.save(SliceUNet(CHANNELS, norm_num_groups=GROUPS).state_dict(), tmp_path / "untrained.pt")
    with pytest.raises((OSError, ValueError), match="zeros alone.*give trained weights"):
        tiny_export("--torchscript", tmp_path / "prior.ts", checkpoint=tmp_path / "untrained.pt")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--torchscript", "docs"), "docs is a folder: name the file"),
        (("--torchscript", "LICENSE/model.ts"), "LICENSE/model.ts cannot be written"),
        (("--torchscript", "missing/x.ts", "--checkpoint", "nowhere.pt"), "weights nowhere.pt do not exist"),
    ],
)
def test_what_cannot_be_done_is_said(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = [w.replace("missing", str(tmp_path / "new")) for w in words]
    with pytest.raises((OSError, ValueError), match=message):
        export.main(words)


def test_a_config_without_weights_needs_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises((OSError, ValueError), match="configs/train.json names no checkpoint: give the weights"):
        export.main(["--torchscript", str(tmp_path / "x.ts"), "--config_file", "configs/train.json"])


def test_export_runs_in_the_folder_of_the_bundle_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="configs/metadata.json is missing: run this in the folder of the bundle"):
        export.main([])


@pytest.fixture
def small_bundle(tmp_path):
    """A folder with the parts of a bundle, and with much that does not belong into a zip file."""
    root = tmp_path / "root"
    for name in (
        *(f"{folder}/sub/file.txt" for folder in export.FOLDERS),
        *export.FILES,
        *("tests/test_a.py", "eval/run.json", ".git/config", "data/x.nii.gz", "Dockerfile"),
        *("interslice/__pycache__/a.pyc", "models/.partial-7-model.pt", "docs/.DS_Store"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"content of {name}")
    return root


def test_the_zip_file_holds_the_bundle_in_one_folder_and_nothing_else(small_bundle, tmp_path):
    count, digest = export.write_zip(tmp_path / "b.zip", small_bundle)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        contents = {entry.filename: archive.read(entry).decode() for entry in archive.infolist()}
    names = sorted([*export.FILES, *(f"{folder}/sub/file.txt" for folder in export.FOLDERS)])
    assert contents == {f"{export.NAME}/{name}": f"content of {name}" for name in names} and count == len(names)
    assert hashlib.sha256((tmp_path / "b.zip").read_bytes()).hexdigest() == digest


def test_the_same_files_give_the_same_zip_file(small_bundle, tmp_path):
    first = export.write_zip(tmp_path / "a.zip", small_bundle)
    for path in small_bundle.rglob("*.txt"):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o600)
    inside = small_bundle / "docs" / "b.zip"  # a zip file does not hold itself, nor its predecessor
    inside.write_text("an older one")
    assert export.write_zip(inside, small_bundle) == first
    (small_bundle / "LICENSE").write_text("another")
    assert export.write_zip(tmp_path / "a.zip", small_bundle)[1] != first[1]


def test_an_incomplete_bundle_is_not_packed(small_bundle, tmp_path):
    (small_bundle / "LICENSE").unlink()
    with pytest.raises(FileNotFoundError, match="lacks LICENSE: run this in the folder of the whole bundle"):
        export.write_zip(tmp_path / "b.zip", small_bundle)
    assert not (tmp_path / "b.zip").exists()


def test_what_is_packed_can_be_installed_and_holds_what_its_pages_name():
    packed = {name.as_posix() for name in export.bundle_files(ROOT)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    parts = [project["project"]["readme"], *project["project"]["license-files"], *wheel["packages"]]
    pages = [name for name in packed if name.endswith(".md") and name != "CHANGELOG.md"]  # which tells of old pages
    for page in pages:
        text = (ROOT / page).read_text(encoding="utf-8")
        parts += re.findall(r"(?:-r|-c) (requirements[\w-]*\.txt)", text)
        links = [os.path.normpath(Path(page).parent / to.partition("#")[0]) for _, to, _ in LINK.findall(text)]
        parts += [link for link in links if Path(link).parts[:1] != ("tests",)]
    assert len(parts) > 300
    lacks = {p for p in map(str, [*parts, *wheel["force-include"]]) if p not in packed and not (ROOT / p).is_dir()}
    assert lacks == set()
    assert {Path(p).parts[0] for p in map(str, parts) if (ROOT / p).is_dir()} <= {*export.FOLDERS}


@pytest.mark.slow
def test_monai_loads_the_zip_file(tiny_overrides, thick_file, tmp_path, monkeypatch):
    """The example of docs/how_to/export.md, after MONAI's own download; on a tiny scan."""
    monkeypatch.chdir(ROOT)
    export.main(["--zip", str(tmp_path / "b.zip")])
    overrides = {k: v for k, v in tiny_overrides(thick_file).items() if k != "output_dir"}
    (tmp_path / "overrides.json").write_text(json.dumps(overrides))
    before = f"""
import json, pathlib
from monai.bundle import download
download({export.NAME!r}, url=pathlib.Path("b.zip").absolute().as_uri(), bundle_dir="zoo", progress=False)
overrides = json.loads(pathlib.Path("overrides.json").read_text())
"""
    after = f"""
import sys, torch
shipped = torch.load("zoo/{export.NAME}/models/model.pt", weights_only=True)
assert all(torch.equal(weight.cpu(), shipped[name]) for name, weight in network.named_parameters())
assert sys.modules["interslice"].__file__.startswith(root)
"""
    example = ZIP_EXAMPLE.replace('output_dir="results"', 'output_dir="results", **overrides')
    run_python(before + example + after, tmp_path)
    assert nib.load(tmp_path / "results" / "thick" / "thick_recon.nii.gz").shape == (20, 18, 24)
