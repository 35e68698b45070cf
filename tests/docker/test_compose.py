"""The Compose file, brought up by a Docker engine: Label Studio, PostgreSQL, walkcut and a first project.

Compose's own variables count: COMPOSE_FILE may name a further file, with what this machine needs to build the image.
"""

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.builders.processes import free_port, run, wait_for

DOCKER = Path(__file__).resolve().parents[2] / "docker"
START_S = 120.0  # for a container that was killed to be back


pytestmark = pytest.mark.soak


def has_engine() -> bool:
    """Whether a Docker engine answers."""
    return (
        shutil.which("docker") is not None
        and not subprocess.run(["docker", "version"], capture_output=True, check=False).returncode
    )


class Stack:
    """All services of the Compose file, and Label Studio's API."""

    def __init__(self) -> None:
        host, self._token = f"127.0.0.1:{free_port()}", secrets.token_hex(20)
        self._url = f"http://{host}"
        self._environment = {
            "LABEL_STUDIO_USERNAME": "first@example.org",
            "LABEL_STUDIO_PASSWORD": secrets.token_hex(20),
            "LABEL_STUDIO_USER_TOKEN": self._token,
            "POSTGRES_PASSWORD": secrets.token_hex(20),
            "LABEL_STUDIO_BIND": host,
            "LABEL_STUDIO_HOST": self._url,
            "WALKCUT_BASIC_AUTH_USER": "studio",
            "WALKCUT_BASIC_AUTH_PASS": "a@b/c:d",
        }
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        self._compose = ["docker-compose"] if plugin.returncode else ["docker", "compose"]

    def compose(self, *arguments: str) -> str:
        """What Compose prints; RuntimeError with its last words where it fails."""
        fixed = ["--project-name", "walkcut-check", "--env-file", ".env.example"]
        return run([*self._compose, *fixed, *arguments], self._environment, DOCKER)

    def inside(self, *command: str) -> str:
        """What a command prints in walkcut's container."""
        return self.compose("exec", "-T", "walkcut", *command)

    def docker(self, command: str, service: str, *options: str) -> str:
        """What Docker says of a service's container, which may have ended."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        return run(["docker", command, *options, container], {}).strip()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """An answer of Label Studio's API."""
        headers = {"Authorization": f"Token {self._token}"}
        answer = requests.request(method, f"{self._url}/api/{path}", headers=headers, json=body, timeout=120)
        answer.raise_for_status()
        return answer.json()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The services, up, with the first project made."""
    if not has_engine():
        pytest.skip("no Docker engine answers here")
    stack = Stack()
    stack.compose("build")
    try:
        stack.compose("up", "--detach")
        assert stack.docker("wait", "first-project") == "0"
        yield stack
    finally:
        stack.compose("down", "--volumes")


@pytest.fixture(scope="module")
def task(stack: Stack) -> Any:
    """The sample task, as who opens it gets it."""
    (project,) = stack.ask("GET", "projects")["results"]
    (first,) = stack.ask("GET", f"tasks?project={project['id']}")["tasks"]
    return stack.ask("GET", f"tasks/{first['id']}?project={project['id']}")


def feedback(stack: Stack, task: Any) -> Any:
    return json.loads(stack.inside("walkcut", "project", "show", str(task["project"]), "--json"))["feedback"]


def state(stack: Stack, template: str) -> str:
    """What Docker knows of walkcut's container."""
    return stack.docker("inspect", "walkcut", "--format", template)


def test_the_sample_task_has_a_prediction_for_each_tab(task: Any) -> None:
    versions = [prediction["model_version"].partition(" ")[0] for prediction in task["predictions"]]
    assert versions == ["coarse", "medium", "fine", "auto"]
    assert all(prediction["result"] for prediction in task["predictions"])


def test_walkcut_finds_nothing_wrong(stack: Stack, task: Any) -> None:
    findings = json.loads(stack.inside("walkcut", "doctor", "--json", "--project", str(task["project"])))
    assert [finding for finding in findings if finding["severity"] != "ok"] == []


def test_walkcut_has_no_rights(stack: Stack) -> None:
    status = stack.inside("cat", "/proc/self/status")
    assert {"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"} <= set(status.splitlines())
    with pytest.raises(RuntimeError, match="Read-only file system"):
        stack.inside("touch", "/opt/walkcut/file")


def test_what_was_learned_outlives_a_kill(stack: Stack, task: Any) -> None:
    annotation = {"result": task["predictions"][-1]["result"]}
    stack.ask("POST", f"tasks/{task['id']}/annotations?project={task['project']}", annotation)
    (learned,) = wait_for("the feedback", lambda: feedback(stack, task), START_S)
    with suppress(RuntimeError):  # who kills all processes may go with their container
        stack.inside("python", "-c", "import os, signal; os.kill(-1, signal.SIGKILL)")
    wait_for("walkcut", lambda: state(stack, "{{.RestartCount}} {{.State.Health.Status}}") == "1 healthy", START_S)
    assert feedback(stack, task) == [learned]


def test_sigterm_ends_it(stack: Stack) -> None:
    stack.compose("stop", "walkcut")
    assert state(stack, "{{.State.ExitCode}}") == "0"
