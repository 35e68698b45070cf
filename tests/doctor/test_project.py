from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.builders.feedback import CONFIG
from tests.builders.http_site import Site, reply, serving
from tests.builders.scenes import data_url, png, quarters
from tests.doctor.test_labelstudio import LEGACY, document
from walkcut.doctor import project
from walkcut.doctor.checks import Finding
from walkcut.doctor.probe import Api
from walkcut.doctor.server import ServerProbe
from walkcut.errors import ImageDecodeError, ImageFetchError, LabelConfigError, LabelStudioError, RequestError
from walkcut.images import DecodeLimits, FetchPolicy, ImageLoader, LabelStudioAccess
from walkcut.labelstudio import parse_brush_controls
from walkcut.settings import Settings

URL = "http://walkcut:9090"
WELL: dict[str, Any] = {
    "url": URL,
    "state": "CO",
    "readable_state": "Connected",
    "model_version": "auto-walkcut-merge-1",
    "is_interactive": True,
}
HOOK: dict[str, Any] = {
    "url": f"{URL}/webhook",
    "is_active": True,
    "send_payload": True,
    "send_for_all_actions": True,
    "actions": [],
    "headers": {},
}
LOCKED = Settings(basic_auth_user="ls", basic_auth_pass="hunter22")


@pytest.fixture
def site() -> Iterator[Site]:
    """A Label Studio with project 4, whose only backend is in order."""
    with serving(Site()) as site:
        site.routes["/api/projects/4/"] = document({"title": "Roofs", "label_config": CONFIG})
        site.routes["/api/ml"] = document([WELL])
        site.routes["/api/webhooks/"] = document([HOOK])
        yield site


@pytest.fixture
def api(site: Site) -> Iterator[Api]:
    with closing(Api(LabelStudioAccess(site.url, LEGACY))) as api:
        yield api


def backends(api: Api, running: ServerProbe | None = None, config: str = CONFIG) -> list[tuple[str, str, str, str]]:
    """What is not in order with the backends."""
    found = project.check_backends(api, 4, config, Settings(), running)
    return [(each.check, each.level, each.what, each.remedy) for each in found if each.level != "ok"]


def make_image(api: Api, task: int | None = None, **limits: int) -> list[Finding]:
    source = ImageLoader(FetchPolicy(), None)
    controls = parse_brush_controls(CONFIG)
    return list(project.check_image(api, 4, task, controls, source, DecodeLimits(**limits)))


def tasks(site: Site, *references: str) -> None:
    found = [{"id": number, "data": {"photo": reference}} for number, reference in enumerate(references, 7)]
    site.routes["/api/tasks/"] = document({"tasks": found})


def test_a_project_is_read(api: Api) -> None:
    assert project.read_project(api, 4)["title"] == "Roofs"


def test_a_project_that_may_not_be_seen_is_named_with_the_remedy(site: Site, api: Api) -> None:
    site.routes["/api/projects/5/"] = document({"detail": "no"}, 403)
    with pytest.raises(LabelStudioError, match=r"answered 403 \(no\) when asked for project 5: see that it exists"):
        project.read_project(api, 5)


def test_a_config_says_where_regions_go_and_where_annotators_are_answered() -> None:
    brush, text = project.check_config(CONFIG)
    assert (brush.level, brush.what) == ("ok", "regions go to 'b' on 'im', from 'photo'")
    assert (text.level, 'add <TextArea name="granularity" toName="im"' in text.remedy) == ("warning", True)
    _, text = project.check_config(CONFIG.replace("</View>", '<TextArea name="status" toName="im"/></View>'))
    assert (text.level, text.what) == ("ok", "annotators are answered in the text field 'status'")


def test_a_config_that_cannot_be_used_is_said_to_be() -> None:
    with pytest.raises(LabelConfigError, match="walkcut needs BrushLabels"):
        list(project.check_config("<View/>"))
    with pytest.raises(RequestError, match="max_regions"):
        list(project.check_config(CONFIG.replace("<BrushLabels", '<BrushLabels max_regions="0"')))


def test_a_image_that_can_be_had_is_described(site: Site, api: Api) -> None:
    tasks(site, data_url(png(quarters(30, 40))))
    (found,) = make_image(api)
    assert (found.level, "of task 7 can be had and read: 40×30" in found.what) == ("ok", True)


def test_a_task_is_looked_for_without_having_it_predicted(site: Site, api: Api) -> None:
    tasks(site, data_url(png(quarters(30, 40))))
    make_image(api, 7)
    (seen,) = site.seen
    assert "/api/tasks/?" in seen.target
    assert "%22value%22%3A+7" in seen.target.replace("%20", "+")
    assert "resolve_uri=false" in seen.target


def test_images_that_cannot_be_had_or_read_are_the_fetchers_errors(site: Site, api: Api) -> None:
    tasks(site, "http://127.0.0.1:9/a.png")
    with pytest.raises(ImageFetchError, match="name it in WALKCUT_ALLOWED_HOSTS"):
        make_image(api)
    tasks(site, data_url(b"no image"))
    with pytest.raises(ImageDecodeError, match="are no image"):
        make_image(api)
    tasks(site, data_url(png(quarters(30, 40))))
    with pytest.raises(ImageDecodeError, match="WALKCUT_MAX_PIXELS"):
        make_image(api, max_pixels=1000)


def test_a_project_without_the_task(site: Site, api: Api) -> None:
    tasks(site)
    assert [(each.level, each.what) for each in make_image(api)] == [("warning", "project 4 has no tasks")]
    assert [(each.level, each.what) for each in make_image(api, 9)] == [("error", "project 4 has no task 9")]


def test_a_backend_in_order(api: Api) -> None:
    assert backends(api) == []


def test_no_backend(site: Site, api: Api) -> None:
    site.routes["/api/ml"] = document([])
    ((_, level, what, remedy),) = backends(api)
    assert (level, what) == ("error", "no backend is attached to project 4")
    assert "port 9090" in remedy
    assert "USE_DEFAULT_BANNED_SUBNETS=false" in remedy


@pytest.mark.parametrize(
    ("changes", "said", "remedy"),
    [
        ({"state": "DI"}, "is not reached by Label Studio", "inside a container, localhost is the container"),
        ({"state": "ER", "error_message": "401 Client Error"}, "401 Client", "set WALKCUT_BASIC_AUTH_USER"),
        ({"state": "ER", "error_message": "Read timed out. (3.0)"}, "timed out", "Label Studio waits 3 s at set-up"),
        ({"state": "ER", "error_message": "500 Server"}, "refuses the project: 500 Server", "see walkcut's log"),
        ({"state": "ER", "error_message": "400", "extra_params": '{"max_regions": 0}'}, "400", "max_regions is 0"),
        ({"model_version": "yolo"}, "none of the attached backends is known to be walkcut", "connect walkcut"),
    ],
)
def test_a_backend_with_an_error(site: Site, api: Api, changes: dict[str, Any], said: str, remedy: str) -> None:
    site.routes["/api/ml"] = document([WELL | changes])
    ((check, level, what, how),) = backends(api)
    assert (check, level) == ("backend", "error")
    assert said in what
    assert remedy in how


def test_a_backend_that_refuses_a_config_without_a_brush(site: Site, api: Api) -> None:
    said = "400 Client Error: BAD REQUEST for url: http://127.0.0.1:54012/setup"
    site.routes["/api/ml"] = document([WELL | {"state": "ER", "error_message": said}])
    ((_, _, _, remedy),) = backends(api, config="<View/>")
    assert "walkcut needs BrushLabels" in remedy


@pytest.mark.parametrize("attached", [[WELL, WELL], [WELL | {"model_version": "yolo"}, WELL]])
def test_the_first_backend_alone_predicts(site: Site, api: Api, attached: list[dict[str, Any]]) -> None:
    site.routes["/api/ml"] = document(attached)
    ((_, level, what, remedy),) = backends(api)
    assert (level, "the first alone predicts" in what) == ("warning", True)
    assert remedy.startswith("remove all but one")


def test_annotators_who_are_not_answered(site: Site, api: Api) -> None:
    site.routes["/api/ml"] = document([WELL | {"is_interactive": False}])
    ((check, level, _, remedy),) = backends(api)
    assert (check, level) == ("interactive", "warning")
    assert remedy.startswith("switch on interactive preannotations")


@pytest.mark.parametrize(("offered", "count"), [("auto-walkcut-merge-1", 0), ("auto-walkcut-merge-2", 1)])
def test_another_walkcut_than_the_one_here_is_attached(site: Site, api: Api, offered: str, count: int) -> None:
    site.routes["/versions"] = document({"versions": [offered]})
    found = backends(api, ServerProbe(site.url))
    assert len(found) == count
    assert all("is another one than that at" in what for _, _, what, _ in found)


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (None, "there is none"),
        ({"url": "http://other/webhook"}, "there is none"),
        ({"is_active": False}, "switched off or tells too little"),
        ({"send_payload": False}, "switched off or tells too little"),
        ({"send_for_all_actions": False, "actions": ["ANNOTATION_CREATED"]}, "switched off or tells too little"),
    ],
)
def test_a_webhook_that_does_not_tell(site: Site, api: Api, hook: dict[str, Any] | None, said: str) -> None:
    site.routes["/api/webhooks/"] = document([] if hook is None else [HOOK | hook])
    ((check, level, what, remedy),) = backends(api)
    assert (check, level) == ("webhook", "warning")
    assert said in what
    assert "Settings > Webhooks" in remedy


def test_a_webhook_that_tells_of_annotations_alone_is_enough(api: Api) -> None:
    actions = ["ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "TASKS_CREATED"]
    hook = HOOK | {"send_for_all_actions": False, "actions": actions}
    assert project.check_webhook(URL, [hook], Settings()).level == "ok"


@pytest.mark.parametrize(
    ("authorization", "level"),
    [
        ("", "warning"),
        ("Bearer x", "warning"),
        ("Basic %%%", "warning"),
        ("Basic " + b64encode(b"ls:wrong").decode(), "warning"),
        ("Basic " + b64encode(b"ls:hunter22").decode(), "ok"),
    ],
)
def test_a_webhook_needs_the_password_that_walkcut_asks_for(authorization: str, level: str) -> None:
    hook = HOOK | {"headers": {"authorization": authorization} if authorization else {}}
    finding = project.check_webhook(URL, [hook], LOCKED)
    assert finding.level == level
    assert "hunter22" not in finding.what + finding.remedy


@pytest.mark.parametrize(("password", "level"), [("hunter22", "ok"), ("hunter2%32", "ok"), ("wrong", "warning")])
def test_the_password_may_stand_in_the_backends_address(password: str, level: str) -> None:
    url = f"http://ls:{password}@walkcut:9090/"
    finding = project.check_webhook(url, [HOOK | {"url": f"{url}webhook"}], LOCKED)
    assert finding.level == level
    assert password not in finding.what + finding.remedy


def test_an_answer_that_is_no_json_is_no_crash(site: Site, api: Api) -> None:
    site.routes["/api/projects/4/"] = reply(502, b"<html>bad gateway")
    with pytest.raises(LabelStudioError, match=r"answered 502"):
        project.read_project(api, 4)


@pytest.mark.parametrize(("shown", "level"), [("Bearer hunter22", "ok"), ("", "warning")])
def test_a_webhook_may_show_the_token(shown: str, level: str) -> None:
    hook = HOOK | {"headers": {"Authorization": shown}}
    assert project.check_webhook(URL, [hook], Settings(token="hunter22")).level == level
