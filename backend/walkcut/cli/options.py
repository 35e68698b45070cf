"""What several commands share: types of arguments, and the parts that settings come to."""

from typing import Any

import click

from walkcut.backbones import MODELS
from walkcut.errors import GranularityError, WalkcutError
from walkcut.hierarchy.granularity import Granularity, parse_granularity
from walkcut.segmentation.presets import PRESETS

model_option = click.option(
    "--model", help=f"Where evidence comes from: {', '.join(MODELS)}, a diffusers folder or a hub id."
)
method_option = click.option(
    "--method",
    "method",
    help=f"How the tree is made: {', '.join(PRESETS)}, or another that `walkcut presets` lists.",
)
random_weights_option = click.option(
    "--random-weights", is_flag=True, help="Build the model without its weights, to try it out."
)


class GranularityType(click.ParamType):
    """A granularity on the command line."""

    name = "granularity"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Granularity:
        """Parse it, or say what is understood."""
        try:
            return parse_granularity(str(value))
        except GranularityError as error:
            self.fail(str(error), param, ctx)


class ErrorReportingGroup(click.Group):
    """Commands whose errors are one line with the remedy."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (WalkcutError, OSError) as error:
            raise click.ClickException(str(error)) from error
