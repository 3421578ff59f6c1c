"""The application: which operators there are, and what flows between them.

    DICOM    load studies -> select series by rules -> read the series -> super-resolve -> write
    files                                             read the files  -> super-resolve -> write

Loading and selecting are the App SDK's operators. The series is read by the bundle (why: docs/how_to/deploy.md).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application
from monai.deploy.operators import DICOMDataLoaderOperator, DICOMSeriesSelectorOperator

from interslice.files.find import SUFFIXES
from interslice.files.write import check_writable

from .inference import SuperResolutionOperator
from .reader import FileReader, SeriesReader
from .writer import ResultWriter

CONFIG = Path(__file__).with_name("app.yaml")
SETTINGS = {"series": {"rules"}, "inference": {"configs"}, "output": {"output_format", "deidentify"}}
"""What app.yaml may set, by section."""


class SuperResolution(Application):
    """Reads one DICOM series, or volumes in files, and writes the super-resolved volume of each.

    Args:
        context: paths of input and output, as `Application.init_app_context` gives them.
        bundle: folder of the bundle.
    """

    def __init__(self, context: AppContext, bundle: Path) -> None:
        super().__init__()
        self.context, self.bundle = context, bundle
        self.config(os.environ.get("HOLOSCAN_CONFIG_PATH", str(CONFIG)))

    def compose(self) -> None:
        """Link the operators.

        Raises:
            OSError: there is no input, or the output cannot be written.
            ValueError: app.yaml sets what there is not.
        """
        source, output = Path(self.context.input_path), check_writable(self.context.output_path)
        infer = SuperResolutionOperator(
            self, app_context=self.context, bundle_path=self.bundle, **self.settings("inference"), name="super_resolve"
        )
        write = ResultWriter(self, output_dir=output, **self.settings("output"), name="write")
        if files := volume_files(source):
            read = FileReader(self, CountCondition(self, len(files)), files=files, name="read_files")
        else:
            read = SeriesReader(self, name="read_series")
            load = DICOMDataLoaderOperator(self, CountCondition(self, 1), input_folder=source, name="load_studies")
            # All that match, so that a second one is noticed: the first depends on the order of files.
            select = DICOMSeriesSelectorOperator(self, rules=self.rules(), all_matched=True, name="select_series")
            self.add_flow(load, select, {("dicom_study_list", "dicom_study_list")})
            self.add_flow(load, read, {("dicom_study_list", "dicom_study_list")})
            self.add_flow(select, read, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(read, infer, {("image", "image")})
        self.add_flow(infer, write, {("pred", "pred")})

    def settings(self, section: str) -> dict:
        """A section of app.yaml; ValueError for a name that nothing reads."""
        given = self.kwargs(section)
        if unknown := given.keys() - SETTINGS[section]:
            raise ValueError(f"app.yaml: {section} has no {sorted(unknown)}, only {sorted(SETTINGS[section])}")
        return given

    def rules(self) -> str:
        """The rules of selection, which the SDK parses when input has been loaded; ValueError if they are no JSON."""
        rules = self.settings("series").get("rules", "")
        try:
            json.loads(rules or "{}")
        except ValueError as error:
            raise ValueError(f"app.yaml: the rules of series are no JSON ({error})") from None
        return rules


def volume_files(source: Path) -> list[Path]:
    """The file itself, or the NIfTI, MetaImage and NRRD files of a folder (sorted, hidden ones left out)."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise FileNotFoundError(f"{source} does not exist: name the input by -i, or in HOLOSCAN_INPUT_PATH")
    return sorted(p for p in source.iterdir() if p.name.lower().endswith(SUFFIXES) and not p.name.startswith("."))
