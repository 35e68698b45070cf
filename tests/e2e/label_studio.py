"""A real Label Studio for tests: started on loopback with an empty SQLite database, and asked over HTTP.

Written against Label Studio 1.23.2, with its own defaults: legacy tokens stay disabled.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.builders.processes import free_port, served

Json = dict[str, Any]

EMAIL = "annotator@example.com"
PASSWORD = "e2e-Passw0rd"
START_S = 240.0  # an empty database takes about 30 s, more on a busy machine
REQUEST_S = 110.0  # Label Studio itself gives a backend 100 s


@contextmanager
def running_label_studio(executable: Path, folder: Path) -> Iterator[str]:
    """Run Label Studio with its data in an empty folder; yields its base URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
        "LABEL_STUDIO_HOST": url,
        "LABEL_STUDIO_USERNAME": EMAIL,
        "LABEL_STUDIO_PASSWORD": PASSWORD,
        "USE_DEFAULT_BANNED_SUBNETS": "false",  # else it refuses a backend on loopback
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
    }
    arguments = ["start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port), "--log-level", "WARNING"]
    log = folder / "label-studio.log"
    with served([str(executable), *arguments], url, environment=environment, log=log, timeout_s=START_S):
        yield url


class LabelStudio:
    """What an annotator does in Label Studio, by its HTTP API; signed in as the only user."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._login()

    def close(self) -> None:
        """Let go of the connections."""
        self._session.close()

    def _login(self) -> None:
        page = f"{self.url}/user/login/"
        self._session.get(page, timeout=REQUEST_S).raise_for_status()
        form = {"email": EMAIL, "password": PASSWORD, "csrfmiddlewaretoken": self._session.cookies["csrftoken"]}
        answer = self._session.post(page, data=form, headers={"Referer": page}, timeout=REQUEST_S)
        answer.raise_for_status()
        if "sessionid" not in self._session.cookies:
            raise RuntimeError(f"Label Studio did not let {EMAIL} in at {page}")
        self._session.headers.update({"X-CSRFToken": self._session.cookies["csrftoken"], "Referer": self.url})

    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        query: Mapping[str, str | int] | None = None,
        files: Mapping[str, tuple[str, bytes]] | None = None,
    ) -> requests.Response:
        """One HTTP request; an error status raises with what Label Studio said."""
        answer = self._session.request(method, self.url + path, json=json, params=query, files=files, timeout=REQUEST_S)
        if not answer.ok:
            raise RuntimeError(f"{method} {path} → {answer.status_code}: {answer.text[:500]}")
        return answer

    def personal_access_token(self) -> str:
        """A new personal access token, as a user copies it from the account page."""
        return str(self.request("POST", "/api/token/").json()["token"])

    def create_project(self, title: str, label_config: str) -> int:
        """A new project (title of 3 to 50 characters); its id."""
        body = {"title": title, "label_config": label_config}
        return int(self.request("POST", "/api/projects", json=body).json()["id"])

    def upload(self, project: int, name: str, content: bytes) -> int:
        """Upload one file, as the import dialogue does; the id of the task made of it."""
        before = {task["id"] for task in self.tasks(project)}
        self.request("POST", f"/api/projects/{project}/import", files={"file": (name, content)})
        (new,) = {task["id"] for task in self.tasks(project)} - before
        return int(new)

    def import_tasks(self, project: int, tasks: Sequence[Json]) -> list[int]:
        """Import tasks given as JSON; their ids in the same order."""
        before = {task["id"] for task in self.tasks(project)}
        self.request("POST", f"/api/projects/{project}/import", json=list(tasks))
        return sorted(task["id"] for task in self.tasks(project) if task["id"] not in before)

    def tasks(self, project: int) -> list[Json]:
        """A project's tasks, without predictions; this does not call the backend."""
        query: dict[str, str | int] = {"project": project, "page_size": 1000}
        return list(self.request("GET", "/api/tasks", query=query).json()["tasks"])

    def task(self, task: int) -> Json:
        """A task as the labelling screen gets it; calls the backend where it has no prediction yet."""
        return dict(self.request("GET", f"/api/tasks/{task}").json())

    def attach_backend(self, project: int, url: str, *, interactive: bool = True, extra_params: object = None) -> int:
        """Connect an ML backend to a project; its id."""
        body = {
            "project": project,
            "url": url,
            "title": "walkcut",
            "is_interactive": interactive,
            "extra_params": extra_params,
        }
        return int(self.request("POST", "/api/ml", json=body).json()["id"])

    def retrieve_predictions(self, project: int) -> None:
        """The Data Manager's action "Retrieve Predictions" on all tasks; returns when they are stored."""
        query: dict[str, str | int] = {"id": "retrieve_tasks_predictions", "project": project}
        body = {"selectedItems": {"all": True, "excluded": []}}
        self.request("POST", "/api/dm/actions", query=query, json=body)

    def predictions(self, task: int) -> list[Json]:
        """A task's predictions, oldest first."""
        rows = self.request("GET", "/api/predictions", query={"task": task}).json()
        return sorted(rows, key=lambda row: int(row["id"]))

    def interact(self, backend: int, task: int, context: Json) -> Json:
        """Ask an interactive backend, as the labelling screen does; its answer or `{"errors": [...]}`."""
        body = {"task": task, "context": context}
        return dict(self.request("POST", f"/api/ml/{backend}/interactive-annotating", json=body).json())

    def annotate(self, task: int, result: Sequence[Json]) -> int:
        """Store a submitted annotation; its id."""
        body = {"result": list(result)}
        return int(self.request("POST", f"/api/tasks/{task}/annotations/", json=body).json()["id"])

    def annotations(self, task: int) -> list[Json]:
        """A task's annotations, oldest first."""
        rows = self.request("GET", f"/api/tasks/{task}/annotations/").json()
        return sorted(rows, key=lambda row: int(row["id"]))

    def export(self, project: int, export_type: str) -> bytes:
        """A project's annotations in an export format: JSON, COCO, BRUSH_TO_PNG, BRUSH_TO_COCO, ..."""
        return self.request("GET", f"/api/projects/{project}/export", query={"exportType": export_type}).content
