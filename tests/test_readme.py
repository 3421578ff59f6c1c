"""What README and the first pages show is what happens: commands run, links lead somewhere, CI runs the same."""

import os
import re
import shlex
import subprocess
import sys

import pytest
import torch

from tests.support.scans import (
    CHANNELS,
    GROUPS,
    ROOT,
    chest_voxels,
    head_voxels,
    random_network,
    thick_voxels,
    write_volume,
)
from tests.test_configs import TRAINED_HERE

README = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/start").glob("*.md")))


def commands(text):
    """The lines of all blocks of bash."""
    return [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.strip().splitlines()]


COMMANDS = commands(README)
SECOND = next(c for c in COMMANDS if "pytest" in c)
SHOWN = list(dict.fromkeys(c for c in COMMANDS[1:] + commands(FIRST) if re.match(r"interslice (run|ev|tr|ad)", c)))
BUNDLE = [c for c in COMMANDS if c.startswith("python -m monai.bundle")]


def python(*words):
    """Run Python from the repository root; its output, if it succeeds."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_two_commands_do_all_the_set_up():
    assert COMMANDS[0] == "pip install . -c requirements.txt && interslice run"
    assert SECOND.startswith("pip install -r requirements-dev.txt &&")


def test_ci_runs_the_commands_of_the_readme():
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    started = re.findall(r"readme_command '(.*?)'", script)
    assert [next(c for c in COMMANDS if start in c) for start in started] == [SECOND, COMMANDS[0]]


TRAINED = TRAINED_HERE | {"device": "cpu"}


def tiny(command, folder):
    """Ids that let a command of the first pages run within seconds."""
    weights = folder / "model.pt"
    torch.save(random_network().state_dict(), weights)
    ids = {"network_def#channels": list(CHANNELS), "network_def#norm_num_groups": GROUPS}
    if "train" in command:
        for seed in (0, 1):
            write_volume(folder / "my_volumes" / f"head{seed}.nii.gz", head_voxels((24, 20, 24), seed))
        return ids | TRAINED | {"dataset_dir": folder / "my_volumes"}
    ids["checkpoint"] = weights
    if "evaluate" in command:
        voxels = chest_voxels((24, 24, 8)) if "ct" in command.split() else head_voxels((24, 20, 8))
        voxels = voxels if "--task" in command else head_voxels((20, 18, 25))
        ids["dataset_dir"] = write_volume(folder / "volume.nii.gz", voxels)
    elif "--task ct" in command:  # the embedded projections, reconstructed coarsely
        ids |= {"operator#spacing": 10.0, "operator#shape": [32, 32, 48]}
    else:
        ids["dataset_dir"] = write_volume(folder / "scan.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    if "--task ct" in command:
        ids["baselines#total_variation#iterations"] = 20
    return ids | (TRAINED if "adapt" in command else {"num_steps": 2, "num_draws": 1})


@pytest.mark.slow
@pytest.mark.parametrize("command", SHOWN)
def test_a_command_runs_on_tiny_volumes(command, tmp_path):
    """As a user types it, with tiny data and weights put after it; the last value of an option counts."""
    words = [w for w in shlex.split(command)[1:] if w not in ("scan.nii.gz", "my_volumes")]
    ids = tiny(command, tmp_path)
    scans = [str(ids.pop("dataset_dir"))] if "dataset_dir" in ids else []
    words += [*scans, "-o", str(tmp_path / "results")]
    words += [word for name, value in ids.items() for word in ("--set", f"{name}={value}")]
    assert "wrote" in python("-m", "interslice", *words)
    assert any((tmp_path / "results").rglob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("command", BUNDLE)
def test_the_bundle_runs_without_installing(command, tmp_path):
    words = shlex.split(command)[2:]
    ids = tiny(command, tmp_path) | {"output_dir": tmp_path / "results"}
    for name in [name for name in ids if f"--{name}" in words]:
        at = words.index(f"--{name}")
        del words[at : at + 2]
    words += [word for name, value in ids.items() for word in (f"--{name}", str(value))]
    assert "wrote" in python("-m", *words)
    assert any((tmp_path / "results").rglob("*"))


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *[str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")]]
)
def test_links_lead_to_files(page):
    folder = (ROOT / page).parent
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (folder / link).exists()] == []


def test_results_are_generated_and_there():
    section = re.search(r"<!-- results -->\n(.*?)<!-- /results -->", README, flags=re.DOTALL)[1]
    assert "PSNR" in section and "python -m scripts.reproduce" in section
