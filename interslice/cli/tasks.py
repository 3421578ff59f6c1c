"""`interslice tasks`: what can be reconstructed, and with what."""

from __future__ import annotations

from collections.abc import Sequence

from interslice.cli.jobs import TASKS
from interslice.cli.options import options_of
from interslice.home import home

ABOUT = {
    "thick": "one volume of thick MRI slices: NIfTI, MetaImage, NRRD, FreeSurfer, DICOM",
    "stacks": "one volume of several scans of a patient, however he moved between them",
    "ct": "one volume of CT projections, parallel, fan or cone beam, in Hounsfield units",
    "kspace": "one volume of undersampled k-space: fastMRI, ISMRMRD",
}
"""Each task in a line."""


def told(solvers: Sequence[str]) -> str:
    """The tasks with an example each, the solvers, the noise fields and the presets."""
    width = max(map(len, TASKS))
    lines = ["Tasks, --task:"] + [f"  {name:<{width}}  {ABOUT[name]}" for name in TASKS]
    options = options_of("run")
    lines += ["", f"Solvers, --solver: {', '.join(solvers)}"]
    lines += [f"Noise fields, --noise: {', '.join(options['noise'].kind[1:])}"]
    lines += [f"Presets, --preset: {', '.join(options['preset'].kind[1:])}"]
    lines += ["", "`interslice run --task ct --help` lists the options of a task.", f"Configs and weights: {home()}"]
    return "\n".join(lines)
