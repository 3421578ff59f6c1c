"""`--dry-run`: what a command would do, how long it takes and how much memory; nothing is written.

The parts are those of the run itself, made from the same configs: cases are found, read and checked, and refused for
the same reasons. How long a reconstruction takes is told by an earlier one of the same settings in the output folder,
or else measured on its first steps (interslice.cli.timing).
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from interslice.cli.jobs import Job, prepare
from interslice.cli.timing import in_words, recorded_rate, seconds_of_sampling, seconds_of_training
from interslice.files.machine import available_memory, free_disk, in_gigabytes
from interslice.files.series import points_of
from interslice.physics.measurement import operator_of

LONG = 40
"""Letters of a setting that is left to run.json."""


def tell(job: Job) -> None:
    """Print what a job would do.

    Raises:
        Exception: what the run would end with.
    """
    prepare(job)
    print(f"configs     {', '.join(Path(file).name for file in job.configs)}")
    if job.said:
        print(f"given       {', '.join(f'{name} {text}' for name, text in job.said.items())}")
    kind = "inference" if job.run_id == "inference" else "train"
    run = ConfigWorkflow(workflow_type=kind, **job.arguments())
    run.initialize()
    if job.run_id == "inference":
        of_inference(run.parser)
    else:
        of_training(run.parser)
    print("nothing was written")


def of_inference(parser: ConfigParser) -> None:
    """Each case with its grid, and what it takes."""
    get = parser.get_parsed_content
    _ = [get(name) for name in ("inferer", "preprocessing", "postprocessing", "handlers")]
    get("load_weights").load()
    record = get("run_record")
    print(
        f"settings    {', '.join(f'{k} {v}' for k, v in record.settings.items() if isinstance(v, (str, int, float)))}"
    )
    print(f"device      {record.device}, {torch.get_num_threads()} threads")
    cases = get("cases")
    print(f"found       {len(cases.usable)} to reconstruct, {len(cases.finished)} finished, {len(cases.refused)} "
          f"refused, {len(cases.left_out)} left out")  # fmt: skip
    total = 0.0
    for item in cases.usable:
        seconds = _of_case(item, parser, cases.output_dir)
        total = total + seconds if seconds is not None else math.nan
    if len(cases.usable) > 1:
        print(f"all         {in_words(total)}")
    for path, why in cases.left_out.items():
        print(f"left out    {path}: {why}")
    if cases.refused:
        lines = "\n".join(f"  {path}: {why}" for path, why in cases.refused.items())
        raise SystemExit(f"{len(cases.refused)} volumes would have no result:\n{lines}")


def _of_case(item: dict, parser: ConfigParser, output_dir: Path) -> float | None:
    """Print what a case takes, and return its seconds, if they can be told."""
    get = parser.get_parsed_content
    points = points_of(item)
    measurement = get("preprocessing")(dict(points[0]))["image"]
    operator, check = operator_of(measurement), get("check_memory")
    spacing = operator.voxel_sizes(measurement.affine)
    sampling, after = check.estimate(measurement)
    memory, device = max(sum(sampling.values()), sum(after.values())), str(check.device)
    there = "" if check.limits.off else f" of {in_gigabytes(available_memory(device))} that are free"
    disk, free = check.disk_bytes(operator.domain_shape, len(points)), free_disk(output_dir)
    print(f"case        {item['case']}" + (f", {len(points)} volumes" if len(points) > 1 else ""))
    print(f"  from      {item['image']}")
    print(f"  scan      {operator}")
    print(f"  grid      {_times(measurement.shape[1:])} measured, {_times(operator.domain_shape)} voxels of "
          f"{' x '.join(f'{size:.4g}' for size in spacing)} mm reconstructed")  # fmt: skip
    print(f"  into      {output_dir / item['case']}")
    print(f"  memory    about {in_gigabytes(memory)}{there}")
    print(f"  disk      about {in_gigabytes(disk)}" + (f" of {in_gigabytes(free)} that are free" if free else ""))
    seconds = recorded_rate(output_dir, get("run_record"))
    source = "by what stands in the output folder"
    if seconds is not None:
        seconds *= math.prod(operator.domain_shape)
    else:
        with _quiet():
            seconds, source = seconds_of_sampling(get("inferer"), get("sampler"), get("network"), measurement, check)
    if "compare" in parser.config:
        source += ", without baselines and other noise"
    seconds = None if seconds is None else seconds * len(points)
    print(f"  time      {in_words(seconds)}, {source}")
    return seconds


def of_training(parser: ConfigParser) -> None:
    """What would be trained on, for how long."""
    get = parser.get_parsed_content
    settings = get("check_settings")
    _ = [get(name) for name in ("limits", "check_grow", "taught_by")]
    training, validation = get("volumes")
    size = sum(p.numel() for p in get("network_def").parameters())
    print(f"found       {len(training)} volumes to train on, {len(validation)} to validate on")
    print(f"network     {size / 1e6:.2g} million parameters, on {get('device')}")
    epochs, length = settings["max_epochs"], settings["epoch_length"]
    if (minutes := get("max_minutes")) is not None:
        print(f"time        {minutes:g} min, as the budget says")
    else:
        seconds = seconds_of_training(get("network"), get("patch_size"), get("batch_size"))
        print(f"time        {epochs} epochs of {length} steps: {in_words(epochs * length * seconds)}, by three steps, "
              "without reading the volumes and validating")  # fmt: skip
    print(f"into        {get('run_dir')}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what a reconstruction says of itself."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def _times(shape) -> str:
    return " x ".join(str(int(n)) for n in shape)
