"""The operator that writes a result as the bundle writes it: each file and folder is there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.data import MetaTensor
from monai.deploy.core import Operator, OperatorSpec

from interslice.files.case_folder import check_case
from interslice.files.deidentify import dates_of
from interslice.files.find import case_name
from interslice.files.nameless import nameless_case
from interslice.files.save_results import FORMATS, save_volume
from interslice.files.source import Source
from interslice.files.values import choice


class ResultWriter(Operator):
    """Writes `<case>/<case>_recon`, a folder of DICOM files, or `<case>_recon.nii.gz`, or both.

    Named input:
        pred: Image of float32 (1, X, Y, Z); its metadata hold affine (RAS, mm), "filename_or_obj", and of a DICOM
            series "series".

    Args:
        output_dir: folder of the cases.
        output_format: "dicom", "nifti" or "both".
        deidentify: write nothing that could tell the patient; a switch, or "shift_dates".

    Raises:
        ValueError: the format is none of these.
    """

    def __init__(self, fragment, *args, output_dir: Path, output_format: str = "dicom", deidentify: bool | str = False,
                 **kwargs) -> None:  # fmt: skip
        choice("output_format", output_format, FORMATS)
        self.output_dir, self.output_format, self.dates = output_dir, output_format, dates_of(deidentify)
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("pred")

    def compute(self, op_input, op_output, context) -> None:
        image = op_input.receive("pred")
        meta = image.metadata()
        volume = MetaTensor(torch.from_numpy(image.asnumpy()), affine=meta["affine"])
        source = meta.get("source") or Source()
        data = source.dicom or meta["filename_or_obj"]
        case = nameless_case(data) if self.dates else case_name(meta["filename_or_obj"])
        check_case(case)
        path = self.output_dir / case / f"{case}_recon"
        save_volume(volume, path, self.output_format, source, dates=self.dates)
        print(f"wrote {path.name} to {path.parent}", flush=True)
