"""`walkcut settings`."""

import click

from walkcut.settings import list_settings, read_settings, unknown_variables


@click.command()
def settings() -> None:
    """List the settings: variable, value and meaning."""
    for variable, value, description in list_settings(read_settings()):
        click.echo(f"{variable:28} {value:20} {description}")
    for message in unknown_variables():
        click.echo(f"Warning: {message}", err=True)
