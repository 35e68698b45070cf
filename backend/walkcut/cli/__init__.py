"""The command `walkcut`."""

from dataclasses import fields
from importlib.metadata import version

import click

from walkcut.cli.benchmark import benchmark
from walkcut.cli.doctor import doctor
from walkcut.cli.evaluate import evaluate
from walkcut.cli.merge import merge
from walkcut.cli.options import ErrorReportingGroup
from walkcut.cli.prelabel import prelabel
from walkcut.cli.project import project
from walkcut.cli.re_export import re_export
from walkcut.cli.segment import segment
from walkcut.cli.serve import serve
from walkcut.segmentation.presets import PAPER_PRESETS, PRESETS, describe
from walkcut.settings import Settings, read_settings


@click.group(
    cls=ErrorReportingGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(version("walkcut"))
def main() -> None:
    """Pre-annotate images with brush masks: attention as a random walk, cut by normalised cuts.

    Settings are environment variables; `walkcut settings` lists them.
    """


@main.command("settings")
def list_settings() -> None:
    """List the settings: variable, value and meaning."""
    settings = read_settings()
    for spec in fields(Settings):
        value = getattr(settings, spec.name)
        shown = ("(set)" if not spec.repr else str(value)) if value not in {None, "", ()} else "-"
        click.echo(f"{spec.metadata['variable']:28} {shown:20} {spec.metadata['meaning']}")


@main.command("presets")
def list_recipes() -> None:
    """List the methods with their settings, by name: walkcut's own, and the rows of the papers' tables."""
    for preset in (*PRESETS.values(), *PAPER_PRESETS.values()):
        click.echo(f"{preset.name:32} {describe(preset)}")


main.add_command(serve)
main.add_command(doctor)
main.add_command(segment)
main.add_command(merge)
main.add_command(prelabel)
main.add_command(re_export)
main.add_command(project)
main.add_command(benchmark)
main.add_command(evaluate)
