"""What stands between a deployment and its work: looks at one thing after the other, each finding with its remedy."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from walkcut.doctor import environment, labelstudio, project, server
from walkcut.doctor.checks import Check, Finding, Level, without_secrets
from walkcut.doctor.probe import Api
from walkcut.doctor.server import Running
from walkcut.images import DecodeLimits, LabelStudioAccess, PictureSource
from walkcut.inference.predictor import Annotator
from walkcut.labelstudio import brush_targets
from walkcut.settings import Settings

__all__ = ["Finding", "Means", "Subject", "diagnose"]


@dataclass(frozen=True)
class Subject:
    """The project and the task to look at, by their numbers; without a project none, without a task its first."""

    project: int | None = None
    task: int | None = None


@dataclass(frozen=True)
class Means:
    """How `walkcut serve` would reach Label Studio, get pictures and predict; each raises `SettingsError`."""

    access: Callable[[Settings], LabelStudioAccess | None]
    source: Callable[[Settings], PictureSource]
    annotator: Callable[[Settings], Annotator]


@dataclass(frozen=True)
class _Case:
    """What is looked at, by which means; `walkcut` is the one that runs here, if one does."""

    settings: Settings
    subject: Subject
    means: Means
    walkcut: Running | None


def diagnose(settings: Settings, subject: Subject, means: Means) -> Iterator[Finding]:
    """All findings, as they are made; they hold no secret. A look that fails is a finding, and the others go on."""
    case = _Case(settings, subject, means, server.find_running(settings))
    for check in (*_own_checks(case), Check("address", "Label Studio cannot be asked", partial(_look_at_studio, case))):
        for finding in check.findings():
            yield without_secrets(finding, settings)


def _own_checks(case: _Case) -> Iterator[Check]:
    """What can be looked at without Label Studio."""
    settings, walkcut = case.settings, case.walkcut
    yield Check("versions", "the installed packages are not known", environment.look_at_versions)
    yield Check("device", "the device cannot be used", partial(environment.look_at_device, settings))
    yield Check("weights", "the model cannot be used", partial(environment.look_at_weights, settings))
    yield Check("state", "the state folder cannot be used", partial(environment.look_at_state, settings))
    yield Check("database", "the database cannot be used", partial(environment.look_at_database, settings))
    yield Check("port", "the port cannot be used", partial(server.look_at_port, settings, walkcut))
    if walkcut is not None:
        trouble = f"the walkcut at {walkcut.url} does not answer as it should"
        yield Check("clock", trouble, partial(server.look_at_answers, walkcut))
    yield Check("clock", "no picture was predicted", partial(_look_at_prediction, case))


def _look_at_prediction(case: _Case) -> Iterator[Finding]:
    """The time of a picture, with a state folder of its own where it is predicted here."""
    with TemporaryDirectory() as folder:
        annotator = partial(case.means.annotator, replace(case.settings, state_dir=Path(folder)))
        yield from server.look_at_prediction(case.settings, case.walkcut, annotator)


def _look_at_studio(case: _Case) -> Iterator[Finding]:
    """Label Studio, and a project in it, as far as it can be asked. Raises `SettingsError`."""
    access, project_wanted = case.means.access(case.settings), case.subject.project is not None
    if access is None:
        remedy = "set LABEL_STUDIO_URL to where walkcut reaches Label Studio, such as http://label-studio:8080"
        level: Level = "error" if project_wanted else "warning"
        yield Finding("address", level, "LABEL_STUDIO_URL is not set, so Label Studio was not looked at", remedy)
        return
    with closing(Api(access, case.settings.ca_bundle)) as api:
        now = datetime.now(timezone.utc)
        address = Check("address", "Label Studio cannot be asked", partial(labelstudio.look_at_address, api, now))
        yield from (found := list(address.findings()))
        if _failed(found):
            return
        token = Check("token", "the token was not tried", partial(labelstudio.look_at_token, api, access.token, now))
        yield from (found := list(token.findings()))
        if access.token and not _failed(found):
            yield from _look_further(case, api)
        elif project_wanted:
            said = f"project {case.subject.project} was not looked at"
            yield Finding("project", "error", said, "see to the token first")


def _look_further(case: _Case, api: Api) -> Iterator[Finding]:
    """What Label Studio tells only to those whom it knows."""
    switches = Check("switches", "its switches are not known", partial(labelstudio.look_at_switches, api))
    yield from switches.findings()
    number = case.subject.project
    if number is not None:
        look = partial(_look_at_project, case, api, number)
        yield from Check("project", f"project {number} cannot be looked at", look).findings()


def _look_at_project(case: _Case, api: Api, number: int) -> Iterator[Finding]:
    """All of a project. Raises `StudioError`."""
    document = project.read_project(api, number)
    yield Finding("project", "ok", f"project {number}, {document.get('title')!r}, can be seen")
    config = str(document.get("label_config") or "")
    usable = Check("config", "the labelling config cannot be used", partial(project.look_at_config, config))
    yield from (found := list(usable.findings()))
    backends = partial(project.look_at_backends, api, number, config, case.settings, case.walkcut)
    yield from Check("backend", "the attached backends are not known", backends).findings()
    if not _failed(found):
        pictures = partial(_look_at_picture, case, api, number, config)
        yield from Check("picture", "a picture cannot be had or read", pictures).findings()


def _look_at_picture(case: _Case, api: Api, number: int, config: str) -> Iterator[Finding]:
    """The picture of the wanted task. Raises `WalkcutError`."""
    source, limits = case.means.source(case.settings), DecodeLimits(case.settings.max_pixels)
    yield from project.look_at_picture(api, number, case.subject.task, brush_targets(config), source, limits)


def _failed(findings: Sequence[Finding]) -> bool:
    return any(finding.level == "error" for finding in findings)
