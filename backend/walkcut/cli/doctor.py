"""`walkcut doctor`."""

import json
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import asdict

import click

from walkcut.doctor import Finding, Means, Target, diagnose
from walkcut.errors import SettingsError
from walkcut.images import ImageLoader
from walkcut.inference.factory import make_access, make_fetch_policy, make_predictor
from walkcut.settings import Settings, read_settings

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
_MARGIN = 22  # columns for level and check
_WIDEST = 120


@click.command()
@click.option("--project", type=click.IntRange(1), help="Look at this Label Studio project too.")
@click.option("--task", type=click.IntRange(1), help="Have the image of this task of the project, not of its first.")
@click.option("--json", "as_json", is_flag=True, help="Write the findings as JSON.")
def doctor(project: int | None, task: int | None, as_json: bool) -> None:  # noqa: FBT001 - as click calls it
    """Find out what is wrong: with the settings, this machine, Label Studio, and a project there.

    Each finding comes with its remedy. The exit status is 1 where there is an error. No secret is shown.
    """
    if task is not None and project is None:
        raise SettingsError("--task needs --project: say which project the task is in")
    findings = []
    for finding in _findings(Target(project, task)):
        findings.append(finding)
        if not as_json:
            _show(finding)
    count = {level: sum(finding.level == level for finding in findings) for level in _COLOURS}
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        click.echo(f"\nerrors: {count['error']}, warnings: {count['warning']}, in order: {count['ok']}")
        if project is None:
            click.echo("With --project ID a project of Label Studio's is looked at too.")
    if count["error"]:
        raise SystemExit(1)


def _findings(target: Target) -> Iterator[Finding]:
    """All findings, or the one that nothing can be looked at without settings."""
    try:
        settings = read_settings()
    except SettingsError as error:
        yield Finding("settings", "error", "the settings cannot be read; nothing else was looked at", str(error))
        return
    method = settings.method or "the best that the model can serve"
    said = f"model {settings.model}, method {method}, device {settings.device}, {settings.dtype}"
    yield Finding("settings", "ok", f"{said}; `walkcut settings` lists all")
    yield from diagnose(settings, target, Means(make_access, make_image_loader, make_predictor))


def make_image_loader(settings: Settings) -> ImageLoader:
    return ImageLoader(make_fetch_policy(settings), make_access(settings))


def _show(finding: Finding) -> None:
    """A finding, with its remedy below."""
    level = click.style(f"{finding.level:8}", fg=_COLOURS[finding.level])
    click.echo(f"{level} {finding.check:12} {_wrapped(finding.what)[_MARGIN:]}")
    if finding.remedy:
        click.echo(_wrapped(f"→ {finding.remedy}", hanging=2))


def _wrapped(text: str, hanging: int = 0) -> str:
    """The text beside the margin, in lines that can be copied: addresses and variables are not broken."""
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 0)).columns)
    margin = " " * _MARGIN
    return textwrap.fill(
        text,
        max(width, 2 * _MARGIN),
        initial_indent=margin,
        subsequent_indent=margin + " " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
