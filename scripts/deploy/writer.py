"""The operator that writes a result as the bundle writes it: each file and folder is there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import torch
from monai.data import MetaTensor
from monai.deploy.core import Operator, OperatorSpec

from bundle.files.find import case_name
from bundle.files.save_results import FORMATS, save_volume
from bundle.files.source import Source
from bundle.files.switch import is_on
from bundle.files.values import choice


class ResultWriter(Operator):
    """Writes `<case>/<case>_recon`, a folder of DICOM files, or `<case>_recon.nii.gz`, or both.

    Named input:
        pred: Image of float32 (1, X, Y, Z); its metadata hold affine (RAS, mm), "filename_or_obj", and of a DICOM
            series "series".

    Args:
        output_dir: folder of the cases.
        output_format: "dicom", "nifti" or "both".
        deidentify: strip what could tell the patient from the DICOM series.

    Raises:
        ValueError: the format is none of these.
    """

    def __init__(self, fragment, *args, output_dir: Path, output_format: str = "dicom", deidentify: bool | str = False,
                 **kwargs) -> None:  # fmt: skip
        choice("output_format", output_format, FORMATS)
        self.output_dir, self.output_format, self.deidentify = (
            output_dir,
            output_format,
            is_on(deidentify, "deidentify"),
        )
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("pred")

    def compute(self, op_input, op_output, context) -> None:
        image = op_input.receive("pred")
        meta = image.metadata()
        volume = MetaTensor(torch.from_numpy(image.asnumpy()), affine=meta["affine"])
        case = case_name(meta["filename_or_obj"])
        path = self.output_dir / case / f"{case}_recon"
        save_volume(volume, path, self.output_format, meta.get("source") or Source(), deidentified=self.deidentify)
