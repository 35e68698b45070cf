"""`walkcut doctor` beside a real Label Studio: nothing wrong with a healthy set-up, and what is broken is named."""

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
        told = {**environment, **port, **changes}
        result = CliRunner().invoke(main, ["doctor", "--json", *map(str, arguments)], env=told)
        findings = list(json.loads(result.stdout))
        assert result.exit_code == any(finding["level"] == "error" for finding in findings), result.output
        assert told["LABEL_STUDIO_API_KEY"] not in result.output
        return findings

    return run


@pytest.fixture(scope="module")
def project(label_studio: LabelStudio, backend: str, label_config: str) -> int:
    """A project in order: an image, and the backend attached."""
    number = label_studio.create_project("Doctor", label_config)
    label_studio.upload(number, "image.jpg", images.views()[0])
    label_studio.attach_backend(number, backend)
    return number


def of(findings: list[Json], check: str) -> tuple[str, str, str]:
    """Level, text and remedy of the worst finding of a check."""
    worst = max(
        (each for each in findings if each["check"] == check),
        key=lambda each: ("ok", "warning", "error").index(each["level"]),
    )
    return worst["level"], worst["what"], worst["remedy"]


def test_a_healthy_set_up_has_nothing_wrong(doctor: Doctor, project: int) -> None:
    findings = doctor("--project", project)
    checks = {finding["check"] for finding in findings}
    assert {"port", "clock", "token", "switches", "config", "backend", "interactive", "webhook", "image"} <= checks
    wrong = [finding for finding in findings if finding["level"] != "ok" and finding["check"] != "clock"]
    assert wrong == []  # the time of an image says more of the machine than of the set-up
    assert all(finding["level"] != "error" for finding in findings)


def test_a_token_that_is_not_whole(doctor: Doctor, access_token: str, project: int) -> None:
    findings = doctor("--project", project, LABEL_STUDIO_API_KEY=access_token[:-8])
    level, what, remedy = of(findings, "token")
    assert level == "error"
    assert "is refused (401: Token is invalid)" in what
    assert "make a personal access token" in remedy
    assert of(findings, "project") == ("error", f"project {project} was not looked at", "see to the token first")


def test_a_legacy_token_while_those_are_disabled(label_studio: LabelStudio, doctor: Doctor) -> None:
    legacy = label_studio.request("GET", "/api/current-user/token").json()["token"]
    level, what, remedy = of(doctor(LABEL_STUDIO_API_KEY=legacy), "token")
    assert (level, what) == ("error", "it is a legacy token, which Label Studio has disabled, as by default")
    assert "make a personal access token" in remedy
    assert "allow legacy tokens" in remedy


def test_an_address_where_no_label_studio_is(doctor: Doctor, backend: str) -> None:
    level, _, remedy = of(doctor(LABEL_STUDIO_URL=backend), "address")
    assert level == "error"
    assert "is no Label Studio (status 404" in remedy


def test_a_project_without_a_backend(label_studio: LabelStudio, doctor: Doctor, label_config: str) -> None:
    number = label_studio.create_project("Alone", label_config)
    findings = doctor("--project", number)
    level, what, remedy = of(findings, "backend")
    assert (level, what) == ("error", f"no backend is attached to project {number}")
    assert "Settings > Model > Connect Model" in remedy
    assert "USE_DEFAULT_BANNED_SUBNETS=false" in remedy
    assert of(findings, "image")[:2] == ("warning", f"project {number} has no tasks")


def test_a_labelling_config_without_a_brush(
    label_studio: LabelStudio, backend: str, doctor: Doctor, label_config: str
) -> None:
    number = label_studio.create_project("No brush", label_config)
    label_studio.attach_backend(number, backend, interactive=False)
    label_studio.request("PATCH", f"/api/projects/{number}", json={"label_config": NO_BRUSH})
    findings = doctor("--project", number)
    level, _, remedy = of(findings, "config")
    assert level == "error"
    assert "walkcut needs BrushLabels on an Image" in remedy
    level, what, remedy = of(findings, "backend")
    assert level == "error"
    assert "refuses the project: 400" in what
    assert "walkcut needs BrushLabels" in remedy
    assert of(findings, "interactive")[0] == "warning"


def test_a_webhook_without_the_password(doctor: Doctor, project: int) -> None:
    secret = "only-for-walkcut"
    findings = doctor("--project", project, WALKCUT_BASIC_AUTH_USER="ls", WALKCUT_BASIC_AUTH_PASS=secret)
    level, what, remedy = of(findings, "webhook")
    assert level == "warning"
    assert "lacks walkcut's user name and password" in what
    assert "Authorization" in remedy
    assert secret not in json.dumps(findings)


def test_an_image_that_cannot_be_had(label_studio: LabelStudio, doctor: Doctor, project: int) -> None:
    (private,) = label_studio.import_tasks(project, [{"image": "http://127.0.0.1:9/a.png"}])
    level, _, remedy = of(doctor("--project", project, "--task", private), "image")
    assert level == "error"
    assert "WALKCUT_ALLOWED_HOSTS" in remedy
