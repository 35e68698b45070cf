"""`walkcut doctor` beside a real Label Studio: nothing is wrong in a healthy set-up, and faults are found."""

import json
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from tests.e2e import images
from tests.e2e.label_studio import Json, LabelStudio
from walkcut.cli import main

pytestmark = pytest.mark.e2e

Doctor = Callable[..., list[Json]]
NO_BRUSH = (
    '<View><Image name="image" value="$image"/><Choices name="c" toName="image"><Choice value="a"/></Choices></View>'
)


@pytest.fixture
def doctor(environment: Mapping[str, str], backend: str) -> Doctor:
    """The findings of `walkcut doctor`, in the backend's environment with changes."""

    def run(*arguments: object, **changes: str) -> list[Json]:
        port = {"WALKCUT_PORT": str(urlsplit(backend).port)}
        variables = {**environment, **port, **changes}
        result = CliRunner().invoke(main, ["doctor", "--json", *map(str, arguments)], env=variables)
        findings = list(json.loads(result.stdout))
        assert result.exit_code == any(finding["severity"] == "error" for finding in findings), result.output
        assert variables["LABEL_STUDIO_API_KEY"] not in result.output
        return findings

    return run


@pytest.fixture(scope="module")
def project(label_studio: LabelStudio, backend: str, label_config: str) -> int:
    """A project in order: an image, and the backend attached."""
    project_id = label_studio.create_project("Doctor", label_config)
    label_studio.upload(project_id, "image.jpg", images.views()[0])
    label_studio.attach_backend(project_id, backend)
    return project_id


def of(findings: list[Json], check: str) -> tuple[str, str, str]:
    """Return severity, message and remedy of the worst finding of a check."""
    worst = max(
        (finding for finding in findings if finding["check"] == check),
        key=lambda finding: ("ok", "warning", "error").index(finding["severity"]),
    )
    return worst["severity"], worst["message"], worst["remedy"]


def test_a_healthy_set_up_has_nothing_wrong(doctor: Doctor, project: int) -> None:
    findings = doctor("--project", project)
    checks = {finding["check"] for finding in findings}
    assert {"port", "latency", "token", "ssrf", "config", "backend", "interactive", "webhook", "image"} <= checks
    wrong = [finding for finding in findings if finding["severity"] != "ok" and finding["check"] != "latency"]
    assert wrong == []  # the time of an image says more of the machine than of the set-up
    assert all(finding["severity"] != "error" for finding in findings)


def test_a_token_that_is_not_whole(doctor: Doctor, access_token: str, project: int) -> None:
    findings = doctor("--project", project, LABEL_STUDIO_API_KEY=access_token[:-8])
    severity, message, remedy = of(findings, "token")
    assert severity == "error"
    assert "is refused (401: Token is invalid)" in message
    assert "create a personal access token" in remedy
    assert of(findings, "project") == ("error", f"project {project} was not checked", "correct the token first")


def test_a_legacy_token_while_those_are_disabled(label_studio: LabelStudio, doctor: Doctor) -> None:
    legacy = label_studio.request("GET", "/api/current-user/token").json()["token"]
    severity, message, remedy = of(doctor(LABEL_STUDIO_API_KEY=legacy), "token")
    assert (severity, message) == ("error", "legacy tokens are disabled in Label Studio, as they are by default")
    assert "create a personal access token" in remedy
    assert "allow legacy tokens" in remedy


def test_an_address_where_no_label_studio_is(doctor: Doctor, backend: str) -> None:
    severity, _, remedy = of(doctor(LABEL_STUDIO_URL=backend), "address")
    assert severity == "error"
    assert "is not Label Studio (status 404" in remedy


def test_a_project_without_a_backend(label_studio: LabelStudio, doctor: Doctor, label_config: str) -> None:
    project_id = label_studio.create_project("Alone", label_config)
    findings = doctor("--project", project_id)
    severity, message, remedy = of(findings, "backend")
    assert (severity, message) == ("error", f"project {project_id} has no backend")
    assert "Settings > Model > Connect Model" in remedy
    assert "USE_DEFAULT_BANNED_SUBNETS=false" in remedy
    assert of(findings, "image")[:2] == ("warning", f"project {project_id} has no tasks")


def test_a_labelling_config_without_a_brush(
    label_studio: LabelStudio, backend: str, doctor: Doctor, label_config: str
) -> None:
    project_id = label_studio.create_project("No brush", label_config)
    label_studio.attach_backend(project_id, backend, interactive=False)
    label_studio.request("PATCH", f"/api/projects/{project_id}", json={"label_config": NO_BRUSH})
    findings = doctor("--project", project_id)
    severity, _, remedy = of(findings, "config")
    assert severity == "error"
    assert "walkcut needs a control that takes regions, such as BrushLabels, on an Image" in remedy
    severity, message, remedy = of(findings, "backend")
    assert severity == "error"
    assert "refuses the project: 400" in message
    assert "walkcut needs a control that takes regions" in remedy
    assert of(findings, "interactive")[0] == "warning"


def test_a_webhook_without_the_password(doctor: Doctor, project: int) -> None:
    secret = "only-for-walkcut"
    findings = doctor("--project", project, WALKCUT_BASIC_AUTH_USER="ls", WALKCUT_BASIC_AUTH_PASS=secret)
    severity, message, remedy = of(findings, "webhook")
    assert severity == "warning"
    assert "lacks walkcut's user name and password" in message
    assert "Authorization" in remedy
    assert secret not in json.dumps(findings)


def test_an_image_that_cannot_be_loaded(label_studio: LabelStudio, doctor: Doctor, project: int) -> None:
    (private,) = label_studio.import_tasks(project, [{"image": "http://127.0.0.1:9/a.png"}])
    severity, _, remedy = of(doctor("--project", project, "--task", private), "image")
    assert severity == "error"
    assert "WALKCUT_ALLOWED_HOSTS" in remedy
