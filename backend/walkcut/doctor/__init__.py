"""Diagnosis of a deployment: findings about the settings, the machine, Label Studio and a project, with remedies."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial

from walkcut.doctor import environment, labelstudio, project, server
from walkcut.doctor.checks import Check, Finding, Level, without_secrets
from walkcut.doctor.probe import LabelStudioProbe
from walkcut.doctor.server import ServerProbe
from walkcut.images import DecodeLimits
from walkcut.inference.factory import make_access, make_image_loader
from walkcut.labelstudio import parse_brush_controls
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
    label_studio = Check("address", "Label Studio was not checked", partial(_check_label_studio, deployment))
    for check in (*_local_checks(deployment), label_studio):
        for finding in check.findings():
            yield without_secrets(finding, settings)


def _local_checks(deployment: _Deployment) -> Iterator[Check]:
    """Yield the checks that need no Label Studio."""
    settings, probe = deployment.settings, deployment.server
    yield Check("versions", "the installed packages cannot be listed", environment.check_versions)
    yield Check("device", "the device cannot be used", partial(environment.check_device, settings))
    yield Check("weights", "the model cannot be used", partial(environment.check_weights, settings))
    yield Check("state", "the state folder cannot be used", partial(environment.check_state, settings))
    yield Check("database", "the database cannot be used", partial(environment.check_database, settings))
    yield Check("port", "the port cannot be used", partial(server.check_port, settings, probe))
    if probe is not None:
        yield Check("latency", f"walkcut at {probe.url} gives wrong answers", partial(server.check_responses, probe))
    yield Check("latency", "no image was predicted", partial(server.check_prediction, settings, probe))


def _check_label_studio(deployment: _Deployment) -> Iterator[Finding]:
    """Check Label Studio and the target project. Raises `SettingsError`."""
    settings, project_id = deployment.settings, deployment.target.project_id
    access = make_access(settings)
    if access is None:
        level: Level = "warning" if project_id is None else "error"
        remedy = "set LABEL_STUDIO_URL to the address at which walkcut reaches it, such as http://label-studio:8080"
        yield Finding("address", level, "LABEL_STUDIO_URL is not set, so Label Studio was not checked", remedy)
        return
    now = datetime.now(timezone.utc)
    with closing(LabelStudioProbe(access, settings.ca_bundle)) as probe:
        address = Check("address", "Label Studio was not checked", partial(labelstudio.check_address, probe, now))
        yield from (findings := list(address.findings()))
        if _has_error(findings):
            return
        token = Check("token", "the token was not checked", partial(labelstudio.check_token, probe, access.token, now))
        yield from (findings := list(token.findings()))
        if access.token and not _has_error(findings):
            yield from _authenticated_findings(deployment, probe)
        elif project_id is not None:
            yield Finding("project", "error", f"project {project_id} was not checked", "correct the token first")


def _authenticated_findings(deployment: _Deployment, probe: LabelStudioProbe) -> Iterator[Finding]:
    """Yield the findings that need a valid token."""
    ssrf = Check("ssrf", "Label Studio's SSRF protection is unknown", partial(labelstudio.check_ssrf_protection, probe))
    yield from ssrf.findings()
    project_id = deployment.target.project_id
    if project_id is not None:
        check = partial(_check_project, deployment, probe, project_id)
        yield from Check("project", f"project {project_id} cannot be checked", check).findings()


def _check_project(deployment: _Deployment, probe: LabelStudioProbe, project_id: int) -> Iterator[Finding]:
    """Check a project: its labelling config, backends and an image. Raises `LabelStudioError`."""
    document = project.read_project(probe, project_id)
    yield Finding("project", "ok", f"project {project_id}, {document.get('title')!r}, is accessible")
    label_config = str(document.get("label_config") or "")
    config = Check("config", "the labelling config cannot be used", partial(project.check_config, label_config))
    yield from (config_findings := list(config.findings()))
    backends = partial(project.check_backends, probe, project_id, label_config, deployment.settings, deployment.server)
    yield from Check("backend", "the connected backends were not checked", backends).findings()
    if not _has_error(config_findings):
        image = partial(_check_image, deployment, probe, project_id, label_config)
        yield from Check("image", "an image cannot be loaded", image).findings()


def _check_image(
    deployment: _Deployment, probe: LabelStudioProbe, project_id: int, label_config: str
) -> Iterator[Finding]:
    """Check the images of the target task. Raises `WalkcutError`."""
    loader, limits = make_image_loader(deployment.settings), DecodeLimits(deployment.settings.max_pixels)
    controls = parse_brush_controls(label_config)
    yield from project.check_image(probe, project_id, deployment.target.task_id, controls, loader, limits)


def _has_error(findings: Sequence[Finding]) -> bool:
    return any(finding.level == "error" for finding in findings)
