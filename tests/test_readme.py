"""What README and the first pages show is what happens: commands run, links lead somewhere, CI runs the same."""

import os
import re
import shlex
import subprocess
import sys

import pytest
import torch

from tests.physics.stacks.volumes import write_stack
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
BUNDLE_COMMANDS = list(
    dict.fromkeys(
        c[c.index("python -m monai.bundle") :] for c in COMMANDS + commands(FIRST) if "python -m monai.bundle" in c
    )
)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def python(*words):
    """Run Python from the repository root; its output, if it succeeds."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_two_commands_do_all_the_set_up():
    first, second = COMMANDS[:2]
    assert first.startswith("pip install -r requirements.txt &&") and "run inference" in first
    assert second.startswith("pip install -r requirements-dev.txt &&") and "pytest" in second


def test_ci_runs_the_commands_of_the_readme():
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert script.count("eval \"$(readme_command 'pip install -r requirements") == 2


@pytest.mark.slow
@pytest.mark.parametrize("command", BUNDLE_COMMANDS, ids=lambda c: " ".join(c.split()[4:5] + c.split()[-4:]))
def test_a_command_runs_on_tiny_volumes(command, tmp_path):
    """As a user types it, with tiny data and weights put after it; the last value of an option counts."""
    words = shlex.split(command)[2:]
    weights = tmp_path / "model.pt"
    torch.save(random_network().state_dict(), weights)
    overrides = {
        "output_dir": tmp_path / "results",
        "network_def#channels": list(CHANNELS),
        "network_def#norm_num_groups": GROUPS,
    }
    if "training" in words:
        for seed in (0, 1):
            write_volume(tmp_path / "my_volumes" / f"head{seed}.nii.gz", head_voxels((24, 20, 24), seed))
        overrides |= TRAINED_HERE | {"dataset_dir": tmp_path / "my_volumes"}
    elif "task_" in command:
        overrides |= {"num_steps": 2, "num_draws": 1, "checkpoint": weights, "baselines#total_variation#iterations": 20}
        if "evaluate" in command:
            voxels = head_voxels((24, 20, 8)) if "csmri" in command else chest_voxels((24, 24, 8))
            overrides["dataset_dir"] = write_volume(tmp_path / "volume.nii.gz", voxels)
        elif "stacks" in command:
            for plane in ("ax", "cor"):
                write_stack(tmp_path / f"patient/sub-01_acq-{plane}_T1w.nii.gz", plane)
            overrides |= {"dataset_dir": tmp_path / "patient", "rounds": 0}
        else:  # the embedded projections, reconstructed coarsely
            overrides |= {"operator#spacing": 10.0, "operator#shape": [32, 32, 48]}
    elif "evaluate" in command:
        overrides |= {
            "dataset_dir": write_volume(tmp_path / "head.nii.gz", head_voxels((20, 18, 25))),
            "num_steps": 2,
            "checkpoint": weights,
        }
    else:
        scan = write_volume(tmp_path / "scan.nii.gz", thick_voxels(), spacing=(1, 1, 4))
        overrides |= {"dataset_dir": scan, "checkpoint": weights}
        overrides |= TRAINED_HERE if "adaptation" in words else {"num_steps": 2}
    for name in overrides:
        if f"--{name}" in words:
            at = words.index(f"--{name}")
            del words[at : at + 2]
    words += [word for name, value in overrides.items() for word in (f"--{name}", str(value))]
    assert "wrote" in python("-m", *words)
    assert any((tmp_path / "results").rglob("*"))


@pytest.mark.slow
@pytest.mark.parametrize("code", PYTHON)
def test_the_python_of_the_readme_runs(code, tmp_path):
    scan = write_volume(tmp_path / "scan.nii.gz", thick_voxels(), spacing=(1, 1, 4))
    code = code.replace('output_dir="results"', f'output_dir="{tmp_path / "results"}", dataset_dir="{scan}"')
    python("-c", code)
    assert (tmp_path / "results" / "scan" / "scan_recon.nii.gz").exists()


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
