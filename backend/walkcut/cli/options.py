"""Options that several commands share."""

from typing import Any

import click

from walkcut.backbones import MODELS
from walkcut.errors import GranularityError
from walkcut.hierarchy.granularity import Granularity, parse_granularity
from walkcut.segmentation.presets import PRESETS

model_option = click.option(
    "--model", help=f"Model of the image features: {', '.join(MODELS)}, a diffusers folder or a hub id."
)
method_option = click.option(
    "--method", help=f"Method of the cut tree: {', '.join(PRESETS)}, or another that `walkcut presets` lists."
)
random_weights_option = click.option(
    "--random-weights", is_flag=True, help="Build the model without its weights, to try it out."
)


GRANULARITIES = "auto, coarse, medium, fine, 12, tau=0.4 or k=3."


class GranularityType(click.ParamType):
    """Granularity on the command line."""

    name = "granularity"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Granularity:
        """Return the granularity, or fail with the accepted forms."""
        try:
            return parse_granularity(str(value))
        except GranularityError as error:
            self.fail(str(error), param, ctx)
