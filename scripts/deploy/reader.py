"""Operators that read a volume as the bundle reads it, and send it on with its affine and its source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai.deploy.core import Image, Operator, OperatorSpec

from interslice.files.read import LoadVolumed


def read_volume(source: str | Path, series: str | None = None) -> Image:
    """A volume as Image: float32 (1, X, Y, Z), and MONAI's metadata with affine (RAS, mm) and "filename_or_obj".

    Args:
        source: a file, or a folder of DICOM files.
        series: SeriesInstanceUID of the series to read from a DICOM folder; kept as "series" in the metadata.
    """
    volume = LoadVolumed("image", series=series)({"image": str(source)})["image"]
    return Image(volume.as_tensor().numpy(), dict(volume.meta) | ({"series": series} if series else {}))


class FileReader(Operator):
    """Emits one file after another.

    Named output:
        image: see `read_volume`.
    """

    def __init__(self, fragment, *args, files: Sequence[Path], **kwargs) -> None:
        self.files = iter(files)
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.output("image")

    def compute(self, op_input, op_output, context) -> None:
        op_output.emit(read_volume(next(self.files)), "image")


class SeriesReader(Operator):
    """Emits the one series that was selected.

    Named inputs:
        dicom_study_list: all that was found, to be named if nothing fits.
        study_selected_series_list: what the rules select.
    Named output:
        image: see `read_volume`.
    """

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("dicom_study_list")
        spec.input("study_selected_series_list")
        spec.output("image")

    def compute(self, op_input, op_output, context) -> None:
        """Raises ValueError if not exactly one series was selected, or its files lie in several folders."""
        found = [s for study in op_input.receive("dicom_study_list") for s in study.get_all_series()]
        studies = op_input.receive("study_selected_series_list")
        selected = {c.series.SeriesInstanceUID: c.series for study in studies for c in study.selected_series}
        if not selected:
            raise ValueError("no series fits the rules in app.yaml; change them, or the input:" + listed(found))
        if len(selected) > 1:
            raise ValueError(
                "several series fit the rules in app.yaml; narrow them to one:" + listed(selected.values())
            )
        ((uid, series),) = selected.items()
        folders = {Path(i.get_native_sop_instance().filename).parent for i in series.get_sop_instances()}
        if len(folders) > 1:
            raise ValueError(f"series {uid} is spread over {len(folders)} folders; put its files into one")
        op_output.emit(read_volume(folders.pop(), str(uid)), "image")


def listed(series) -> str:
    """A line for each series."""
    return "".join(
        f"\n  series {s.SeriesNumber} {s.SeriesDescription!r}, {s.Modality}, {len(s.get_sop_instances())} files"
        for s in series
    )
