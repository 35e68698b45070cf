import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.builders.http_site import PERSONAL, Site, jwt, reply, serving
from tests.builders.processes import free_port
from walkcut.errors import ImageError, LabelStudioError
from walkcut.images import LabelStudioAccess
from walkcut.labelstudio.client import LabelStudioClient

ACCESS = jwt(token_type="access", exp=8_000_000_000)
JSON_TYPE = {"Content-Type": "application/json"}
ASK: list[Callable[[LabelStudioClient], object]] = [
    lambda studio: studio.label_config("4"),
    lambda studio: studio.chosen_version("4"),
    lambda studio: studio.prediction_version(4),
    lambda studio: next(studio.annotations("4")),
    lambda studio: next(studio.unannotated_tasks("4")),
    lambda studio: studio.predictions(4),
    lambda studio: studio.chosen_version("4"),
    lambda studio: studio.add_predictions("4", [{"task": 1}]),
]


def documents(handler: BaseHTTPRequestHandler, document: object, status: int = 200) -> None:
    reply(status, json.dumps(document).encode(), JSON_TYPE)(handler)


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The delays between attempts, which tests do not wait for."""
    delays: list[float] = []
    monkeypatch.setattr("time.sleep", delays.append)
    return delays


@pytest.fixture
def site(delays: list[float]) -> Iterator[Site]:
    """A Label Studio below a path that offers nothing but its token exchange."""
    with serving(Site()) as site:
        site.routes["/ls/api/token/refresh/"] = lambda handler: documents(handler, {"access": ACCESS})
        yield site


@pytest.fixture
def studio(site: Site) -> Iterator[LabelStudioClient]:
    with closing(LabelStudioClient(LabelStudioAccess(f"{site.url}/ls", PERSONAL), timeout=0.5)) as studio:
        yield studio


def test_a_project_is_read_with_an_access_token(site: Site, studio: LabelStudioClient) -> None:
    site.routes["/ls/api/projects/4/"] = lambda handler: documents(
        handler, {"label_config": "<é/>", "model_version": "auto-1"}
    )
    assert (studio.label_config("4"), studio.chosen_version("4")) == ("<é/>", "auto-1")
    refresh, *requests = site.seen
    assert json.loads(refresh.body) == {"refresh": PERSONAL}
    assert [seen.headers["Authorization"] for seen in requests] == [f"Bearer {ACCESS}"] * 2


def test_a_legacy_token_is_sent_unchanged(site: Site) -> None:
    site.routes["/api/predictions/7/"] = lambda handler: documents(handler, {"model_version": "auto-1"})
    with closing(LabelStudioClient(LabelStudioAccess(site.url, "0123abcd"))) as studio:
        assert studio.prediction_version(7) == "auto-1"
    assert [seen.headers["Authorization"] for seen in site.seen] == ["Token 0123abcd"]


def test_each_page_of_tasks_starts_after_the_last_task(site: Site, studio: LabelStudioClient) -> None:
    pages: list[list[Any]] = [[(1, "v1,v2"), (5, "")], [(7, None)], []]

    def tasks(handler: BaseHTTPRequestHandler) -> None:
        page = [{"id": n, "data": {"n": n}, "predictions_model_versions": versions} for n, versions in pages.pop(0)]
        documents(handler, {"tasks": page, "total": 3, "total_annotations": 0, "total_predictions": 0})

    site.routes["/ls/api/tasks/"] = tasks
    found = list(studio.unannotated_tasks("4"))
    assert [task for task, _ in found] == [{"id": n, "data": {"n": n}} for n in (1, 5, 7)]
    assert [versions for _, versions in found] == [{"v1", "v2"}, set(), set()]
    queries = [parse_qs(urlsplit(seen.target).query) for seen in site.seen[1:]]
    filters = [json.loads(query["query"][0])["filters"]["items"] for query in queries]
    assert [[(item["operator"], item["value"]) for item in items] for items in filters] == [
        [("equal", 0), ("greater", last)] for last in (0, 5, 7)
    ]


@pytest.mark.parametrize("refused", [reply(500, b""), reply(200, b"[" * 5000)], ids=["refused", "unreadable"])
def test_a_task_whose_annotations_are_not_listed_keeps_none_of_the_others_back(
    site: Site, studio: LabelStudioClient, refused: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    pages: list[list[int]] = [[1, 2], [3], []]
    site.routes["/ls/api/tasks/"] = lambda handler: documents(
        handler, {"tasks": [{"id": number, "data": {}} for number in pages.pop(0)]}
    )
    site.routes["/ls/api/tasks/1/annotations/"] = refused
    for number in (2, 3):
        site.routes[f"/ls/api/tasks/{number}/annotations/"] = reply(200, b'[{"id": %d}]' % (10 * number), JSON_TYPE)
    listed: list[int] = []
    with pytest.raises(LabelStudioError, match="cannot list the annotations of task 1"):
        listed.extend(annotation["id"] for _, annotation in studio.annotations("4"))
    assert listed == [20, 30]


@pytest.mark.parametrize("separator", [",", ", "], ids=["SQLite", "PostgreSQL"])
def test_versions_that_a_list_leaves_out_are_read_from_the_predictions(
    site: Site, studio: LabelStudioClient, separator: str
) -> None:
    """Label Studio 1.23 lists 500 characters of all versions: with PostgreSQL, quotation marks among them."""
    versions = [f"auto {number:06x}" for number in range(50)]
    quoted = json.dumps(versions)[1:-1][:500].replace('"', "") if separator == ", " else ",".join(versions)[:500]
    listed = {1: versions[0], 2: separator.join(versions[:9]), 3: quoted}

    def tasks(handler: BaseHTTPRequestHandler) -> None:
        chosen = json.loads(parse_qs(urlsplit(site.seen[-1].target).query)["query"][0])["filters"]["items"]
        left = [number for number in listed if number > chosen[-1]["value"]]
        page = [{"id": n, "data": {}, "predictions_model_versions": listed[n]} for n in left]
        documents(handler, {"tasks": page, "total": 3, "total_annotations": 0, "total_predictions": 0})

    site.routes["/ls/api/tasks/"] = tasks
    rows = [{"id": number, "model_version": version} for number, version in enumerate(versions)]
    site.routes["/ls/api/predictions/"] = lambda handler: documents(handler, rows)
    assert studio.versions("4", [1, 2, 3]) == {1: {versions[0]}, 2: set(versions[:9]), 3: set(versions)}
    queries = [parse_qs(urlsplit(seen.target).query) for seen in site.seen if "/predictions/" in seen.target]
    assert queries == [{"task": ["3"]}]


def test_tasks_are_filtered_by_annotations_skips_and_ids(site: Site, studio: LabelStudioClient) -> None:
    nothing = {"tasks": [], "total": 0, "total_annotations": 0, "total_predictions": 0}
    site.routes["/ls/api/tasks/"] = lambda handler: documents(handler, nothing)
    listings = [
        studio.tasks_neither_annotated_nor_skipped("4"),
        studio.tasks_neither_annotated_nor_skipped("4", [7, 8]),
        studio.versions("4", {9}).items(),
    ]
    assert [list(listing) for listing in listings] == [[]] * 3
    filters = [
        {
            (item["filter"], item["operator"]): item["value"]
            for item in json.loads(query["query"][0])["filters"]["items"]
        }
        for query in (parse_qs(urlsplit(seen.target).query) for seen in site.seen[1:])
    ]
    unanswered = {("filter:tasks:total_annotations", "equal"): 0, ("filter:tasks:cancelled_annotations", "equal"): 0}
    named, behind = ("filter:tasks:id", "in_list"), {("filter:tasks:id", "greater"): 0}
    assert filters == [{named: [9]} | behind, unanswered | behind, unanswered | {named: [7, 8]} | behind]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_reading_is_tried_three_times(site: Site, studio: LabelStudioClient, delays: list[float], status: int) -> None:
    answers = [reply(status), reply(status, headers={"Retry-After": "7"})]
    site.routes["/ls/api/predictions/7/"] = lambda handler: (
        answers.pop(0)(handler) if answers else documents(handler, {"model_version": "auto-1"})
    )
    assert studio.prediction_version(7) == "auto-1"
    assert delays == [1, 7]
    site.routes["/ls/api/predictions/7/"] = reply(status)
    with pytest.raises(LabelStudioError, match=f"cannot read prediction 7: .* answered {status}: see"):
        studio.prediction_version(7)
    assert delays == [1, 7, 1, 2]


def test_a_prediction_is_deleted_once(site: Site, studio: LabelStudioClient) -> None:
    site.routes["/ls/api/predictions/7/"] = reply(204)
    studio.delete_prediction(7)
    studio.delete_prediction(8)  # was deleted before: a response was lost
    site.routes["/ls/api/predictions/9/"] = reply(403, b'{"detail": "no"}', JSON_TYPE)
    with pytest.raises(
        LabelStudioError, match=r"cannot delete prediction 9: Label Studio at .* answered 403 \(no\): set"
    ):
        studio.delete_prediction(9)


def test_predictions_are_imported_in_one_request(site: Site, studio: LabelStudioClient) -> None:
    def take(handler: BaseHTTPRequestHandler) -> None:
        documents(handler, {"created": len(json.loads(site.seen[-1].body))}, 201)

    site.routes["/ls/api/projects/4/import/predictions"] = take
    predictions = [{"task": n, "model_version": "v", "score": 0.5, "result": []} for n in range(45)]
    studio.add_predictions("4", predictions)
    assert [json.loads(seen.body) for seen in site.seen[1:]] == [predictions]


def test_files_are_uploaded_without_a_task_and_refusals_are_of_the_file(site: Site, studio: LabelStudioClient) -> None:
    upload = "/ls/api/projects/4/import"
    site.routes[upload] = lambda handler: documents(handler, {"file_upload_ids": [7]}, 201)
    site.routes["/ls/api/import/file-upload/7"] = lambda handler: documents(handler, {"file": "upload/4/1f-a_b.png"})
    assert studio.upload_file("4", "a b.png", b"content") == "/data/upload/4/1f-a_b.png"
    assert b"content" in site.seen[1].body
    assert site.seen[1].target.endswith("?commit_to_project=false")
    site.routes[upload] = lambda handler: documents(handler, {"detail": "too large"}, 400)
    with pytest.raises(ImageError, match=r"Label Studio refuses it \(too large\)"):
        studio.upload_file("4", "a b.png", b"content")
    site.routes[upload] = lambda handler: documents(handler, {"task_count": 1}, 201)
    studio.add_task("4", {"image": "/data/upload/4/1f-a_b.png"})
    assert json.loads(site.seen[-1].body) == [{"data": {"image": "/data/upload/4/1f-a_b.png"}}]


def test_an_import_may_take_longer_than_other_requests(site: Site, studio: LabelStudioClient) -> None:
    def take(handler: BaseHTTPRequestHandler) -> None:
        threading.Event().wait(0.7)
        documents(handler, {"created": 1}, 201)

    site.routes["/ls/api/projects/4/import/predictions"] = take
    studio.add_predictions("4", [{"task": 1}])
    assert len(site.seen) == 2, "the token, and one try"


def test_an_import_has_a_timeout(site: Site) -> None:
    released = threading.Event()
    expected = "cannot import predictions into project 4: .* did not answer within 1 s: check that it is running"

    def wait(handler: BaseHTTPRequestHandler) -> None:
        released.wait(30)

    site.routes["/api/projects/4/import/predictions"] = wait
    access = LabelStudioAccess(site.url, "0123abcd")
    with (
        closing(LabelStudioClient(access, import_timeout=1)) as studio,
        pytest.raises(LabelStudioError, match=expected),
    ):
        studio.add_predictions("4", [{"task": 1}])
    released.set()


def test_predictions_that_are_not_imported_are_counted(site: Site, studio: LabelStudioClient) -> None:
    site.routes["/ls/api/projects/4/import/predictions"] = lambda handler: documents(handler, {"created": 1}, 201)
    with pytest.raises(
        LabelStudioError, match="imported 1 of 2 predictions into project 4: check that they fit its labelling"
    ):
        studio.add_predictions("4", [{"task": 1}, {"task": 2}])


def test_an_import_is_not_repeated(site: Site, studio: LabelStudioClient) -> None:
    site.routes["/ls/api/projects/4/import/predictions"] = reply(500)
    with pytest.raises(
        LabelStudioError, match=r"cannot import predictions into project 4: .* answered 500: see Label Studio's log"
    ):
        studio.add_predictions("4", [{"task": 1}])
    assert len(site.seen) == 2, "the token, and one try"


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            401,
            {"detail": "Token is  invalid"},
            r"answered 401 \(Token is invalid\): set LABEL_STUDIO_API_KEY to a p",
        ),
        (403, {"detail": "no"}, r"answered 403 \(no\): set LABEL_STUDIO_API_KEY to the token of a user who may see"),
        (404, "<html>", r"^cannot .*4: .* answered 404: check that it exists"),
        (
            400,
            {"detail": "bad", "validation_errors": ["x" * 999]},
            r"answered 400 \(\['x{298}\): see Label Studio's",
        ),
        (302, "", r"answered 302: set LABEL_STUDIO_URL to the address that it redirects to"),
        (200, "<html>", r"^cannot .*4: .* sent an unexpected response: check that LABEL_STUDIO_URL is the address of"),
    ],
)
@pytest.mark.parametrize("ask", ASK)
def test_a_refusal_is_named_with_the_remedy(
    site: Site,
    studio: LabelStudioClient,
    ask: Callable[[LabelStudioClient], object],
    status: int,
    body: object,
    message: str,
) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    for path in ("projects/4/", "predictions/4/", "predictions/", "tasks/", "projects/4/import/predictions"):
        site.routes[f"/ls/api/{path}"] = reply(status, content.encode(), {"Location": "http://127.0.0.1:1/"})
    with pytest.raises(LabelStudioError, match=message) as caught:
        ask(studio)
    assert PERSONAL not in str(caught.value)
    assert ACCESS not in str(caught.value)


def test_a_token_that_cannot_be_exchanged_is_named_with_the_remedy(site: Site, studio: LabelStudioClient) -> None:
    site.routes["/ls/api/token/refresh/"] = lambda handler: documents(handler, {"detail": "Token is invalid"}, 401)
    with pytest.raises(LabelStudioError, match=r"answered 401 \(Token is invalid\): .*, copied in full") as caught:
        studio.label_config("4")
    assert PERSONAL not in str(caught.value)


def test_another_server_is_named_with_the_remedy(site: Site, studio: LabelStudioClient) -> None:
    site.routes["/ls/api/token/refresh/"] = reply(404, b"<html>")
    with pytest.raises(
        LabelStudioError,
        match=r"cannot read project 4: .* answered 404: check .* that LABEL_STUDIO_URL is the address of a Label",
    ):
        studio.label_config("4")


def test_json_nested_too_deep_is_refused(site: Site, studio: LabelStudioClient) -> None:
    site.routes["/ls/api/projects/4/"] = reply(200, b"[" * 100_000)
    with pytest.raises(LabelStudioError, match=r"cannot read project 4: .* sent an unexpected response"):
        studio.label_config("4")


@pytest.mark.parametrize("token", ["", jwt(token_type="refresh", exp=10**9)])
def test_without_a_valid_token_nothing_is_requested(token: str) -> None:
    with pytest.raises(LabelStudioError, match="set LABEL_STUDIO_API_KEY to a personal access token"):
        LabelStudioClient(LabelStudioAccess("http://127.0.0.1:1", token))


def test_an_unreachable_label_studio_is_named_with_the_remedy(delays: list[float]) -> None:
    access = LabelStudioAccess(f"http://127.0.0.1:{free_port()}", PERSONAL)
    expected = r"cannot read project 4: .* cannot be reached \(.*\): check that it is running"
    with closing(LabelStudioClient(access)) as studio, pytest.raises(LabelStudioError, match=expected):
        studio.label_config("4")
    assert delays == [1, 2]


def test_requests_have_a_timeout(site: Site, studio: LabelStudioClient) -> None:
    released = threading.Event()

    def wait(handler: BaseHTTPRequestHandler) -> None:
        released.wait(30)

    site.routes["/ls/api/projects/4/"] = wait
    with pytest.raises(
        LabelStudioError, match=r"cannot read project 4: .* did not answer within 0\.5 s: check that it is running"
    ):
        studio.label_config("4")
    released.set()


JSON_VALUES: list[object] = [None, True, 7, 0.5, "text", [], {}, [1], [None], ["a"], [[]], [{}],
               {"tasks": {}}, {"tasks": [1]},
               {"tasks": [{}]}, {"tasks": [{"id": "1", "data": {}}]}, {"tasks": [{"id": True, "data": {}}]},
               {"tasks": [{"id": 1}]}, {"tasks": None},
               *({"tasks": [{"id": 1, "data": {}, "predictions_model_versions": odd}]} for odd in ({"a": 1}, ["a"], 7)),
               {"model_version": ["v"], "label_config": 5},
               [{"id": 1, "model_version": 7}], [{"id": None, "model_version": "v"}]]  # fmt: skip
EMPTY: dict[int, list[object]] = {4: [], 5: [[]]}  # answers of an ASK that say that there is nothing


@pytest.mark.parametrize("document", JSON_VALUES, ids=json.dumps)
@pytest.mark.parametrize("index", [0, 1, 2, 4, 5])
def test_an_answer_of_another_shape_is_refused(
    site: Site, studio: LabelStudioClient, index: int, document: object
) -> None:
    for path in ("projects/4/", "predictions/4/", "predictions/", "tasks/"):
        site.routes[f"/ls/api/{path}"] = lambda handler: documents(handler, document)
    if document in EMPTY.get(index, []):
        return
    with pytest.raises(LabelStudioError, match="sent an unexpected response: check that LABEL_STUDIO_URL"):
        ASK[index](studio)


def test_an_answer_that_is_not_compressed_as_it_says_is_refused(site: Site, studio: LabelStudioClient) -> None:
    site.routes["/ls/api/projects/4/"] = reply(200, b"{}", {"Content-Encoding": "gzip"})
    with pytest.raises(LabelStudioError, match=r"cannot read project 4: .* unexpected response"):
        studio.label_config("4")


@pytest.mark.parametrize("moment", ["yesterday", [1], 7])
def test_a_time_of_creation_that_is_none_is_refused(site: Site, studio: LabelStudioClient, moment: object) -> None:
    site.routes["/ls/api/projects/4/"] = lambda handler: documents(handler, {"created_at": moment})
    with pytest.raises(LabelStudioError, match=r"cannot read project 4: .* unexpected response"):
        studio.created("4")


def test_annotated_tasks_are_counted(site: Site, studio: LabelStudioClient) -> None:
    site.routes["/ls/api/projects/4/"] = lambda handler: documents(handler, {"num_tasks_with_annotations": 7})
    assert studio.annotated_count("4") == 7
    site.routes["/ls/api/projects/4/"] = lambda handler: documents(handler, {"num_tasks_with_annotations": "7"})
    with pytest.raises(LabelStudioError, match=r"cannot read project 4: .* unexpected response"):
        studio.annotated_count("4")


@pytest.mark.parametrize("document", [{}, {"detail": "odd"}, None, 3, "text", [1], [[]]], ids=json.dumps)
def test_annotations_that_are_no_list_of_objects_are_refused(
    site: Site, studio: LabelStudioClient, document: object
) -> None:
    pages = iter([{"tasks": [{"id": 5, "data": {}}]}, {"tasks": []}])
    site.routes["/ls/api/tasks/"] = lambda handler: documents(handler, next(pages))
    site.routes["/ls/api/tasks/5/annotations/"] = lambda handler: documents(handler, document)
    with pytest.raises(LabelStudioError, match=r"cannot list the annotations of task 5: .* unexpected response"):
        list(studio.annotations("4"))


def test_pages_without_an_end_end_the_list(site: Site, studio: LabelStudioClient) -> None:
    def tasks(handler: BaseHTTPRequestHandler) -> None:
        query = json.loads(parse_qs(urlsplit(site.seen[-1].target).query)["query"][0])
        last = query["filters"]["items"][-1]["value"]
        page = [{"id": last + number, "data": {}} for number in range(1, 101)]
        documents(handler, {"tasks": page, "total": 150, "total_annotations": 0, "total_predictions": 0})

    site.routes["/ls/api/tasks/"] = tasks
    with pytest.raises(LabelStudioError, match=r"counted 150 and sent 500 without an end: check that LABEL_STUDIO_URL"):
        list(studio.unannotated_tasks("4"))


@pytest.mark.parametrize("ids", [[5], [5, 7], [7, 5], [0, 5], [5, 5], [-1]])
def test_pages_that_do_not_advance_end_the_list(site: Site, studio: LabelStudioClient, ids: list[int]) -> None:
    page = {"tasks": [{"id": task_id, "data": {}} for task_id in ids]}
    site.routes["/ls/api/tasks/"] = lambda handler: documents(handler, page)
    with pytest.raises(LabelStudioError, match=r"sent task -?\d after task \d, although later ones were asked for"):
        list(studio.unannotated_tasks("4"))
    assert len(site.seen) <= 3


def test_an_answer_that_is_too_large_is_refused_with_the_remedy(site: Site) -> None:
    site.routes["/api/projects/4/"] = reply(headers={"Content-Length": str(3 << 30)})
    expected = "sent a response of more than 128000000 bytes: check that LABEL_STUDIO_URL"
    with (
        closing(LabelStudioClient(LabelStudioAccess(site.url, "0123abcd"))) as studio,
        pytest.raises(LabelStudioError, match=expected),
    ):
        studio.label_config("4")
