"""Label Studio's API, asked by walkcut: what annotators submitted, and predictions put into projects."""

import json
import ssl
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import certifi
import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core import ApiError, RequestOptions
from label_studio_sdk.data_manager import Column, Filters, Operator, Type

from walkcut.errors import LabelStudioError
from walkcut.images import LabelStudioAccess

Json = dict[str, Any]

_PAGE = 100  # tasks, by number and data alone
_MOST_LISTED = 500  # characters of all versions of a task, the rest of which Label Studio 1.23 leaves out
_MOST_SAID = 300  # characters of an answer that are worth showing
_OTHER_SERVER = "see that LABEL_STUDIO_URL is a Label Studio's"
_REMEDIES = {
    **dict.fromkeys((200, 201), _OTHER_SERVER),
    **dict.fromkeys((301, 302, 307, 308), "set LABEL_STUDIO_URL to the address that this one redirects to"),
    401: "set LABEL_STUDIO_API_KEY to a personal access token, copied in full, that is neither expired nor revoked",
    403: "set LABEL_STUDIO_API_KEY to the token of a user who may see and change the project",
    404: "see that it exists, that the token's user may see it, and that LABEL_STUDIO_URL is a Label Studio's",
}


class LabelStudioClient:
    """A client of Label Studio, as the user whose token it has; safe to share between threads.

    No answer is waited for longer than `timeout` seconds at a time, or `patience` seconds where predictions are sent:
    these take Label Studio 60 µs for each task that a project has. Projects are named by number, as text. Every method
    raises `LabelStudioError`, which never shows the token.
    """

    def __init__(
        self,
        access: LabelStudioAccess,
        *,
        timeout: float = 30.0,
        patience: int = 300,
        ca_bundle: Path | None = None,
    ) -> None:
        self._url, self._timeout, self._patience = access.url.rstrip("/"), timeout, patience
        if not access.token:
            raise LabelStudioError(f"Label Studio at {self._url} asks for a token: {_REMEDIES[401]}")
        certificates = ssl.create_default_context(cafile=ca_bundle or certifi.where())
        # Redirects are not followed: the token is for this address alone.
        self._http = httpx.Client(timeout=timeout, follow_redirects=False, verify=certificates)
        with self._translate_errors("a look at the token"):
            self._client = LabelStudio(base_url=f"{self._url}/", api_key=access.token, httpx_client=self._http)

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def title(self, project: str) -> str:
        """A project's title."""
        with self._translate_errors(f"project {project}"):
            return self._client.projects.get(int(project)).title or ""

    def label_config(self, project: str) -> str:
        """A project's labelling config."""
        with self._translate_errors(f"project {project}"):
            return self._client.projects.get(int(project)).label_config or ""

    def annotations(self, project: str) -> Iterator[tuple[Json, Json]]:
        """All annotations of a project, each with its task (`id` and `data`), both as webhooks send them."""
        for task, _ in self._tasks(project, _filter(Column.total_annotations, Operator.GREATER, 0)):
            with self._translate_errors(f"the annotations of task {task['id']}"):
                found = self._client.annotations.list(task["id"])
            for annotation in found:
                yield task, annotation.model_dump(mode="json")

    def unannotated(self, project: str) -> Iterator[tuple[Json, frozenset[str]]]:
        """All tasks without annotations (`id` and `data`), each with its predictions' model versions."""
        return self._tasks(project, _filter(Column.total_annotations, Operator.EQUAL, 0))

    def tasks_without_annotations(
        self, project: str, tasks: Collection[int] | None = None
    ) -> Iterator[tuple[Json, frozenset[str]]]:
        """The same without those that annotators skipped; of these `tasks` alone, if they are given."""
        named = [] if tasks is None else [_filter(Column.id, Operator.IN_LIST, list(tasks))]
        nobody = (_filter(each, Operator.EQUAL, 0) for each in (Column.total_annotations, Column.cancelled_annotations))
        return self._tasks(project, *nobody, *named)

    def versions(self, project: str, tasks: Collection[int]) -> dict[int, frozenset[str]]:
        """The model versions of the predictions of these tasks, as of now; tasks that are gone are left out."""
        return {
            task["id"]: versions
            for task, versions in self._tasks(project, _filter(Column.id, Operator.IN_LIST, list(tasks)))
        }

    def chosen_version(self, project: str) -> str:
        """The model version that the project's settings choose for annotators to start from, or a backend's title."""
        with self._translate_errors(f"project {project}"):
            return self._client.projects.get(int(project)).model_version or ""

    def predictions(self, task: int) -> dict[int, str]:
        """The numbers of a task's predictions, each with its model version."""
        with self._translate_errors(f"the predictions of task {task}"):
            found = self._client.predictions.list(task=task)
        return {each.id: each.model_version or "" for each in found if each.id is not None}

    def delete_prediction(self, prediction: int) -> None:
        """Delete a prediction, unless it is gone. Annotations made from it forget which it was."""
        with self._translate_errors(f"the end of prediction {prediction}"):
            try:
                self._client.predictions.delete(prediction)
            except ApiError as error:
                if error.status_code != HTTPStatus.NOT_FOUND:
                    raise

    def prediction_version(self, prediction: int) -> str:
        """The model version of a prediction."""
        with self._translate_errors(f"prediction {prediction}"):
            return self._client.predictions.get(prediction).model_version or ""

    def add_predictions(self, project: str, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Put predictions (`task`, `model_version`, `score`, `result`) into a project, all in one request.

        It is not sent twice, not even where Label Studio's answer is lost.
        """
        request: list[Any] = [dict(each) for each in predictions]
        options: RequestOptions = {"max_retries": 0, "timeout_in_seconds": self._patience}
        with self._translate_errors(f"room for predictions in project {project}", self._patience):
            taken = self._client.projects.import_predictions(
                int(project), request=request, request_options=options
            ).created
        if taken != len(request):
            raise LabelStudioError(
                f"Label Studio at {self._url} took {taken} of {len(request)} predictions for project {project}: "
                "see that they fit its labelling config, and what Label Studio's log says"
            )

    def _tasks(self, project: str, *filters: Json) -> Iterator[tuple[Json, frozenset[str]]]:
        """The tasks that the filters let through, with their predictions' versions.

        Each page begins behind the last task of the one before, so that tasks annotated meanwhile shift no page.
        """
        last = 0
        while True:
            chosen = [*filters, _filter(Column.id, Operator.GREATER, last)]
            with self._translate_errors(f"the tasks of project {project}"):
                page: list[Any] | None = self._client.tasks.list(
                    project=int(project),
                    page=1,
                    page_size=_PAGE,
                    query=json.dumps({"filters": Filters.create(Filters.AND, chosen), "ordering": [Column.id]}),
                    fields="all",  # without it, versions are empty
                    include="id,data,predictions_model_versions",
                    resolve_uri=False,
                ).items
            if not page:
                return
            for task in page:
                yield {"id": task.id, "data": task.data}, self._versions(task.id, task.predictions_model_versions or "")
            last = page[-1].id

    def _versions(self, task: int, listed: str) -> frozenset[str]:
        """The versions that a list of tasks names, or those of the task's predictions where it does not name all."""
        # They come as "a,b" with SQLite, and with PostgreSQL as "a, b", after quotation marks have counted as well.
        names = [each.strip() for each in listed.split(",")]
        if len(listed) + 2 * len(names) < _MOST_LISTED:
            return frozenset(filter(None, names))
        return frozenset(filter(None, self.predictions(task).values()))

    @contextmanager
    def _translate_errors(self, wanted: str, timeout: float = 0) -> Iterator[None]:
        """Say what can be done where what is `wanted` cannot be had, within a time of its own if there is one."""
        place = f"Label Studio at {self._url}"
        reach = "see that it is up, and that LABEL_STUDIO_URL can be reached from where walkcut runs"
        try:
            yield
        except httpx.TimeoutException as error:
            raise LabelStudioError(
                f"{place} took longer than {timeout or self._timeout:g} s for {wanted}: {reach}"
            ) from error
        except httpx.HTTPError as error:
            raise LabelStudioError(f"{place} cannot be reached for {wanted} ({error}): {reach}") from error
        except ApiError as error:
            remedy = _REMEDIES.get(error.status_code or 0, "see Label Studio's log")
            said = f"{error.status_code}{_detail(error.body)}"
            raise LabelStudioError(f"{place} answered {said} when asked for {wanted}: {remedy}") from error
        except (ValueError, RecursionError) as error:  # the latter where it is nested too deep to be read
            raise LabelStudioError(f"{place} gave no JSON when asked for {wanted}: {_OTHER_SERVER}") from error


def _filter(column: str, operator: str, value: object) -> Json:
    """One condition on tasks."""
    kind = Type.List if operator == Operator.IN_LIST else Type.Number
    return dict(Filters.item(column, operator, kind, value))


def _detail(body: object) -> str:
    """What Label Studio says of a refusal, in brackets and in short; nothing for pages of another server."""
    if not isinstance(body, Mapping):
        return ""
    detail = " ".join(str(body.get("validation_errors") or body.get("detail") or "").split())
    return f" ({detail[:_MOST_SAID]})" if detail else ""
