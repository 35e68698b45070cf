"""Label Studio's API: submitted annotations to read, predictions to write.

Plain HTTP rather than label-studio-sdk, whose import takes 120 MB and 0.7 s for the seven endpoints used here.
"""

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import tenacity

from walkcut.errors import (
    API_KEY_REMEDY,
    ImageError,
    LabelStudioError,
    RequestError,
    TokenExchangeError,
    format_reason,
)
from walkcut.images import LabelStudioAccess
from walkcut.images.tokens import jwt_claims
from walkcut.labelstudio.connection import MAX_RESPONSE_BYTES, Connection, ResponseRefusedError
from walkcut.labelstudio.json_input import check_depth
from walkcut.labelstudio.tasks import parse_project_created

Json = dict[str, Any]

_PAGE_SIZE = 100  # tasks, with their id and data only
_MAX_TASKS = 1 << 40  # of a project that does not say how many it has
_MAX_LISTED = 500  # characters of all versions of a task; Label Studio 1.23 leaves out the rest
_ATTEMPTS, _MAX_RETRY_DELAY = 3, 60.0  # seconds
_TRANSIENT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})
# Errors of a response that is no JSON, too deep (two), of another shape, or not compressed as it says.
_UNEXPECTED = (ValueError, LookupError, TypeError, RecursionError, RequestError, httpx.DecodingError)
_CHECK_URL = "check that LABEL_STUDIO_URL is the address of a Label Studio"
_SEE_LOG = "see Label Studio's log"
_CHECK_NETWORK = "check that it is running, and that walkcut's machine can reach LABEL_STUDIO_URL"
_REMEDIES = {
    HTTPStatus.OK: _CHECK_URL,
    **dict.fromkeys((301, 302, 307, 308), "set LABEL_STUDIO_URL to the address that it redirects to"),
    HTTPStatus.UNAUTHORIZED: API_KEY_REMEDY,
    HTTPStatus.FORBIDDEN: "set LABEL_STUDIO_API_KEY to the token of a user who may see and change the project",
    HTTPStatus.NOT_FOUND: f"check that it exists and that the token's user may see it, and {_CHECK_URL}",
}


class LabelStudioClient:
    """Client of Label Studio's API as the user of a token; safe to share between threads.

    `timeout` limits each exchange with Label Studio, in seconds, and `import_timeout` an import of predictions, which
    takes 60 µs for each task that the project has; `max_bytes` limits each response. Reading and deleting is tried
    three times. Project ids are texts of digits. Every method raises `LabelStudioError`, whose message never holds the
    token.
    """

    def __init__(
        self,
        access: LabelStudioAccess,
        *,
        timeout: float = 30.0,
        import_timeout: float = 300.0,
        max_bytes: int = MAX_RESPONSE_BYTES,
        ca_bundle: Path | None = None,
    ) -> None:
        expires = jwt_claims(access.token).get("exp")
        has_expired = isinstance(expires, int | float) and expires < time.time()
        if not access.token or has_expired:
            problem = "has expired" if has_expired else "is not set"
            raise LabelStudioError(f"the token for Label Studio at {access.url} {problem}: {API_KEY_REMEDY}")
        self._connection = Connection(access, timeout=timeout, max_bytes=max_bytes, ca_bundle=ca_bundle)
        self._import_timeout = import_timeout
        self._retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((httpx.ConnectError, httpx.RemoteProtocolError))
            | tenacity.retry_if_result(lambda reply: reply.is_server_error or reply.status_code in _TRANSIENT),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=_retry_delay,
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),  # or raise the last error
        )

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def label_config(self, project: str) -> str:
        """Return a project's labelling config."""
        return self._project_field(project, "label_config")

    def created(self, project: str) -> int:
        """Return when a project was created, as `parse_project_created` does."""
        with self._translate_errors(f"read project {project}"):
            return parse_project_created({"created_at": self._project_field(project, "created_at")})

    def chosen_version(self, project: str) -> str:
        """Return the model version, or the backend's title, that the project's settings choose for predictions."""
        return self._project_field(project, "model_version")

    def annotated_count(self, project: str) -> int:
        """Return how many of a project's tasks are annotated."""
        with self._translate_errors(f"read project {project}"):
            return _number(self._get(f"/api/projects/{int(project)}/"), "num_tasks_with_annotations")

    def annotations(self, project: str) -> Iterator[tuple[Json, Json]]:
        """Yield all annotations of a project, each with its task (`id` and `data`), both as webhooks send them.

        Where Label Studio does not list those of a task, the error is raised after those of all other tasks.
        """
        refused: LabelStudioError | None = None
        for task, _ in self._tasks(project, _filter("total_annotations", "greater", 0)):
            try:
                annotations = self._annotations(task["id"])
            except LabelStudioError as error:
                if isinstance(error.__cause__, httpx.TransportError):  # the others would wait for it in vain too
                    raise
                refused = error
                continue
            for annotation in annotations:
                yield task, annotation
        if refused is not None:
            raise refused

    def unannotated_tasks(self, project: str) -> Iterator[tuple[Json, frozenset[str]]]:
        """Yield the tasks without annotations (`id` and `data`), each with its predictions' model versions.

        Tasks that annotators skipped are among them.
        """
        return self._tasks(project, _filter("total_annotations", "equal", 0))

    def tasks_neither_annotated_nor_skipped(
        self, project: str, task_ids: Collection[int] | None = None
    ) -> Iterator[tuple[Json, frozenset[str]]]:
        """Yield the tasks of `task_ids` (default: of the project) that no annotator submitted or skipped."""
        chosen = [] if task_ids is None else [_filter("id", "in_list", list(task_ids))]
        unanswered = (_filter(column, "equal", 0) for column in ("total_annotations", "cancelled_annotations"))
        return self._tasks(project, *unanswered, *chosen)

    def all_tasks(self, project: str) -> Iterator[Json]:
        """Yield all tasks of a project (`id` and `data`)."""
        return (task for task, _ in self._tasks(project))

    def upload_file(self, project: str, name: str, content: bytes) -> str:
        """Upload a file into a project without making a task; return its address in task data.

        Raises `ImageError` for a file that Label Studio refuses.
        """
        path, params = f"/api/projects/{int(project)}/import", {"commit_to_project": "false"}
        with self._translate_errors(f"upload {name} into project {project}", self._import_timeout):
            response = self._connection.request(
                "POST", path, params=params, files={"file": (name, content)}, timeout=self._import_timeout
            )
            if response.status_code in {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}:
                raise ImageError(f"Label Studio refuses it ({_detail(response) or response.status_code})")
            (upload_id,) = response.raise_for_status().json()["file_upload_ids"]
            return f"/data/{self._get(f'/api/import/file-upload/{int(upload_id)}')['file']}"

    def add_task(self, project: str, data: Mapping[str, Any]) -> None:
        """Make a task in a project. It is sent once only: a second import would duplicate the task."""
        path = f"/api/projects/{int(project)}/import"
        with self._translate_errors(f"import a task into project {project}", self._import_timeout):
            documents = [{"data": dict(data)}]
            self._connection.request("POST", path, json=documents, timeout=self._import_timeout).raise_for_status()

    def versions(self, project: str, task_ids: Collection[int]) -> dict[int, frozenset[str]]:
        """Return the model versions of the predictions of these tasks, without tasks that were deleted."""
        tasks = self._tasks(project, _filter("id", "in_list", list(task_ids)))
        return {task["id"]: versions for task, versions in tasks}

    def predictions(self, task_id: int) -> dict[int, str]:
        """Return the ids of a task's predictions, each with its model version."""
        with self._translate_errors(f"list the predictions of task {task_id}"):
            predictions = _objects(self._get("/api/predictions/", {"task": task_id}))
            return {_number(prediction, "id"): _text(prediction, "model_version") for prediction in predictions}

    def prediction_version(self, prediction_id: int) -> str:
        """Return the model version of a prediction."""
        with self._translate_errors(f"read prediction {prediction_id}"):
            return _text(self._get(f"/api/predictions/{prediction_id}/"), "model_version")

    def delete_prediction(self, prediction_id: int) -> None:
        """Delete a prediction, if it exists; annotations that were started from it lose the reference to it."""
        with self._translate_errors(f"delete prediction {prediction_id}"):
            response = self._retry(self._connection.request, "DELETE", f"/api/predictions/{prediction_id}/")
            if response.status_code != HTTPStatus.NOT_FOUND:
                response.raise_for_status()

    def add_predictions(self, project: str, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Import predictions (`task`, `model_version`, `score`, `result`) into a project, in one request.

        It is sent once only, even if the response is lost: a second import would duplicate the predictions.
        """
        path, documents = f"/api/projects/{int(project)}/import/predictions", list(map(dict, predictions))
        with self._translate_errors(f"import predictions into project {project}", self._import_timeout):
            response = self._connection.request("POST", path, json=documents, timeout=self._import_timeout)
            created = response.raise_for_status().json()["created"]
        if created != len(documents):
            raise LabelStudioError(
                f"Label Studio at {self._connection.url} imported {created} of {len(documents)} predictions into "
                f"project {project}: check that they fit its labelling config, and see Label Studio's log"
            )

    def _annotations(self, task_id: int) -> list[Json]:
        with self._translate_errors(f"list the annotations of task {task_id}"):
            return _objects(self._get(f"/api/tasks/{task_id}/annotations/"))

    def _project_field(self, project: str, name: str) -> str:
        with self._translate_errors(f"read project {project}"):
            return _text(self._get(f"/api/projects/{int(project)}/"), name)

    def _tasks(self, project: str, *filters: Json) -> Iterator[tuple[Json, frozenset[str]]]:
        """Yield the tasks that all filters accept, with their predictions' model versions.

        Each page starts after the last task of the previous one, so that tasks annotated in the meantime shift no page.
        """
        last_id, count, total = 0, 0, -1
        while True:
            items = [*filters, _filter("id", "greater", last_id)]
            query = {"filters": {"conjunction": "and", "items": items}, "ordering": ["tasks:id"]}
            params: dict[str, str | int] = {
                "project": int(project),
                "page": 1,
                "page_size": _PAGE_SIZE,
                "query": json.dumps(query),
                "fields": "all",  # without it, versions are empty
                "include": "id,data,predictions_model_versions",
                "resolve_uri": "false",
            }
            with self._translate_errors(f"list the tasks of project {project}"):
                answer = self._get("/api/tasks/", params)
                documents = _objects(answer["tasks"])
                total = _number({"total": _MAX_TASKS, **answer}, "total") if total < 0 else total
                page = [
                    (
                        {"id": _number(task, "id"), "data": task["data"]},
                        _text({"predictions_model_versions": "", **task}, "predictions_model_versions"),
                    )
                    for task in documents
                ]
            for task, listed in page:
                if task["id"] <= last_id:
                    raise LabelStudioError(
                        f"cannot list the tasks of project {project}: Label Studio at {self._connection.url} sent task "
                        f"{task['id']} after task {last_id}, although later ones were asked for: {_CHECK_URL}, and "
                        "that no proxy changes its queries"
                    )
                last_id = task["id"]
                yield task, self._versions(task["id"], listed)
            if not page:
                return
            count += len(page)
            if count > 2 * total + _PAGE_SIZE:  # some tasks may be new
                raise LabelStudioError(
                    f"cannot list the tasks of project {project}: Label Studio at {self._connection.url} counted "
                    f"{total} and sent {count} without an end: {_CHECK_URL}"
                )

    def _versions(self, task_id: int, listed: str) -> frozenset[str]:
        """Return the versions that a list of tasks names, or those of all predictions where the list is cut off."""
        # SQLite gives "a,b", and PostgreSQL "a, b", after a cut that has counted quotation marks as well.
        names = [name.strip() for name in listed.split(",")]
        if len(listed) + 2 * len(names) < _MAX_LISTED:
            return frozenset(filter(None, names))
        return frozenset(filter(None, self.predictions(task_id).values()))

    def _get(self, path: str, params: Mapping[str, str | int] | None = None) -> Any:
        """Return the JSON of a successful response, after up to two retries; use within `_translate_errors`."""
        response: httpx.Response = self._retry(self._connection.request, "GET", path, params=params)
        document = response.raise_for_status().json()
        check_depth(document)
        return document

    @contextmanager
    def _translate_errors(self, action: str, timeout: float | None = None) -> Iterator[None]:
        """Raise `LabelStudioError` for anything that keeps Label Studio from an action, with the remedy."""
        server = f"cannot {action}: Label Studio at {self._connection.url}"
        try:
            yield
        except (httpx.TimeoutException, TimeoutError) as error:
            limit = timeout or self._connection.timeout
            raise LabelStudioError(f"{server} did not answer within {limit:g} s: {_CHECK_NETWORK}") from error
        except httpx.HTTPStatusError as error:
            raise LabelStudioError(
                f"{server} {_refusal(error.response.status_code, _detail(error.response))}"
            ) from error
        except TokenExchangeError as error:
            raise LabelStudioError(f"{server} {_refusal(error.status, error.detail)}") from error
        except ResponseRefusedError as error:
            raise LabelStudioError(f"{server} {error}: {_CHECK_URL}, and see its log") from error
        except _UNEXPECTED as error:
            raise LabelStudioError(f"{server} sent an unexpected response: {_CHECK_URL}") from error
        except httpx.HTTPError as error:
            raise LabelStudioError(f"{server} cannot be reached ({error}): {_CHECK_NETWORK}") from error


def _objects(value: object) -> list[Json]:
    """Return a list of objects. Raises `TypeError` for anything else."""
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return value
    raise TypeError


def _text(document: Any, name: str) -> str:
    """Return a text of an object, empty for null. Raises `TypeError` or `KeyError` for anything else."""
    value = document[name]
    if isinstance(value, str | None):
        return value or ""
    raise TypeError


def _number(document: Any, name: str) -> int:
    """Return a whole number of an object. Raises `TypeError` or `KeyError` for anything else."""
    value = document[name]
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError


def _retry_delay(state: tenacity.RetryCallState) -> float:
    """Return the seconds before the next attempt: those that Label Studio asks for, else 1, then 2."""
    outcome = state.outcome
    retry_after = outcome.result().headers.get("Retry-After", "") if outcome and not outcome.failed else ""
    return min(float(retry_after), _MAX_RETRY_DELAY) if retry_after.isdecimal() else 2.0 ** (state.attempt_number - 1)


def _filter(column: str, operator: str, value: object) -> Json:
    """Return a filter on tasks, as the data manager's views have them."""
    kind = "List" if operator == "in_list" else "Number"
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def _refusal(status: int, detail: str) -> str:
    """Return a status with Label Studio's reason, and the remedy."""
    reason = f" ({detail})" if detail else ""
    return f"answered {status}{reason}: {_REMEDIES.get(status, _SEE_LOG)}"


def _detail(response: httpx.Response) -> str:
    """Return Label Studio's reason for a refusal, shortened; empty for responses that are not of its API."""
    with suppress(ValueError, RecursionError):
        document = response.json()
        if isinstance(document, Mapping):
            return format_reason(document.get("validation_errors") or document.get("detail"))
    return ""
