"""The folders for model hubs, judged by the hubs' own libraries: huggingface_hub and monai.bundle."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from monai.bundle import download_large_files, verify_metadata

from interslice.prior.weights import EXTRA_STATE, Weights
from scripts import export, hubs
from tests.support.scans import ROOT
from tests.test_zoo import FILES

WEIGHTS = ["models/ct/model.pt", "models/large/model.pt", "models/model.pt"]
NAMES = [name.as_posix() for name in export.bundle_files(ROOT)]


def files_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Both, written by the command."""
    made = tmp_path_factory.mktemp("hubs")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        export.main(["--hugging_face", str(made / "hub"), "--zoo", str(made / "zoo")])
    return made


def test_the_hub_gets_the_bundle_and_each_file_of_weights_in_both_formats(folders):
    hub = folders / "hub"
    both = [name.replace(".pt", ".safetensors") for name in WEIGHTS]
    assert files_in(hub) == sorted({*NAMES, *both})
    same = [name for name in NAMES if (hub / name).read_bytes() == (ROOT / name).read_bytes()]
    assert set(NAMES) - set(same) == {"README.md"}
    for one, other in zip(WEIGHTS, both):
        weights, again = Weights(hub / one), Weights(hub / other)
        assert weights.about == again.about
        assert all(torch.equal(again.state[n], t) for n, t in weights.state.items() if n != EXTRA_STATE)


def test_the_card_is_one_to_the_hub_s_library_and_says_what_the_documentation_says(folders):
    card = ModelCard.load(folders / "hub/README.md")
    told = card.data.to_dict()
    assert (told["license"], told["library_name"], told["pipeline_tag"]) == ("apache-2.0", "monai", "image-to-image")
    assert {"monai", "mri", "ct"} <= set(told["tags"]) and "datasets" not in told
    found = {(r.dataset_type, r.metric_type): r.metric_value for r in card.data.eval_results}
    page = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    stated = re.findall(r"Diffusion, slerp noise: PSNR ([\d.]+) ± [\d.]+ dB, SSIM ([\d.]+)", page)
    values = [(found[kind, "psnr"], found[kind, "ssim"]) for kind in ("colin27", "lidc-idri-0001")]
    assert values == [(float(psnr), float(ssim)) for psnr, ssim in stated] and len(found) == 4
    for heading in (
        "# interslice: slice-consistent diffusion reconstruction",
        "## Limits and intended use",
        "# Model Overview",
        "## Data",
    ):
        assert f"\n{heading}\n" in f"\n{card.text}"
    with pytest.raises(ValueError, match="(?i)metadata"):  # the library does look at it
        ModelCard((folders / "hub/README.md").read_text(encoding="utf-8").replace('name: "Colin', 'nome: "Colin'))


def test_every_link_of_the_card_leads_somewhere(folders):
    text = (folders / "hub/README.md").read_text(encoding="utf-8")
    links = [target.partition("#")[0] for _, target, _ in hubs.LINK.findall(text)]
    assert len(links) > 40 and [link for link in links if not (folders / "hub" / link).exists()] == []


def test_a_page_of_a_folder_is_linked_as_one_of_the_root():
    text = "[a](b.md#c) ![d](e.png) [f](../g) [h](#i) [j](https://k/l) [m](mailto:n)"
    made = "[a](docs/b.md#c) ![d](docs/e.png) [f](g) [h](#i) [j](https://k/l) [m](mailto:n)"
    assert hubs.relinked(text, "docs") == made


def test_the_zoo_gets_the_bundle_without_weights_which_its_own_command_fetches(folders, tmp_path):
    zoo = shutil.copytree(folders / "zoo", tmp_path / "zoo")
    bundle = zoo / export.NAME
    assert files_in(bundle) == sorted({*NAMES, hubs.LARGE} - set(WEIGHTS))
    assert files_in(zoo / "large_files") == WEIGHTS
    listed = yaml.safe_load((bundle / hubs.LARGE).read_text(encoding="utf-8"))
    assert [entry["path"] for entry in listed["large_files"]] == WEIGHTS
    assert {entry["url"] for entry in listed["large_files"]} == {""}
    for entry in listed["large_files"]:  # as the person does who has put them somewhere
        entry["url"] = (zoo / "large_files" / entry["path"]).as_uri()
    (bundle / hubs.LARGE).write_text(yaml.safe_dump(listed))
    download_large_files(str(bundle))
    assert all((bundle / name).read_bytes() == (ROOT / name).read_bytes() for name in WEIGHTS)
    assert [name for name in FILES if not (bundle / name).is_file()] == []
    schema = shutil.copy(ROOT / "tests/data/meta_schema.json", tmp_path / "schema.json")
    verify_metadata(meta_file=str(bundle / "configs/metadata.json"), filepath=str(schema))


def test_weights_that_are_not_those_are_found_out_by_the_hash(folders, tmp_path):
    bundle = shutil.copytree(folders / "zoo" / export.NAME, tmp_path / "bundle")
    other = tmp_path / "model.pt"
    other.write_bytes((ROOT / WEIGHTS[0]).read_bytes()[:-1] + b"x")
    text = (bundle / hubs.LARGE).read_text(encoding="utf-8")
    (bundle / hubs.LARGE).write_text(text.replace('url: ""', f"url: {json.dumps(other.as_uri())}"))
    with pytest.raises(Exception, match="sha256 hash check of downloaded file failed"):
        download_large_files(str(bundle))


@pytest.mark.parametrize("option", ["--hugging_face", "--zoo"])
def test_a_folder_that_holds_something_is_not_replaced(option, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "mine").write_text("")
    with pytest.raises(OSError, match="is there, and not empty: name a new folder"):
        export.main([option, str(tmp_path)])
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_weights_of_ones_own_as_safetensors(tiny_weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    export.main(["--safetensors", str(tmp_path / "a" / "x.safetensors"), "--checkpoint", str(tiny_weights)])
    assert "tensors, the same when read again" in capsys.readouterr().out
    assert Weights(tmp_path / "a" / "x.safetensors").about == Weights(tiny_weights).about
    monkeypatch.setattr(export, "as_safetensors", lambda state, about: hubs.as_safetensors(state, about | {"grid": {}}))
    with pytest.raises(ValueError, match="is not written: what is read of it differs"):
        export.main(["--safetensors", str(tmp_path / "b.safetensors"), "--checkpoint", str(tiny_weights)])
    assert not Path(tmp_path / "b.safetensors").exists()


def test_scalars_are_quoted_so_that_text_stays_text():
    content = {"a": ["yes", 'x: "y" # z', "ä", 1.5, True, None], "b": {"c": [{"d": 1, "e": ["f"]}, {"g": {"h": "i"}}]}}
    assert yaml.safe_load(hubs.as_yaml(content)) == content
