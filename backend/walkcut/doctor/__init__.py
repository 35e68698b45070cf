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
from walkcut.doctor.server import ServerProbe
from walkcut.images import DecodeLimits, ImageLoader, LabelStudioAccess
from walkcut.inference.predictor import Predictor
from walkcut.labelstudio import parse_brush_controls
from walkcut.settings import Settings

__all__ = ["Finding", "Means", "Target", "diagnose"]


@dataclass(frozen=True)
class Target:
    """The project and the task to look at, by their numbers; without a project none, without a task its first."""

    project: int | None = None
    task: int | None = None


@dataclass(frozen=True)
class Means:
    """How `walkcut serve` would reach Label Studio, get images and predict; each raises `SettingsError`."""

    access: Callable[[Settings], LabelStudioAccess | None]
    source: Callable[[Settings], ImageLoader]
    predictor: Callable[[Settings], Predictor]


@dataclass(frozen=True)
class _Case:
    """What is looked at, by which means; `walkcut` is the one that runs here, if one does."""

    settings: Settings
    target: Target
    means: Means
    walkcut: ServerProbe | None


def diagnose(settings: Settings, target: Target, means: Means) -> Iterator[Finding]:
    """All findings, as they are made; they hold no secret. A look that fails is a finding, and the others go on."""
    case = _Case(settings, target, means, server.find_server(settings))
    for check in (
        *_own_checks(case),
        Check("address", "Label Studio cannot be asked", partial(_check_label_studio, case)),
    ):
        for finding in check.findings():
            yield without_secrets(finding, settings)


def _own_checks(case: _Case) -> Iterator[Check]:
    """What can be looked at without Label Studio."""
    settings, walkcut = case.settings, case.walkcut
    yield Check("versions", "the installed packages are not known", environment.check_versions)
    yield Check("device", "the device cannot be used", partial(environment.check_device, settings))
    yield Check("weights", "the model cannot be used", partial(environment.check_weights, settings))
    yield Check("state", "the state folder cannot be used", partial(environment.check_state, settings))
    yield Check("database", "the database cannot be used", partial(environment.check_database, settings))
    yield Check("port", "the port cannot be used", partial(server.check_port, settings, walkcut))
    if walkcut is not None:
        trouble = f"the walkcut at {walkcut.url} does not answer as it should"
        yield Check("clock", trouble, partial(server.check_answers, walkcut))
    yield Check("clock", "no image was predicted", partial(_check_prediction, case))


def _check_prediction(case: _Case) -> Iterator[Finding]:
    """The time of an image, with a state folder of its own where it is predicted here."""
    with TemporaryDirectory() as folder:
        predictor = partial(case.means.predictor, replace(case.settings, state_dir=Path(folder)))
        yield from server.check_prediction(case.settings, case.walkcut, predictor)


def _check_label_studio(case: _Case) -> Iterator[Finding]:
    """Label Studio, and a project in it, as far as it can be asked. Raises `SettingsError`."""
    access, project_wanted = case.means.access(case.settings), case.target.project is not None
    if access is None:
        remedy = "set LABEL_STUDIO_URL to where walkcut reaches Label Studio, such as http://label-studio:8080"
        level: Level = "error" if project_wanted else "warning"
        yield Finding("address", level, "LABEL_STUDIO_URL is not set, so Label Studio was not looked at", remedy)
        return
    with closing(Api(access, case.settings.ca_bundle)) as api:
        now = datetime.now(timezone.utc)
        address = Check("address", "Label Studio cannot be asked", partial(labelstudio.check_address, api, now))
        yield from (found := list(address.findings()))
        if _failed(found):
            return
        token = Check("token", "the token was not tried", partial(labelstudio.check_token, api, access.token, now))
        yield from (found := list(token.findings()))
        if access.token and not _failed(found):
            yield from _check_authenticated(case, api)
        elif project_wanted:
            said = f"project {case.target.project} was not looked at"
            yield Finding("project", "error", said, "see to the token first")


def _check_authenticated(case: _Case, api: Api) -> Iterator[Finding]:
    """What Label Studio tells only to those whom it knows."""
    feature_flags = Check("switches", "its switches are not known", partial(labelstudio.check_feature_flags, api))
    yield from feature_flags.findings()
    number = case.target.project
    if number is not None:
        look = partial(_check_project, case, api, number)
        yield from Check("project", f"project {number} cannot be looked at", look).findings()


def _check_project(case: _Case, api: Api, number: int) -> Iterator[Finding]:
    """All of a project. Raises `LabelStudioError`."""
    document = project.read_project(api, number)
    yield Finding("project", "ok", f"project {number}, {document.get('title')!r}, can be seen")
    config = str(document.get("label_config") or "")
    usable = Check("config", "the labelling config cannot be used", partial(project.check_config, config))
    yield from (found := list(usable.findings()))
    backends = partial(project.check_backends, api, number, config, case.settings, case.walkcut)
    yield from Check("backend", "the attached backends are not known", backends).findings()
    if not _failed(found):
        images = partial(_check_image, case, api, number, config)
        yield from Check("image", "an image cannot be had or read", images).findings()


def _check_image(case: _Case, api: Api, number: int, config: str) -> Iterator[Finding]:
    """The image of the wanted task. Raises `WalkcutError`."""
    source, limits = case.means.source(case.settings), DecodeLimits(case.settings.max_pixels)
    yield from project.check_image(api, number, case.target.task, parse_brush_controls(config), source, limits)


def _failed(findings: Sequence[Finding]) -> bool:
    return any(finding.level == "error" for finding in findings)
