"""What several commands share: types of arguments, and the parts that settings come to."""

from dataclasses import replace
from typing import Any

import click
import torch

from walkcut.backbones import EMBEDDED, MODELS, Weights
from walkcut.errors import GranularityError, SettingsError, WalkcutError
from walkcut.hierarchy.granularity import Granularity, parse_granularity
from walkcut.segmentation.presets import RECIPES
from walkcut.segmentation.segmenter import Segmenter, load_segmenter
from walkcut.settings import Settings

model_option = click.option(
    "--model", help=f"Where evidence comes from: {', '.join(MODELS)}, a diffusers folder or a hub id."
)
method_option = click.option(
    "--method",
    "--recipe",
    "method",
    help=f"How the tree is made: {', '.join(RECIPES)}, or another that `walkcut recipes` lists.",
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


class Commands(click.Group):
    """Commands whose errors are one line with the remedy."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (WalkcutError, OSError) as error:
            raise click.ClickException(str(error)) from error


def chosen(settings: Settings, *, model: str | None, method: str | None) -> Settings:
    """The settings, with what was asked for on the command line."""
    return replace(settings, method=method or settings.method, model=model or settings.model)


def device_of(settings: Settings) -> torch.device:
    """The device of the settings. Raises `SettingsError` for one that cannot be used here."""
    try:
        device = torch.device(settings.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"WALKCUT_DEVICE={settings.device!r} cannot be used here: {error}") from error
    return device


def segmenter_of(settings: Settings, *, random_weights: bool = False) -> Segmenter:
    """The model and method of the settings, on their device."""
    weights = Weights(settings.weights, getattr(torch, settings.dtype), random_weights)
    if settings.model == EMBEDDED and not random_weights:
        weights = Weights()
    return load_segmenter(settings.model, settings.method, device=device_of(settings), weights=weights)
