"""The command `walkcut`, whose subcommands are imported when they are called: some of them load torch."""

import errno
from importlib import import_module
from typing import Any

import click

from walkcut.errors import WalkcutError

_COMMANDS = {
    "serve": "Run the ML backend for Label Studio.",
    "doctor": "Check the settings, this machine, Label Studio and a project in it.",
    "segment": "Segment images into label maps.",
    "merge": "Merge the segments of a cut tree by an annotation.",
    "prelabel": "Predict many images, into files or a Label Studio project.",
    "re-export": "Export the results of `walkcut prelabel` again, in another way.",
    "project": "Show and change what Label Studio projects have learned.",
    "repair": "Set a damaged database aside and begin a new one.",
    "benchmark": "Measure the time and memory of each stage.",
    "evaluate": "Score segmentations on a data set.",
    "settings": "List the settings: variable, value and meaning.",
    "models": "Fetch weights of models.",
    "presets": "List the methods with their settings.",
}
_WRITABLE = "choose a file or folder that walkcut may read or write"
_FILE_REMEDIES = {
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: _WRITABLE,
    errno.EPERM: _WRITABLE,
    errno.ENOENT: "check the name, and that folders can be made there",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.EEXIST: "a file has this name: choose another folder",
    errno.ENOSPC: "make room on the disk, and run the command again",
    errno.EDQUOT: "make room within the quota, and run the command again",
}


class LazyGroup(click.Group):
    """Commands that are imported when they are called, and whose errors are one line with the remedy."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command from the module of its name."""
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"{__name__}.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; its errors end the program with a message."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends the program quietly
        except WalkcutError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            raise click.ClickException(_file_problem(error)) from error


def _file_problem(error: OSError) -> str:
    """Return what failed with which file, and what to do."""
    remedy = _FILE_REMEDIES.get(error.errno or 0, "")
    name = f"{error.filename}: " if error.filename else ""
    return f"{name}{error.strerror or error}{remedy and ': '}{remedy}"


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(package_name="walkcut")
def main() -> None:
    """Pre-annotate images with brush masks: a tree of segments for each image, read at any granularity.

    The default model and method merge segments by colour, texture and contours; `walkcut presets` lists the others.

    Settings are environment variables; `walkcut settings` lists them.
    """
