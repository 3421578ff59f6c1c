"""Starts the application: `python -m scripts.deploy -i INPUT -o OUTPUT -m BUNDLE`.

Packages of the App SDK start the folder itself, and hold the bundle elsewhere: its modules are imported from there.
"""

import importlib
import os
import sys
from pathlib import Path

if not __package__:  # the folder was started: make it a package, under whatever name it was copied to
    HERE = Path(__file__).resolve().parent
    sys.path.insert(0, str(HERE.parent))
    __package__ = HERE.name
    importlib.import_module(__package__)

os.environ.setdefault("HOLOSCAN_LOG_LEVEL", "WARN")

from monai.deploy.core import Application  # noqa: E402 - reads the level of its log on import

from .bundle_folder import find_bundle  # noqa: E402


def main() -> None:
    """Run the application; ends the process with status 1 and the reason where it fails."""
    context = Application.init_app_context()
    try:
        bundle = find_bundle(context.model_path)
    except ValueError as error:
        raise SystemExit(f"no result: {error}") from None
    sys.path.insert(0, str(bundle))
    with importlib.import_module("interslice.files.last_words").plain_endings():
        try:
            importlib.import_module(".app", __package__).SuperResolution(context, bundle).run()
        except Exception as error:  # from an operator, through the scheduler; its C++ trace is on stderr already
            cause = importlib.import_module("interslice.files.root_cause").root_cause(error)
            raise SystemExit(f"no result: {cause}") from None


if __name__ == "__main__":
    main()
