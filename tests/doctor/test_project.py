from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.builders.feedback import CONFIG
from tests.builders.http_site import Site, reply, serving
from tests.builders.label_config import make_image_tag
from tests.builders.label_studio_api import BACKEND, BACKEND_URL, LEGACY_TOKEN, WEBHOOK, json_reply
from tests.builders.scenes import data_url, png, quarters
from walkcut.doctor import project
from walkcut.doctor.checks import Finding
from walkcut.doctor.labelstudio import LabelStudioProbe
from walkcut.doctor.server import ServerProbe
from walkcut.errors import ImageDecodeError, ImageFetchError, LabelConfigError, LabelStudioError, RequestError
from walkcut.images import LabelStudioAccess
from walkcut.labelstudio.config import OUTPUT, parse_image_tags
from walkcut.settings import Settings

LOCKED = Settings(basic_auth_user="ls", basic_auth_pass="hunter22")


@pytest.fixture
def site() -> Iterator[Site]:
    """A Label Studio with project 4, whose only backend works."""
    with serving(Site()) as site:
        site.routes["/api/projects/4/"] = json_reply({"title": "Roofs", "label_config": CONFIG})
        site.routes["/api/ml"] = json_reply([BACKEND])
        site.routes["/api/webhooks/"] = json_reply([WEBHOOK])
        yield site


@pytest.fixture
def probe(site: Site) -> Iterator[LabelStudioProbe]:
    with closing(LabelStudioProbe(LabelStudioAccess(site.url, LEGACY_TOKEN))) as probe:
        yield probe


def problems(probe: LabelStudioProbe, server: ServerProbe | None = None, config: str = CONFIG) -> list[Finding]:
    """Return the warnings and errors about the backends."""
    findings = project.check_backends(probe, 4, config, Settings(), server)
    return [finding for finding in findings if finding.severity != "ok"]


def check_image(probe: LabelStudioProbe, task: int | None = None, settings: Settings | None = None) -> list[Finding]:
    return list(project.check_image(probe, 4, task, parse_image_tags(CONFIG), settings or Settings()))


def tasks(site: Site, *references: str) -> None:
    documents = [{"id": task_id, "data": {"photo": reference}} for task_id, reference in enumerate(references, 7)]
    site.routes["/api/tasks/"] = json_reply({"tasks": documents})


def test_a_config_with_classes_only_gets_neutral_labels_to_paste() -> None:
    labels = '<Label value="Sky"/><Label value="Tree"/>'
    config = f'<View><Image name="im" value="$i"/><BrushLabels name="b" toName="im">{labels}</BrushLabels></View>'
    _, finding, _ = project.check_config(config, {})
    assert (finding.check, finding.severity) == ("config", "warning")
    assert finding.message == "all labels of 'b' are classes: regions come without a label, all of them grey"
    _, pasted = finding.remedy.split(": ", 1)
    _, text = project.check_config(config.replace(labels, labels + pasted), {})
    assert "text field" in text.message


def test_a_project_is_read(probe: LabelStudioProbe) -> None:
    assert project.read_project(probe, 4)["title"] == "Roofs"


def test_a_project_without_access_is_named_with_the_remedy(site: Site, probe: LabelStudioProbe) -> None:
    site.routes["/api/projects/5/"] = json_reply({"detail": "no"}, 403)
    with pytest.raises(
        LabelStudioError, match=r"answered 403 \(no\) to the request for project 5: check that it exists"
    ):
        project.read_project(probe, 5)


def test_controls_that_are_left_out_are_warnings() -> None:
    beside = '<PolygonLabels name="p" toName="im"/></View>'
    finding, *_ = project.check_config(CONFIG.replace("</View>", beside), {})
    assert (finding.severity, finding.message) == ("warning", "<PolygonLabels name='p'> is left out")
    assert 'needs a <Label value="Region"/>: add one inside' in finding.remedy


def test_a_config_names_the_control_and_the_text_field() -> None:
    control, text = project.check_config(CONFIG, {})
    assert (control.severity, control.message) == ("ok", "regions of 'im' ($photo) go to 'b' (brush)")
    assert (text.severity, 'add <TextArea name="granularity" toName="im"' in text.remedy) == ("warning", True)
    _, text = project.check_config(CONFIG.replace("</View>", '<TextArea name="status" toName="im"/></View>'), {})
    assert (text.severity, text.message) == ("ok", "walkcut answers annotators in the text field 'status'")


def test_a_config_that_cannot_be_used() -> None:
    with pytest.raises(LabelConfigError, match="walkcut needs a control that takes regions, such as BrushLabels"):
        list(project.check_config("<View/>", {}))
    with pytest.raises(RequestError, match="max_regions"):
        list(project.check_config(CONFIG.replace("<BrushLabels", '<BrushLabels max_regions="0"'), {}))


def test_the_extra_parameters_of_walkcut_choose_the_control(site: Site, probe: LabelStudioProbe) -> None:
    other = {"model_version": "yolo", "extra_params": {OUTPUT: "brush"}}
    site.routes["/api/ml"] = json_reply([BACKEND | other, BACKEND | {"extra_params": f'{{"{OUTPUT}": "polygon"}}'}])
    beside = '<PolygonLabels name="p" toName="im"><Label value="A"/></PolygonLabels></View>'
    extra_params = project.read_parameters(probe, 4)
    control, *_ = project.check_config(CONFIG.replace("</View>", beside), extra_params)
    assert control.message == "regions of 'im' ($photo) go to 'p' (polygon) and 'b' (brush)"


@pytest.mark.parametrize("backends", [[], ["no backend"], {"detail": "no"}])
def test_extra_parameters_that_cannot_be_read_are_none(site: Site, probe: LabelStudioProbe, backends: object) -> None:
    site.routes["/api/ml"] = json_reply(backends)
    assert project.read_parameters(probe, 4) == {}


def test_an_image_that_can_be_loaded_is_described(site: Site, probe: LabelStudioProbe) -> None:
    tasks(site, data_url(png(quarters(30, 40))))
    (finding,) = check_image(probe)
    assert (finding.severity, "of task 7 can be loaded: 40×30" in finding.message) == ("ok", True)


@pytest.mark.parametrize(("shape", "count"), [("brush", 1), ("polygon", 0)])
def test_polygons_are_recommended_for_large_images(
    site: Site, probe: LabelStudioProbe, monkeypatch: pytest.MonkeyPatch, shape: str, count: int
) -> None:
    monkeypatch.setattr("walkcut.doctor.project._LARGE", 30 * 40)
    tags = [make_image_tag("$photo", name="im", control="b", shape=shape)]
    tasks(site, data_url(png(quarters(30, 40))))
    _, *advice = project.check_image(probe, 4, None, tags, Settings())
    assert [finding.severity for finding in advice] == ["ok"] * count  # advice leaves the exit status as it is
    assert all('toName="im" walkcut_output="polygon"> with the labels of' in finding.remedy for finding in advice)
    tasks(site, data_url(png(quarters(29, 40))))
    assert len(list(project.check_image(probe, 4, None, tags, Settings()))) == 1


def test_a_task_is_found_without_predicting_it(site: Site, probe: LabelStudioProbe) -> None:
    tasks(site, data_url(png(quarters(30, 40))))
    check_image(probe, 7)
    (seen,) = site.seen
    assert "/api/tasks/?" in seen.target
    assert "%22value%22%3A+7" in seen.target.replace("%20", "+")
    assert "resolve_uri=false" in seen.target


def test_images_that_cannot_be_fetched_or_decoded(site: Site, probe: LabelStudioProbe) -> None:
    tasks(site, "http://127.0.0.1:9/a.png")
    with pytest.raises(ImageFetchError, match="name it in WALKCUT_ALLOWED_HOSTS"):
        check_image(probe)
    tasks(site, data_url(b"no image"))
    with pytest.raises(ImageDecodeError, match="are not in a supported image format"):
        check_image(probe)
    tasks(site, data_url(png(quarters(30, 40))))
    with pytest.raises(ImageDecodeError, match="WALKCUT_MAX_PIXELS"):
        check_image(probe, settings=Settings(max_pixels=1000))


def test_a_project_without_the_task(site: Site, probe: LabelStudioProbe) -> None:
    tasks(site)
    assert [(finding.severity, finding.message) for finding in check_image(probe)] == [
        ("warning", "project 4 has no tasks")
    ]
    assert [(finding.severity, finding.message) for finding in check_image(probe, 9)] == [
        ("error", "project 4 has no task 9")
    ]


def test_a_backend_that_works(probe: LabelStudioProbe) -> None:
    assert problems(probe) == []


def test_no_backend(site: Site, probe: LabelStudioProbe) -> None:
    site.routes["/api/ml"] = json_reply([])
    (finding,) = problems(probe)
    assert (finding.severity, finding.message) == ("error", "project 4 has no backend")
    assert "port 9090" in finding.remedy
    assert "USE_DEFAULT_BANNED_SUBNETS=false" in finding.remedy


@pytest.mark.parametrize(
    ("changes", "message", "remedy"),
    [
        ({"state": "DI"}, "Label Studio cannot reach", "inside a container, localhost is the container"),
        (
            {"state": "ER", "error_message": "401 Client Error"},
            "401 Client",
            "enter walkcut's user name and password in the model too",
        ),
        ({"state": "ER", "error_message": "Read timed out. (3.0)"}, "timed out", "Label Studio waits 3 s at set-up"),
        (
            {"state": "ER", "error_message": "500 Server"},
            "refuses the project: 500 Server",
            "see the reason in walkcut's log",
        ),
        ({"state": "ER", "error_message": "400", "extra_params": '{"max_regions": 0}'}, "400", "max_regions is 0"),
        ({"state": "ER", "error_message": "400", "extra_params": {OUTPUT: "circle"}}, "400", f'have {OUTPUT}="circle"'),
        ({"model_version": "yolo"}, "no connected backend is known to be walkcut", "connect walkcut"),
    ],
)
def test_a_backend_with_an_error(
    site: Site, probe: LabelStudioProbe, changes: dict[str, Any], message: str, remedy: str
) -> None:
    site.routes["/api/ml"] = json_reply([BACKEND | changes])
    (finding,) = problems(probe)
    assert (finding.check, finding.severity) == ("backend", "error")
    assert message in finding.message
    assert remedy in finding.remedy


def test_a_backend_that_refuses_a_config_without_a_control(site: Site, probe: LabelStudioProbe) -> None:
    error = "400 Client Error: BAD REQUEST for url: http://127.0.0.1:54012/setup"
    site.routes["/api/ml"] = json_reply([BACKEND | {"state": "ER", "error_message": error}])
    (finding,) = problems(probe, config="<View/>")
    assert "walkcut needs a control that takes regions" in finding.remedy


@pytest.mark.parametrize("attached", [[BACKEND, BACKEND], [BACKEND | {"model_version": "yolo"}, BACKEND]])
def test_only_the_first_backend_predicts(site: Site, probe: LabelStudioProbe, attached: list[dict[str, Any]]) -> None:
    site.routes["/api/ml"] = json_reply(attached)
    (finding,) = problems(probe)
    assert (finding.severity, "only the first predicts" in finding.message) == ("warning", True)
    assert finding.remedy.startswith("remove all but one")


def test_a_backend_that_is_not_interactive(site: Site, probe: LabelStudioProbe) -> None:
    site.routes["/api/ml"] = json_reply([BACKEND | {"is_interactive": False}])
    (finding,) = problems(probe)
    assert (finding.check, finding.severity) == ("interactive", "warning")
    assert finding.remedy.startswith("switch on interactive preannotations")


@pytest.mark.parametrize(("offered", "count"), [("auto 000001", 0), ("auto 000002", 1)])
def test_another_walkcut_than_the_one_here_is_connected(
    site: Site, probe: LabelStudioProbe, offered: str, count: int
) -> None:
    site.routes["/versions"] = json_reply({"versions": [offered]})
    findings = problems(probe, ServerProbe(site.url))
    assert len(findings) == count
    assert all("the connected walkcut is not the one at" in finding.message for finding in findings)


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (None, "there is no webhook"),
        ({"url": "http://other/webhook"}, "there is no webhook"),
        ({"is_active": False}, "the webhook is off, or lacks the payload or an action"),
        ({"send_payload": False}, "the webhook is off, or lacks the payload or an action"),
        (
            {"send_for_all_actions": False, "actions": ["ANNOTATION_CREATED"]},
            "the webhook is off, or lacks the payload or an action",
        ),
    ],
)
def test_a_webhook_that_lacks_events(
    site: Site, probe: LabelStudioProbe, hook: dict[str, Any] | None, message: str
) -> None:
    site.routes["/api/webhooks/"] = json_reply([] if hook is None else [WEBHOOK | hook])
    (finding,) = problems(probe)
    assert (finding.check, finding.severity) == ("webhook", "warning")
    assert message in finding.message
    assert "Settings > Webhooks" in finding.remedy


def test_a_webhook_for_annotation_events_is_enough(probe: LabelStudioProbe) -> None:
    actions = ["ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "TASKS_CREATED"]
    hook = WEBHOOK | {"send_for_all_actions": False, "actions": actions}
    assert project.check_webhook(BACKEND_URL, [hook], Settings()).severity == "ok"


@pytest.mark.parametrize(
    ("authorization", "severity"),
    [
        ("", "warning"),
        ("Bearer x", "warning"),
        ("Basic %%%", "warning"),
        ("Basic " + b64encode(b"ls:wrong").decode(), "warning"),
        ("Basic " + b64encode(b"ls:hunter22").decode(), "ok"),
    ],
)
def test_a_webhook_needs_walkcuts_password(authorization: str, severity: str) -> None:
    hook = WEBHOOK | {"headers": {"authorization": authorization} if authorization else {}}
    finding = project.check_webhook(BACKEND_URL, [hook], LOCKED)
    assert finding.severity == severity
    assert "hunter22" not in finding.message + finding.remedy


@pytest.mark.parametrize(("password", "severity"), [("hunter22", "ok"), ("hunter2%32", "ok"), ("wrong", "warning")])
def test_the_password_may_be_in_the_backends_address(password: str, severity: str) -> None:
    url = f"http://ls:{password}@walkcut:9090/"
    finding = project.check_webhook(url, [WEBHOOK | {"url": f"{url}webhook"}], LOCKED)
    assert finding.severity == severity
    assert password not in finding.message + finding.remedy


def test_a_response_that_is_not_json(site: Site, probe: LabelStudioProbe) -> None:
    site.routes["/api/projects/4/"] = reply(502, b"<html>bad gateway")
    with pytest.raises(LabelStudioError, match=r"answered 502"):
        project.read_project(probe, 4)


@pytest.mark.parametrize(("authorization", "severity"), [("Bearer hunter22", "ok"), ("", "warning")])
def test_a_webhook_may_send_the_token(authorization: str, severity: str) -> None:
    hook = WEBHOOK | {"headers": {"Authorization": authorization}}
    assert project.check_webhook(BACKEND_URL, [hook], Settings(token="hunter22")).severity == severity
