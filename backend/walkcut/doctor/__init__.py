"""Diagnosis of a deployment: findings about the settings, the machine, Label Studio and a project, with remedies."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from itertools import chain

from walkcut.doctor import environment, labelstudio, project, server
from walkcut.doctor.checks import Finding, Severity, run_check, without_secrets
from walkcut.doctor.labelstudio import LabelStudioProbe
from walkcut.doctor.server import ServerProbe
from walkcut.inference.factory import make_access
from walkcut.inference.project import ProjectOptions, project_from_config
from walkcut.models import choose_model
from walkcut.settings import Settings

__all__ = ["Finding", "diagnose"]


def diagnose(settings: Settings, project_id: int | None = None, task_id: int | None = None) -> Iterator[Finding]:
    """Yield the findings of all checks as they are made, without secrets; a check that fails does not stop the next.

    With the id of a project, that is checked too, and the image of its first task or of the task with an id.
    """
    settings = replace(settings, model=choose_model(settings.model, settings.weights_dir))
    probe = server.find_server(settings)
    label_studio = _check_label_studio(settings, probe, project_id, task_id)
    for finding in chain(
        _local_findings(settings, probe), run_check("address", "Label Studio was not checked", label_studio)
    ):
        yield without_secrets(finding, settings)


def _local_findings(settings: Settings, probe: ServerProbe | None) -> Iterator[Finding]:
    """Yield the findings that need no Label Studio."""
    yield from run_check("versions", "the installed packages cannot be listed", environment.check_packages())
    yield from run_check("device", "the device cannot be used", environment.check_device(settings))
    yield from run_check("weights", "the model cannot be used", environment.check_weights(settings))
    yield from run_check("state", "the state folder cannot be used", environment.check_state(settings))
    yield from run_check("database", "the database cannot be used", environment.check_database(settings))
    yield from run_check("annotations", "the annotations were not counted", environment.check_backlog(settings))
    yield from run_check("port", "the port cannot be used", server.check_port(settings, probe))
    if probe is not None:
        yield from run_check("latency", f"walkcut at {probe.url} gives wrong answers", server.check_responses(probe))
    yield from run_check("latency", "no image was predicted", server.check_prediction(settings, probe))


def _check_label_studio(
    settings: Settings, walkcut: ServerProbe | None, project_id: int | None, task_id: int | None
) -> Iterator[Finding]:
    """Check Label Studio and the project. Raises `SettingsError`."""
    access = make_access(settings)
    if access is None:
        severity: Severity = "warning" if project_id is None else "error"
        remedy = "set LABEL_STUDIO_URL to the address at which walkcut reaches it, such as http://label-studio:8080"
        yield Finding("address", severity, "LABEL_STUDIO_URL is not set, so Label Studio was not checked", remedy)
        return
    now = datetime.now(timezone.utc)
    with closing(LabelStudioProbe(access, settings.ca_bundle)) as probe:
        address = run_check("address", "Label Studio was not checked", labelstudio.check_address(probe, now))
        yield from (findings := list(address))
        if _has_error(findings):
            return
        checks = labelstudio.check_token(probe, access.token, now)
        yield from (findings := list(run_check("token", "the token was not checked", checks)))
        if access.token and not _has_error(findings):
            checks = labelstudio.check_ssrf_protection(probe)
            yield from run_check("ssrf", "Label Studio's SSRF protection is unknown", checks)
            if project_id is not None:
                checks = _check_project(settings, probe, project_id, task_id, walkcut)
                yield from run_check("project", f"project {project_id} cannot be checked", checks)
        elif project_id is not None:
            yield Finding("project", "error", f"project {project_id} was not checked", "correct the token first")


def _check_project(
    settings: Settings, probe: LabelStudioProbe, project_id: int, task_id: int | None, walkcut: ServerProbe | None
) -> Iterator[Finding]:
    """Check a project: its labelling config, backends and an image. Raises `LabelStudioError`."""
    document = project.read_project(probe, project_id)
    yield Finding("project", "ok", f"project {project_id}, {document.get('title')!r}, is accessible")
    label_config = str(document.get("label_config") or "")
    extra_params = project.read_parameters(probe, project_id)
    checks = project.check_config(label_config, extra_params)
    yield from (findings := list(run_check("config", "the labelling config cannot be used", checks)))
    backends = project.check_backends(probe, project_id, label_config, settings, walkcut)
    yield from run_check("backend", "the connected backends were not checked", backends)
    if not _has_error(findings):
        image_tags = project_from_config(label_config, ProjectOptions(), extra_params).image_tags
        image = project.check_image(probe, project_id, task_id, image_tags, settings)
        yield from run_check("image", "an image cannot be loaded", image)


def _has_error(findings: Sequence[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)
