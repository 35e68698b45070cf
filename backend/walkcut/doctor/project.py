"""Checks of a Label Studio project: labelling config, an image, connected backends and webhooks."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from walkcut.auth import Credentials
from walkcut.doctor.checks import Finding
from walkcut.doctor.labelstudio import ALLOW_PRIVATE, LabelStudioProbe
from walkcut.doctor.server import ServerProbe
from walkcut.errors import LabelStudioError, WalkcutError
from walkcut.images import DecodeLimits, decode, redact
from walkcut.inference.factory import make_image_loader
from walkcut.inference.project import ProjectOptions, is_model_version, project_from_config
from walkcut.labelstudio.config import OUTPUT, ImageTag, unused_controls
from walkcut.labelstudio.tasks import read_extra_params, read_task
from walkcut.settings import Settings

Json = dict[str, Any]

_MAX_IMAGES = 10  # of a task
_LARGE = 1_500_000  # pixels from which 40 brush masks take the editor more than ten seconds to open, and to submit
_DISCONNECTED, _ERROR = "DI", "ER"  # states of a backend in Label Studio; in all others it works
_EVENTS = {"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"}
_TEXT_FIELD = '<TextArea name="granularity" toName="{}" editable="true" maxSubmissions="0"/>'
_COLOURS = {"Region": "#1f77d0", "Region B": "#f2b701", "Region C": "#e73f74", "Region D": "#11a579"}
_WITHOUT_WEBHOOK = "walkcut learns from annotations only when it synchronises, by default once an hour"


def read_project(probe: LabelStudioProbe, project_id: int) -> Json:
    """Return a project's document. Raises `LabelStudioError` if it does not exist or is not accessible."""
    return dict(_get(probe, f"/api/projects/{project_id}/", f"project {project_id}"))


def _get(probe: LabelStudioProbe, path: str, name: str, **query: str) -> Any:
    response = probe.get(path, query)
    if response.status != httpx.codes.OK:
        raise LabelStudioError(
            f"Label Studio answered {response.status} ({response.detail}) to the request for {name}: check that it "
            "exists, and that LABEL_STUDIO_API_KEY is the token of a user who may change it"
        )
    return response.document


def read_parameters(probe: LabelStudioProbe, project_id: int) -> Json:
    """Return the extra parameters of the connected walkcut; none if they cannot be read: `check_backends` says why."""
    with suppress(WalkcutError):
        backends = _get(probe, "/api/ml", f"the backends of project {project_id}", project=str(project_id))
        documents = [backend for backend in backends if isinstance(backend, dict)]
        walkcut = next((backend for backend in documents if is_model_version(backend.get("model_version"))), {})
        return read_extra_params(walkcut.get("extra_params"))
    return {}


def check_config(label_config: str, extra_params: Mapping[str, Any]) -> Iterator[Finding]:
    """Check the controls and text fields of a config. Raises `LabelConfigError` or `RequestError`."""
    image_tags = project_from_config(label_config, ProjectOptions(), extra_params).image_tags
    for message, remedy in unused_controls(label_config):
        yield Finding("config", "warning", message, remedy)
    for image_tag in image_tags:
        names = " and ".join(f"{control.name!r} ({control.shape})" for control in image_tag.controls)
        yield Finding("config", "ok", f"regions of {image_tag.name!r} ({image_tag.value}) go to {names}")
        if not image_tag.neutral_labels:
            name = image_tag.controls[0].name
            message = f"all labels of {name!r} are classes: regions come without a label, all of them grey"
            remedy = f"to tell neighbours apart, add to {name!r}: {_neutral_labels()}"
            yield Finding("config", "warning", message, remedy)
        if image_tag.status_field:
            message = f"walkcut answers annotators in the text field {image_tag.status_field!r}"
            yield Finding("config", "ok", message)
        else:
            message = f"{image_tag.name!r} has no text field: annotators can neither type a granularity nor see answers"
            remedy = f"add {_TEXT_FIELD.format(image_tag.name)} to the labelling config"
            yield Finding("config", "warning", message, remedy)


def _neutral_labels() -> str:
    """Return labels for regions without a name, as XML."""
    attributes = 'neutral="true" visible="false"'
    return "".join(f'<Label value="{name}" background="{colour}" {attributes}/>' for name, colour in _COLOURS.items())


def check_image(
    probe: LabelStudioProbe,
    project_id: int,
    task_id: int | None,
    image_tags: Sequence[ImageTag],
    settings: Settings,
) -> Iterator[Finding]:
    """Load the images of a task, by default the project's first. Raises `WalkcutError`."""
    large = dict[str, ImageTag]()
    loader, limits = make_image_loader(settings), DecodeLimits(settings.max_pixels)
    tasks = _tasks(probe, project_id, task_id)
    if not tasks and task_id is None:
        yield Finding("image", "warning", f"project {project_id} has no tasks", "import one and run this again")
    elif not tasks:
        message, remedy = f"project {project_id} has no task {task_id}", "choose the id of a task in this project"
        yield Finding("image", "error", message, remedy)
    for task in map(read_task, tasks):
        for image in task.images(image_tags)[:_MAX_IMAGES]:
            reference = image.reference
            data = loader.fetch(reference, task.id)
            height, width, _ = decode(data, limits).shape
            message = f"{redact(reference)} of task {task.id} can be loaded: {width}×{height}, {len(data)} bytes"
            yield Finding("image", "ok", message)
            if height * width >= _LARGE and image.tag.controls[0].shape == "brush":
                large[image.tag.name] = image.tag
    yield from map(_recommend_polygons, large.values())


def _recommend_polygons(image_tag: ImageTag) -> Finding:
    """Recommend polygons for large images whose regions are written with brushes."""
    brush = image_tag.controls[0].name
    message = f"images of {image_tag.name!r} are large: the editor opens and submits brush masks of them slowly"
    remedy = (
        f'polygons are far faster: add <PolygonLabels name="{brush}-polygons" toName="{image_tag.name}" '
        f'{OUTPUT}="polygon"> with the labels of {brush!r} inside, or write {OUTPUT}="polygon" on the one that is there'
    )
    return Finding("image", "ok", message, remedy)


def _tasks(probe: LabelStudioProbe, project_id: int, task_id: int | None) -> list[Json]:
    """Return a list of the task, or of the first one; a request for the task itself would start a prediction."""
    operator, value = ("greater", 0) if task_id is None else ("equal", task_id)
    item = {"filter": "filter:tasks:id", "operator": operator, "type": "Number", "value": value}
    query = json.dumps({"filters": {"conjunction": "and", "items": [item]}, "ordering": ["tasks:id"]})
    options = {"project": str(project_id), "page_size": "1", "include": "id,data", "resolve_uri": "false"}
    return list(_get(probe, "/api/tasks/", f"the tasks of project {project_id}", query=query, **options)["tasks"])


def check_backends(
    probe: LabelStudioProbe, project_id: int, label_config: str, settings: Settings, server: ServerProbe | None
) -> Iterator[Finding]:
    """Check the connected backends, and the webhooks of those that are walkcut. Raises `LabelStudioError`."""
    project = str(project_id)
    backends = list(_get(probe, "/api/ml", f"the backends of project {project_id}", project=project))
    if not backends:
        remedy = (
            "Settings > Model > Connect Model: enter walkcut's address as seen from Label Studio (port "
            f"{settings.port}) and switch on interactive preannotations; if it is refused as a reserved network "
            f"address, {ALLOW_PRIVATE}"
        )
        yield Finding("backend", "error", f"project {project_id} has no backend", remedy)
        return
    webhooks = list(_get(probe, "/api/webhooks/", f"the webhooks of project {project_id}", project=project))
    for backend in backends:
        yield _check_state(backend, label_config)
    walkcuts = [backend for backend in backends if is_model_version(backend.get("model_version"))]
    yield from _check_identity(project, backends, walkcuts, server)
    for url in dict.fromkeys(str(backend.get("url")) for backend in walkcuts):
        yield check_webhook(url, webhooks, settings)


def _check_state(backend: Json, label_config: str) -> Finding:
    """Check the state of a backend, which Label Studio has just asked for its health."""
    name, state = f"the backend at {redact(str(backend.get('url')))}", backend.get("state")
    if state == _DISCONNECTED:
        remedy = (
            "check that walkcut runs there and answers within 1 s, and that the address is right as seen from Label "
            f"Studio: inside a container, localhost is the container; for a private address, {ALLOW_PRIVATE}"
        )
        return Finding("backend", "error", f"Label Studio cannot reach {name}", remedy)
    if state == _ERROR:
        error = " ".join(str(backend.get("error_message")).split())
        remedy = _refusal_remedy(error, backend, label_config)
        return Finding("backend", "error", f"{name} refuses the project: {error}", remedy)
    return Finding("backend", "ok", f"{name} is {str(backend.get('readable_state', state)).lower()}")


def _refusal_remedy(error: str, backend: Json, label_config: str) -> str:
    """Return the remedy for a refusal, whose reason a proxy may replace by the status."""
    if "401 Client" in error:  # 401 alone may be part of a port
        return "enter walkcut's user name and password in the model too (Settings > Model > Edit)"
    if "timed out" in error:
        return "Label Studio waits 3 s at set-up: check whether walkcut is still starting, or its machine overloaded"
    try:
        project_from_config(label_config, ProjectOptions(), read_extra_params(backend.get("extra_params")))
    except WalkcutError as unusable:
        return str(unusable)
    return "see the reason in walkcut's log"


def _check_identity(
    project: str, backends: Sequence[Json], walkcuts: Sequence[Json], server: ServerProbe | None
) -> Iterator[Finding]:
    """Check that the predictions come from walkcut, that it is interactive, and that it is the server found here."""
    if not walkcuts:
        if any(backend.get("state") not in {_DISCONNECTED, _ERROR} for backend in backends):
            remedy = "remove the others and connect walkcut (Settings > Model)"
            yield Finding("backend", "error", "no connected backend is known to be walkcut", remedy)
        return
    if backends[0] not in walkcuts or len(walkcuts) > 1:
        message = f"{len(backends)} backends are connected, {len(walkcuts)} of them walkcut: only the first predicts"
        yield Finding("backend", "warning", message, "remove all but one walkcut (Settings > Model)")
    if any(backend.get("is_interactive") for backend in walkcuts):
        yield Finding("interactive", "ok", "interactive preannotations are on")
    else:
        remedy = "switch on interactive preannotations (Settings > Model > Edit)"
        yield Finding("interactive", "warning", "walkcut does not answer when annotators type or point", remedy)
    versions = {backend.get("model_version") for backend in walkcuts}
    if server is not None and not server.serves_any(versions, project):
        message = f"the connected walkcut is not the one at {server.url}"
        yield Finding("backend", "warning", message, "connect this one, or run `walkcut doctor` where that one runs")


def check_webhook(url: str, webhooks: Sequence[Json], settings: Settings) -> Finding:
    """Check that annotation events reach the backend at `url`, with its credentials."""
    address = f"{url.rstrip('/')}/webhook"
    webhook = next((webhook for webhook in webhooks if webhook.get("url") == address), None)
    if webhook is None:
        problem = "there is no webhook"
        remedy = (
            f"Settings > Webhooks > Add Webhook: {redact(address)}, with payload, for all actions; Label Studio "
            f"creates none if it was started with only ML_BLOCK_LOCAL_IP=false: {ALLOW_PRIVATE}"
        )
    elif not (webhook.get("is_active") and webhook.get("send_payload") and _has_events(webhook)):
        problem = "the webhook is off, or lacks the payload or an action"
        remedy = "Settings > Webhooks: activate it, with payload, for all actions"
    elif not any(map(settings.credentials.accepts, _authorizations(webhook, address))):
        problem = "the webhook lacks walkcut's user name and password and is refused"
        remedy = (
            "Settings > Webhooks > headers: add Authorization with the value Basic and base64 of user:password; or "
            "connect the model as http://user:password@host:port"
        )
    else:
        return Finding("webhook", "ok", "walkcut receives annotation events")
    return Finding("webhook", "warning", f"{problem}: {_WITHOUT_WEBHOOK}", remedy)


def _has_events(webhook: Json) -> bool:
    return bool(webhook.get("send_for_all_actions")) or set(webhook.get("actions") or ()) >= _EVENTS


def _authorizations(webhook: Json, address: str) -> Iterator[str]:
    """Yield a webhook's Authorization headers: the configured ones, and that of the user in its address."""
    headers = webhook.get("headers") or {}
    yield from (str(value) for name, value in headers.items() if name.lower() == "authorization")
    user, _, password = unquote(urlsplit(address).netloc.rpartition("@")[0]).partition(":")
    yield Credentials(user, password).header
