"""The App SDK's operator for bundles, for results that are no masks: float32, on a grid of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai.deploy.core import AppContext, Image, IOType
from monai.deploy.operators import BundleConfigNames, IOMapping, MonaiBundleInferenceOperator
from monai.transforms import LoadImaged


class SuperResolutionOperator(MonaiBundleInferenceOperator):
    """Runs `preprocessing`, `inferer` and `postprocessing` of a bundle, with the weights in its models/model.pt.

    Named input:
        image: see `read_volume`.
    Named output:
        pred: Image of float32 (1, X, Y, Z), with the metadata of the result.

    Args:
        app_context: of the application.
        bundle_path: folder of the bundle.
        configs: names of the configs to put together, as in the bundle's command line, without folder and suffix.
    """

    def __init__(self, fragment, *args, app_context: AppContext, bundle_path: Path,
                 configs: Sequence[str] = ("inference",), **kwargs) -> None:  # fmt: skip
        # The SDK takes the folder of a bundle for a model that it cannot call; without one it reads the bundle itself.
        app_context.models = None
        super().__init__(
            fragment,
            *args,
            app_context=app_context,
            bundle_path=bundle_path,
            bundle_config_names=BundleConfigNames(config_names=list(configs)),
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            **kwargs,
        )

    @property
    def _parser(self):
        return self._config

    @_parser.setter
    def _parser(self, parser):
        """The configs, in the folder they are from: the SDK leaves "bundle_root" at the folder of the run."""
        if parser is not None:
            parser["bundle_root"] = str(self.bundle_path)
        self._config = parser

    def _get_compose(self, obj_name, disallowed_prefixes):
        """Transforms without those that load, which the SDK knows by name: ours has another."""
        compose = super()._get_compose(obj_name, disallowed_prefixes)
        compose.transforms = tuple(t for t in compose.transforms if not isinstance(t, LoadImaged))
        return compose

    def _send_output(self, value, name, metadata, op_output, context):
        """Emit the result as it is; the SDK would cast it to uint8 and give it `metadata`, those of the input."""
        op_output.emit(Image(value.as_tensor().cpu().numpy(), dict(value.meta)), name)
