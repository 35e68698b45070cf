"""Options that several commands share; no torch, which the server does without."""

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

from walkcut.errors import GranularityError
from walkcut.hierarchy.granularity import Granularity, parse_granularity
from walkcut.models import choose_model
from walkcut.settings import Settings, description, read_settings, variable

Command = TypeVar("Command", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUTPUT_FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
GRANULARITIES = "auto, coarse, medium, fine, 12, tau=0.4 or k=3."


def with_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds options to a command, in this order."""
    return lambda command: reduce(lambda decorated, option: option(decorated), reversed(options), command)


def setting_option(name: str) -> Callable[[Command], Command]:
    """Return the option that overrides a setting."""
    return click.option(f"--{name}", help=f"{name.capitalize()}: {description(name)}.  [{variable(name)}]")


model_options = with_options(*map(setting_option, ("model", "method", "device")))


def chosen_settings(model: str | None, method: str | None, device: str | None) -> Settings:
    """Return the settings with these options in their place, and the model that `auto` is."""
    configured = read_settings()
    return replace(
        configured,
        model=choose_model(model or configured.model, configured.weights_dir),
        method=method or configured.method,
        device=device or configured.device,
    )


random_weights_option = click.option(
    "--random-weights", is_flag=True, help="Build the model without its weights, to try it out."
)


class GranularityType(click.ParamType):
    """Granularity on the command line."""

    name = "granularity"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Granularity:
        """Return the granularity, or fail with the accepted forms."""
        try:
            return parse_granularity(str(value))
        except GranularityError as error:
            self.fail(str(error), param, ctx)
