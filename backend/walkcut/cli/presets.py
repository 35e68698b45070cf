"""`walkcut presets`."""

import click

from walkcut.segmentation.presets import PAPER_PRESETS, PRESETS, describe


@click.command()
def presets() -> None:
    """List the methods with their settings: those for annotators, then the rows of the papers' tables."""
    for preset in (*PRESETS.values(), *PAPER_PRESETS.values()):
        click.echo(f"{preset.name:32} {describe(preset)}")
