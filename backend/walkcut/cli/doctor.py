"""`walkcut doctor`."""

import json
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import asdict

import click

from walkcut.doctor import Finding, diagnose
from walkcut.errors import SettingsError
from walkcut.models import choose_model
from walkcut.settings import read_settings, unknown_variables

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
_MARGIN = 22  # columns for severity and check
_MAX_WIDTH = 120


@click.command()
@click.option("--project", "project_id", type=click.IntRange(1), help="Check this Label Studio project too.")
@click.option("--task", "task_id", type=click.IntRange(1), help="Load the image of this task.  [the project's first]")
@click.option("--json", "as_json", is_flag=True, help="Write the findings as JSON.")
def doctor(project_id: int | None, task_id: int | None, as_json: bool) -> None:
    """Check the settings, this machine, Label Studio and a project in it.

    Each problem comes with its remedy. The exit status is 1 if there is an error. No secret is shown.
    """
    if task_id is not None and project_id is None:
        raise SettingsError("--task needs --project: name the project of the task")
    findings = []
    for finding in _findings(project_id, task_id):
        findings.append(finding)
        if not as_json:
            _print_finding(finding)
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in _COLOURS}
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        click.echo(f"\nerrors: {counts['error']}, warnings: {counts['warning']}, ok: {counts['ok']}")
        if project_id is None:
            click.echo("Add --project ID to check a Label Studio project too.")
    if counts["error"]:
        raise SystemExit(1)


def _findings(project_id: int | None, task_id: int | None) -> Iterator[Finding]:
    """Yield all findings; a single one if the settings cannot be read."""
    try:
        settings = read_settings()
    except SettingsError as error:
        yield Finding("settings", "error", "the settings cannot be read, so nothing else was checked", str(error))
        return
    method = settings.method or "the model's best"
    chosen = choose_model(settings.model, settings.weights_dir)
    model = chosen if chosen == settings.model else f"{chosen} ({settings.model})"
    message = f"model {model}, method: {method}, device {settings.device}, {settings.dtype}"
    yield Finding("settings", "ok", f"{message}; `walkcut settings` lists all")
    for message in unknown_variables():
        yield Finding("settings", "warning", message, "correct its name, or remove it; `walkcut settings` lists all")
    yield from diagnose(settings, project_id, task_id)


def _print_finding(finding: Finding) -> None:
    """Print a finding beside the margin, without breaking addresses and variables, which users copy."""
    width = min(_MAX_WIDTH, shutil.get_terminal_size((_MAX_WIDTH, 0)).columns)
    wrapper = textwrap.TextWrapper(max(width, 2 * _MARGIN), break_long_words=False, break_on_hyphens=False)
    wrapper.initial_indent = wrapper.subsequent_indent = " " * _MARGIN
    severity = click.style(f"{finding.severity:8}", fg=_COLOURS[finding.severity])
    click.echo(f"{severity} {finding.check:12} {wrapper.fill(finding.message)[_MARGIN:]}")
    if finding.remedy:
        wrapper.subsequent_indent += "  "
        click.echo(wrapper.fill(f"→ {finding.remedy}"))
