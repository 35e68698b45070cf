"""One project of Label Studio's: its labelling config, an image, the backend attached to it, and its webhook."""

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from walkcut.auth import Credentials
from walkcut.doctor.checks import Finding
from walkcut.doctor.labelstudio import SWITCH
from walkcut.doctor.probe import Api
from walkcut.doctor.server import ServerProbe
from walkcut.errors import LabelStudioError, WalkcutError
from walkcut.images import DecodeLimits, ImageLoader, decode, redact
from walkcut.inference.project import ProjectOptions, project_options
from walkcut.labelstudio import BrushControl, parse_brush_controls, read_extra_params, read_task
from walkcut.settings import Settings

Json = dict[str, Any]

_DOWN, _REFUSED = "DI", "ER"  # states of a backend in Label Studio; the others are well
_EVENTS = {"ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"}
_FIELD = '<TextArea name="granularity" toName="{}" editable="true" maxSubmissions="0"/>'


def read_project(api: Api, number: int) -> Json:
    """A project's document. Raises `LabelStudioError` where there is none, or it may not be seen."""
    return dict(_document(api, f"/api/projects/{number}/", f"project {number}"))


def _document(api: Api, path: str, wanted: str, **query: str) -> Any:
    said = api.get(path, **query)
    if said.status != httpx.codes.OK:
        raise LabelStudioError(
            f"Label Studio answered {said.status} ({said.detail}) when asked for {wanted}: see that it exists, and "
            "that LABEL_STUDIO_API_KEY is the token of a user who may see and change it"
        )
    return said.document


def check_config(label_config: str) -> Iterator[Finding]:
    """Whether regions have somewhere to go, and annotators a text field. Raises `LabelConfigError`, `RequestError`."""
    controls = parse_brush_controls(label_config)
    project_options(ProjectOptions(), {}, controls[0].options)
    for control in controls:
        yield Finding(
            "config", "ok", f"regions go to {control.from_name!r} on {control.to_name!r}, from {control.data_key!r}"
        )
        yield _text_field(control)


def _text_field(control: BrushControl) -> Finding:
    if control.status:
        return Finding("config", "ok", f"annotators are answered in the text field {control.status!r}")
    said = f"{control.to_name!r} has no text field: no granularity can be typed, and nothing answered"
    return Finding("config", "warning", said, f"add {_FIELD.format(control.to_name)} to the labelling config")


def check_image(
    api: Api, number: int, task: int | None, controls: Sequence[BrushControl], source: ImageLoader, limits: DecodeLimits
) -> Iterator[Finding]:
    """Whether the images of a task, or of the project's first, can be had and read. Raises `WalkcutError`."""
    found = _tasks(api, number, task)
    if not found:
        which = "no tasks" if task is None else f"no task {task}"
        remedy = "import one, and run this again" if task is None else "choose a task of this project, by its ID"
        yield Finding("image", "warning" if task is None else "error", f"project {number} has {which}", remedy)
        return
    sample = read_task(found[0])
    for control in controls:
        reference = sample.reference(control)
        data = source.fetch(reference, sample.id)
        height, width, _ = decode(data, limits).shape
        said = f"{redact(reference)} of task {sample.id} can be had and read: {width}×{height}, {len(data)} bytes"
        yield Finding("image", "ok", said)


def _tasks(api: Api, number: int, task: int | None) -> list[Json]:
    """A task, or the first one, as a list. To open a task by its own address would have it predicted."""
    wanted = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": 0}
    if task is not None:
        wanted |= {"operator": "equal", "value": task}
    query = json.dumps({"filters": {"conjunction": "and", "items": [wanted]}, "ordering": ["tasks:id"]})
    options = {"project": str(number), "page_size": "1", "include": "id,data", "resolve_uri": "false", "query": query}
    return list(_document(api, "/api/tasks/", f"the tasks of project {number}", **options)["tasks"])


def check_backends(
    api: Api, number: int, label_config: str, settings: Settings, running: ServerProbe | None
) -> Iterator[Finding]:
    """Which backends are attached, in what state, and whether they are walkcut's. Raises `LabelStudioError`."""
    backends = list(_document(api, "/api/ml", f"the backends of project {number}", project=str(number)))
    if not backends:
        remedy = (
            "Settings > Model > Connect Model, with walkcut's address as Label Studio reaches it (port "
            f"{settings.port}) and interactive preannotations; where that is refused as a reserved network address, "
            f"{SWITCH}"
        )
        yield Finding("backend", "error", f"no backend is attached to project {number}", remedy)
        return
    webhooks = list(_document(api, "/api/webhooks/", f"the webhooks of project {number}", project=str(number)))
    for backend in backends:
        yield _state(backend, label_config)
    ours = [backend for backend in backends if "-walkcut-" in str(backend.get("model_version"))]
    yield from _whose(backends, ours, running)
    for url in dict.fromkeys(str(backend.get("url")) for backend in ours):
        yield check_webhook(url, webhooks, settings)


def _state(backend: Json, label_config: str) -> Finding:
    """What Label Studio says of a backend, which it asks anew each time that it is asked itself."""
    name, state = f"the backend at {redact(str(backend.get('url')))}", backend.get("state")
    if state == _DOWN:
        remedy = (
            "see that walkcut runs there and answers within 1 s, and that Label Studio reaches the address from "
            f"where it runs: inside a container, localhost is the container; for a private address {SWITCH}"
        )
        return Finding("backend", "error", f"{name} is not reached by Label Studio", remedy)
    if state == _REFUSED:
        said = " ".join(str(backend.get("error_message")).split())
        return Finding(
            "backend", "error", f"{name} refuses the project: {said}", _refusal_remedy(said, backend, label_config)
        )
    return Finding("backend", "ok", f"{name} is {str(backend.get('readable_state', state)).lower()}")


def _refusal_remedy(said: str, backend: Json, label_config: str) -> str:
    """What to do about a refusal, of which Label Studio mostly keeps the status alone."""
    if "401 Client" in said:  # not of an address: a port may hold these digits
        return "set WALKCUT_BASIC_AUTH_USER and WALKCUT_BASIC_AUTH_PASS on the model too (Settings > Model > Edit)"
    if "timed out" in said:
        return "Label Studio waits 3 s at set-up: see whether walkcut is still starting, or its machine overloaded"
    try:
        controls = parse_brush_controls(label_config)
        project_options(ProjectOptions(), read_extra_params(backend.get("extra_params")), controls[0].options)
    except WalkcutError as error:
        return str(error)
    return "see walkcut's log, which has the reason"


def _whose(backends: Sequence[Json], ours: Sequence[Json], running: ServerProbe | None) -> Iterator[Finding]:
    """Whether walkcut is the one that predicts, answers annotators, and is the one that runs here."""
    if not ours:
        if any(backend.get("state") not in {_DOWN, _REFUSED} for backend in backends):
            remedy = "remove it, or them, and connect walkcut (Settings > Model)"
            yield Finding("backend", "error", "none of the attached backends is known to be walkcut", remedy)
        return
    if backends[0] not in ours or len(ours) > 1:
        said = f"{len(backends)} backends are attached, {len(ours)} of them walkcut: the first alone predicts"
        yield Finding("backend", "warning", said, "remove all but one walkcut (Settings > Model)")
    if any(backend.get("is_interactive") for backend in ours):
        yield Finding("interactive", "ok", "annotators are answered")
    else:
        remedy = "switch on interactive preannotations (Settings > Model > Edit)"
        yield Finding("interactive", "warning", "annotators are not answered when they type or point", remedy)
    versions = {backend.get("model_version") for backend in ours}
    if running is not None and not running.has_offered(versions):
        said = f"the attached walkcut is another one than that at {running.url}"
        yield Finding("backend", "warning", said, "connect this one, or run `walkcut doctor` beside the other")


def check_webhook(url: str, webhooks: Sequence[Json], settings: Settings) -> Finding:
    """Whether the backend at `url` is told what annotators submit, with the user name and password that it asks for."""
    address = f"{url.rstrip('/')}/webhook"
    hook = next((hook for hook in webhooks if hook.get("url") == address), None)
    if hook is None:
        remedy = (
            f"Settings > Webhooks > Add Webhook: {redact(address)}, with payload, for all actions; it is missing "
            f"where Label Studio was started with ML_BLOCK_LOCAL_IP=false alone: {SWITCH}"
        )
        return Finding("webhook", "warning", f"there is none: {_LATER}", remedy)
    told = hook.get("send_for_all_actions") or set(hook.get("actions") or ()) >= _EVENTS
    if not (hook.get("is_active") and hook.get("send_payload") and told):
        remedy = "Settings > Webhooks: make it active, with payload, for all actions"
        return Finding("webhook", "warning", f"it is switched off or tells too little: {_LATER}", remedy)
    if not any(map(settings.credentials.accepts, _shown(hook, address))):
        remedy = (
            "Settings > Webhooks > headers: Authorization, with Basic and base64 of user:password; or connect the "
            "model as http://user:password@host:port"
        )
        return Finding(
            "webhook", "warning", f"it lacks walkcut's user name and password, so it is refused: {_LATER}", remedy
        )
    return Finding("webhook", "ok", "walkcut is told what annotators submit")


_LATER = "what annotators submit is learned when walkcut compares, once an hour by default"


def _shown(hook: Json, address: str) -> Iterator[str]:
    """What a webhook has as Authorization header: its own, or one of the user and password in its address."""
    yield from (str(value) for name, value in (hook.get("headers") or {}).items() if name.lower() == "authorization")
    user, _, password = unquote(urlsplit(address).netloc.rpartition("@")[0]).partition(":")
    yield Credentials(user, password).header
