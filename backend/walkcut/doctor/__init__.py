"""Diagnosis of a deployment: findings about the settings, the machine, Label Studio and a project, with remedies."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from itertools import chain

from walkcut.doctor import environment, labelstudio, project, server
from walkcut.doctor.checks import Finding, Severity, run_check, without_secrets
from walkcut.doctor.probe import LabelStudioProbe
from walkcut.doctor.server import ServerProbe
from walkcut.images import DecodeLimits
from walkcut.inference.factory import make_access, make_image_loader
from walkcut.labelstudio.config import parse_brush_controls
from walkcut.settings import Settings

__all__ = ["Finding", "Target", "diagnose"]


@dataclass(frozen=True)
class Target:
    """Project and task to check: no project without an id, the project's first task without a task id."""

    project_id: int | None = None
    task_id: int | None = None


@dataclass(frozen=True)
class _Deployment:
    """The settings, the target, and the walkcut that runs at the port of the settings, if any."""

    settings: Settings
    target: Target
    server: ServerProbe | None


def diagnose(settings: Settings, target: Target) -> Iterator[Finding]:
    """Yield the findings of all checks as they are made, without secrets; a check that fails does not stop the next."""
    deployment = _Deployment(settings, target, server.find_server(settings))
    label_studio = run_check("address", "Label Studio was not checked", _check_label_studio, deployment)
    for finding in chain(_local_findings(deployment), label_studio):
        yield without_secrets(finding, settings)


def _local_findings(deployment: _Deployment) -> Iterator[Finding]:
    """Yield the findings that need no Label Studio."""
    settings, probe = deployment.settings, deployment.server
    yield from run_check("versions", "the installed packages cannot be listed", environment.check_packages)
    yield from run_check("device", "the device cannot be used", environment.check_device, settings)
    yield from run_check("weights", "the model cannot be used", environment.check_weights, settings)
    yield from run_check("state", "the state folder cannot be used", environment.check_state, settings)
    yield from run_check("database", "the database cannot be used", environment.check_database, settings)
    yield from run_check("annotations", "the annotations were not counted", environment.check_backlog, settings)
    yield from run_check("port", "the port cannot be used", server.check_port, settings, probe)
    if probe is not None:
        yield from run_check("latency", f"walkcut at {probe.url} gives wrong answers", server.check_responses, probe)
    yield from run_check("latency", "no image was predicted", server.check_prediction, settings, probe)


def _check_label_studio(deployment: _Deployment) -> Iterator[Finding]:
    """Check Label Studio and the target project. Raises `SettingsError`."""
    settings, project_id = deployment.settings, deployment.target.project_id
    access = make_access(settings)
    if access is None:
        severity: Severity = "warning" if project_id is None else "error"
        remedy = "set LABEL_STUDIO_URL to the address at which walkcut reaches it, such as http://label-studio:8080"
        yield Finding("address", severity, "LABEL_STUDIO_URL is not set, so Label Studio was not checked", remedy)
        return
    now = datetime.now(timezone.utc)
    with closing(LabelStudioProbe(access, settings.ca_bundle)) as probe:
        address = run_check("address", "Label Studio was not checked", labelstudio.check_address, probe, now)
        yield from (findings := list(address))
        if _has_error(findings):
            return
        token = run_check("token", "the token was not checked", labelstudio.check_token, probe, access.token, now)
        yield from (findings := list(token))
        if access.token and not _has_error(findings):
            ssrf_failure = "Label Studio's SSRF protection is unknown"
            yield from run_check("ssrf", ssrf_failure, labelstudio.check_ssrf_protection, probe)
            if project_id is not None:
                failure = f"project {project_id} cannot be checked"
                yield from run_check("project", failure, _check_project, deployment, probe, project_id)
        elif project_id is not None:
            yield Finding("project", "error", f"project {project_id} was not checked", "correct the token first")


def _check_project(deployment: _Deployment, probe: LabelStudioProbe, project_id: int) -> Iterator[Finding]:
    """Check a project: its labelling config, backends and an image. Raises `LabelStudioError`."""
    settings = deployment.settings
    document = project.read_project(probe, project_id)
    yield Finding("project", "ok", f"project {project_id}, {document.get('title')!r}, is accessible")
    label_config = str(document.get("label_config") or "")
    config = list(run_check("config", "the labelling config cannot be used", project.check_config, label_config))
    yield from config
    backends = partial(project.check_backends, probe, project_id, label_config, settings, deployment.server)
    yield from run_check("backend", "the connected backends were not checked", backends)
    if not _has_error(config):
        loader, limits = make_image_loader(settings), DecodeLimits(settings.max_pixels)
        controls, task_id = parse_brush_controls(label_config), deployment.target.task_id
        image = partial(project.check_image, probe, project_id, task_id, controls, loader, limits)
        yield from run_check("image", "an image cannot be loaded", image)


def _has_error(findings: Sequence[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)
