"""The rules of MONAI's model zoo, held on this bundle: the checks that its continuous integration runs, and its guide.

From two of the zoo's checks its generative bundles are exempt: `verify_net_in_out` and TorchScript. This one passes
both, the first with timesteps and with the format of the 2-D prior, since `network_data_format` describes volumes.
"""

import json
import re
import shutil

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, create_workflow, verify_metadata, verify_net_in_out
from monai.utils import get_equivalent_dtype

from interslice.prior.network import network_for
from interslice.prior.tracing import example_inputs
from interslice.prior.weights import Weights, load_weights
from scripts.export import bundle_files
from tests.support.scans import INFERENCE, ROOT, TRAIN, thick_voxels, write_volume

META = ROOT / "configs/metadata.json"
METADATA = json.loads(META.read_text(encoding="utf-8"))
FILES = ("LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md")
HEADINGS = (
    "# Model Overview", "## Data", "## Training configuration", "### Memory Consumption", "### Input", "### Output",
    "## Performance", "## MONAI Bundle Commands", "# References", "# License",
)  # fmt: skip
"""Of the zoo's model cards, in their order."""
TEMPLATE_HEADINGS = ("### Authors", "### Tags", "### Preprocessing", "## System Configuration", "## Limitations")
"""What the zoo's template for a model card asks for besides."""
INFERENCE_IDS = ("bundle_root", "device", "dataset_dir", "output_dir", "network_def", "inferer")
TRAIN_IDS = (
    "bundle_root", "device", "dataset_dir", "output_dir", "val_interval",
    "train#trainer", "train#trainer#max_epochs", "train#dataset", "train#dataset#data", "train#handlers",
    "train#preprocessing", "train#inferer",
    "validate#evaluator", "validate#handlers", "validate#dataset", "validate#dataset#data", "validate#preprocessing",
    "validate#inferer", "validate#key_metric",
)  # fmt: skip


def test_the_files_that_the_zoo_wants_are_there():
    assert [name for name in FILES if not (ROOT / name).is_file()] == []
    assert (ROOT / "docs/data_license.txt").is_file()  # the data have terms of their own


def test_no_shipped_file_is_too_large():
    """The zoo takes 25 MB; a shipped file stays below 16 MB."""
    assert max((ROOT / name).stat().st_size for name in bundle_files(ROOT)) < 16e6


def test_the_version_is_in_both_changelogs_and_above_the_others():
    version = METADATA["version"]
    assert version in METADATA["changelog"]
    assert f"[{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert version == max(METADATA["changelog"], key=lambda v: [int(part) for part in v.split(".")])


def test_the_versions_of_packages_are_those_that_are_installed():
    """The zoo installs what `required_packages_version` lists, and nothing else of ours."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split()[0].split("==") for line in lines if "==" in line)
    base = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    assert METADATA["required_packages_version"] | {p: METADATA[name] for p, name in base.items()} == pins


@pytest.fixture
def schema_file(tmp_path):
    """verify_metadata fetches no schema where there is a file."""
    return shutil.copy(ROOT / "tests/data/meta_schema.json", tmp_path / "schema.json")


def test_the_metadata_follow_the_schema(schema_file):
    verify_metadata(meta_file=str(META), filepath=str(schema_file))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("required_packages_version", None),
        ("network_data_format", None),
        ("version", 0.4),
        ("supported_apps", []),
        ("prior_data_format", {"inputs": {}}),
        ("network_data_format", {"inputs": {"image": {"type": "image"}}, "outputs": {}}),
    ],
)
def test_the_schema_finds_what_is_wrong(key, value, schema_file, tmp_path):
    wrong = {k: v for k, v in METADATA.items() if k != key} | ({} if value is None else {key: value})
    (tmp_path / "metadata.json").write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=str(schema_file))


def test_the_model_card_has_the_headings_of_the_zoo():
    card = re.sub(r"```.*?```", "", (ROOT / "docs/README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ .+$", card, flags=re.MULTILINE)
    assert [h for h in headings if h in HEADINGS] == list(HEADINGS)
    assert headings[0] == HEADINGS[0]
    assert [h for h in TEMPLATE_HEADINGS if h not in headings] == []


@pytest.mark.parametrize(("config", "ids"), [(INFERENCE, INFERENCE_IDS), (TRAIN, TRAIN_IDS)])
def test_the_ids_that_the_zoo_asks_for_are_there(config, ids):
    parser = ConfigParser()
    parser.read_config(str(ROOT / config))
    assert [name for name in ids if name not in parser] == []


def test_validation_comes_at_the_interval_that_has_the_name():
    handlers = json.loads((ROOT / TRAIN).read_text(encoding="utf-8"))["train"]["handlers"]
    assert [h["interval"] for h in handlers if h["_target_"] == "ValidationHandler"] == ["@val_interval"]


@pytest.mark.parametrize(("config", "workflow_type"), [(INFERENCE, "inference"), (TRAIN, "train")])
def test_the_properties_that_monai_requires_are_there(config, workflow_type, tmp_path, monkeypatch):
    """Called as the zoo does: by absolute paths, from elsewhere."""
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        write_volume(tmp_path / f"head{seed}.nii.gz", thick_voxels(seed), spacing=(1, 1, 4))
    workflow = create_workflow(
        config_file=str(ROOT / config), workflow_type=workflow_type, bundle_root=str(ROOT), meta_file=str(META),
        logging_file=False, dataset_dir=str(tmp_path), output_dir=str(tmp_path / "results"),
    )  # fmt: skip
    assert isinstance(workflow, ConfigWorkflow) and workflow.check_properties() == []


def verify_prior(prior, n=1):
    """`verify_net_in_out` on the CPU with a prior's format: its image, and everything else by name."""
    others = {name: value for name, value in prior["inputs"].items() if name != "x"}
    extra = {
        name: torch.full((1,), 500, dtype=get_equivalent_dtype(v["dtype"], torch.Tensor)) for name, v in others.items()
    }
    volume = {"inputs": {"image": prior["inputs"]["x"]}, "outputs": {"pred": prior["outputs"]["eps"]}}
    verify_net_in_out(
        net_id="network_def", meta_file=str(META), config_file=str(ROOT / INFERENCE), bundle_root=str(ROOT),
        model="small", device="cpu", n=n, extra_forward_args=extra, **{"_meta_#network_data_format": volume},
    )  # fmt: skip


@pytest.mark.parametrize("n", [1, 3])
def test_the_prior_takes_and_gives_what_the_metadata_say(n):
    verify_prior(METADATA["prior_data_format"], n)


def test_the_example_of_the_documentation_verifies_the_prior(monkeypatch):
    monkeypatch.chdir(ROOT)
    *_, example = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/how_to/export.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert "verify_net_in_out" in example
    exec(example, {})


@pytest.mark.parametrize(
    ("part", "name", "change", "message"),
    [
        ("outputs", "eps", {"num_channels": 2}, "channel number `1` doesn't match"),
        ("outputs", "eps", {"dtype": "float64"}, "dtype of output data"),
        ("inputs", "x", {"spatial_shape": ["8*n", "4*n"]}, "Sizes of tensors must match|multiples of 8"),
        ("inputs", "timesteps", None, "timesteps"),
    ],
)
def test_another_format_of_the_prior_is_found_wrong(part, name, change, message):
    prior = json.loads(json.dumps(METADATA["prior_data_format"]))
    if change is None:
        del prior[part][name]
    else:
        prior[part][name] |= change
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        verify_prior(prior)


def test_the_format_of_the_network_describes_volumes():
    """What label servers and deployed applications read: the inferer's input and output."""
    for tensor in (
        METADATA["network_data_format"]["inputs"]["image"],
        METADATA["network_data_format"]["outputs"]["pred"],
    ):
        assert tensor["spatial_shape"] == ["*", "*", "*"] and tensor["num_channels"] == 1
        assert tensor["dtype"] == "float32"


@pytest.mark.slow
def test_the_zoo_exports_the_prior_as_torchscript(tmp_path):
    """The generic export, as the zoo calls it; what it writes holds for all sizes and timesteps."""
    ckpt_export(
        net_id="network_def", filepath=str(tmp_path / "verify_model.ts"), ckpt_file=str(ROOT / "models/model.pt"),
        meta_file=str(META), config_file=str(ROOT / INFERENCE), bundle_root=str(ROOT), model="small",
    )  # fmt: skip
    module = torch.jit.load(tmp_path / "verify_model.ts")
    weights = Weights(ROOT / "models/model.pt")
    network = load_weights(network_for(weights), weights).eval()
    for size in ((1, 1, 2), (3, 4, 2)):
        x, timesteps = example_inputs(8, *size, seed=7)
        with torch.no_grad():
            expected = network(x, timesteps)
            torch.testing.assert_close(module(x, timesteps), expected, rtol=0, atol=1e-5)
            assert float((module(x, timesteps // 2) - expected).abs().max()) > 0.01
