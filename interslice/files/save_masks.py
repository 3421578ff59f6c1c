"""The mask of a scan on the grid of its result, beside it: `<case>_mask.nii.gz`."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from interslice.files.case_folder import Writer
from interslice.files.compressed import gzip_writer
from interslice.files.deidentify import dates_of
from interslice.files.find import case_of
from interslice.files.masks import LabelMap
from interslice.files.placement import Placement
from interslice.files.source import source_of
from interslice.files.whole import written_whole


class SaveMasks(Writer):
    """Writes the label map that a scan carries, on its result's grid, as whole numbers; nothing where there is none.

    Args:
        deidentify: as for the results: the text of the scan's header does not go out.
    """

    def __init__(self, deidentify: bool | str = False) -> None:
        self.dates = dates_of(deidentify)

    def write(self, result: dict, folder: Path) -> None:
        mask: LabelMap | None = result["image"].meta.get("label_map")
        if mask is None:
            return
        pred = result["pred"]
        affine = np.asarray(pred.affine, np.float64)
        labels = mask.on(tuple(pred.shape[1:]), affine)
        placement = source_of(result["image"]).nifti or Placement.scanner(affine)
        placement = placement.without_text() if self.dates else placement
        image = placement.image(labels, affine)
        image.set_data_dtype(labels.dtype)
        image.header["intent_code"] = nib.nifti1.intent_codes.code["label"]
        path = folder / f"{case_of(result['image'])}_mask.nii.gz"
        with written_whole(path) as partial, partial.open("wb") as file, gzip_writer(file) as compressed:
            image.to_stream(compressed)
