import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.builders.backend import (
    CONFIG,
    IMAGE,
    SETUP,
    Backend,
    basic,
    document,
    listening,
    predict_body,
    running,
    text_command,
)
from tests.builders.models import CountingBackbone, GatedModel
from tests.builders.processes import wait_for
from tests.builders.scenes import data_url, png, quarters
from walkcut.images import FetchPolicy, ImageLoader
from walkcut.settings import Settings
from walkcut.storage import ProjectStore


def test_health_says_up(backend: Backend) -> None:
    assert backend.client.get("/health").json == {"status": "UP", "model_class": "walkcut"}
    assert backend.client.get("/").json == backend.client.get("/health").json


def test_only_the_last_prediction_has_the_version_of_set_up(backend: Backend) -> None:
    version = backend.set_up()
    (predictions,) = backend.predict(IMAGE)
    assert [prediction["model_version"] == version for prediction in predictions] == [False, False, False, True]


def test_names_and_labels_are_those_of_the_config(backend: Backend) -> None:
    region = backend.predict(IMAGE)[0][-1]["result"][0]
    assert (region["from_name"], region["to_name"], region["value"]["brushlabels"]) == ("b", "im", ["Part"])
    assert (region["original_width"], region["original_height"]) == (40, 30)


def test_there_is_a_result_for_each_task_even_if_it_fails(backend: Backend) -> None:
    broken = (
        data_url(b"no image"),
        data_url(png(quarters(30, 40))[:200]),
        data_url(b""),
        None,
        ["a", "b"],
        "file:///etc/passwd",
    )
    results = backend.predict(IMAGE, *broken, IMAGE)
    assert [len(predictions) for predictions in results] == [4, 0, 0, 0, 0, 0, 0, 4]
    assert backend.predict() == []


def test_predictions_are_plain_json(backend: Backend) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    answer = backend.client.post("/predict", json=predict_body(IMAGE))
    assert json.loads(answer.text, parse_constant=refuse)["results"][0]


def test_settings_of_a_project_change_its_version_and_the_default(backend: Backend) -> None:
    plain = backend.set_up()
    fine = backend.set_up(extra_params='{"granularity": "fine"}')
    assert backend.predict(IMAGE)[0][-1]["model_version"] == fine
    assert backend.set_up(extra_params={"max_regions": 1}) not in {plain, fine}
    assert {len(prediction["result"]) for prediction in backend.predict(IMAGE)[0]} == {1}
    assert backend.set_up(extra_params="") == plain
    attributes = CONFIG.format(' granularity="coarse"')
    assert backend.set_up(schema=attributes).startswith("coarse")
    assert backend.predict(IMAGE, label_config=attributes)[0][-1]["model_version"].startswith("coarse")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "<View/>"}, "needs a control that takes regions"),
        ({"schema": None}, 'needs "schema"'),
        ({"extra_params": {"granularity": "tiny"}}, "use auto, coarse"),
        ({"extra_params": '{"max_regions": NaN}'}, "max_regions is 'nan': write a whole number, such as 40"),
        ({"extra_params": {"min_area": "small"}}, "min_area is 'small': write a number, such as 0.0005"),
        ({"extra_params": "garbage"}, "the extra parameters are text: write an object"),
    ],
)
def test_set_up_refuses_unusable_values_with_the_remedy(
    backend: Backend, changes: dict[str, Any], message: str
) -> None:
    answer = backend.client.post("/setup", json=SETUP | changes)
    assert answer.status_code == 400
    assert message in document(answer)["error"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/predict", b"no json", "must be a JSON object"),
        ("/predict", b"[1]", "must be a JSON object"),
        ("/predict", b"{}", 'needs \\"tasks\\"'),
        ("/predict", b'{"tasks": []}', 'needs \\"label_config\\"'),
        ("/predict", b'{"tasks": [], "label_config": "<View/>"}', "needs a control that takes regions"),
        ("/setup", b"\xff\x00", "must be a JSON object"),
        ("/webhook", b"no json", "must be a JSON object"),
        ("/predict", b'{"tasks": [' + b"9" * 5000 + b"]}", 'value has 5000 digits"'),
    ],
)
def test_requests_out_of_the_protocol_are_answered_with_the_remedy(
    backend: Backend, path: str, body: bytes, message: str
) -> None:
    answer = backend.client.post(path, data=body)
    assert answer.status_code == 400
    assert message in json.dumps(document(answer)["error"])
    assert backend.predict(IMAGE)[0]


@pytest.mark.parametrize(
    ("context", "regions"),
    [("", 0), ({"result": []}, 0), ({"result": [{"type": "textarea", "value": {"text": ["3"]}}]}, 3)],
)
def test_an_annotators_call_is_answered_with_regions(backend: Backend, context: object, regions: int) -> None:
    (answer,) = backend.predict(IMAGE, params={"context": context})
    assert len(answer["result"]) == regions


def test_an_annotator_is_never_answered_with_an_error(backend: Backend) -> None:
    (answer,) = backend.predict("gone.jpg", params={"context": text_command("3")})
    assert answer["result"] == []


def event(annotation_id: int, **changes: Any) -> dict[str, Any]:
    """Return the event of a new annotation in project 3."""
    annotation = {"id": annotation_id, "updated_at": "2026-11-20T08:38:56Z", "result": []} | changes
    task = {"id": 9, "data": {"photo": IMAGE}}
    return {"action": "ANNOTATION_CREATED", "project": {"id": 3}, "task": task, "annotation": annotation}


def test_annotations_are_stored_to_be_learned_from(backend: Backend) -> None:
    for annotation_id in (1, 2):
        assert backend.client.post("/webhook", json=event(annotation_id)).status_code == 200
    assert list(backend.store.annotations.known("3")) == [1, 2]


def test_annotations_that_cannot_be_read_are_set_aside(backend: Backend) -> None:
    assert backend.client.post("/webhook", json=event(1, updated_at="soon")).status_code == 200
    (aside,) = backend.store.annotations.list_set_aside("3")
    assert (aside.annotation_id, aside.task_id, "updated_at is text that is not a time" in aside.problem) == (
        1,
        9,
        True,
    )


@pytest.mark.parametrize("action", ["\0\ud800", None, {"a": 1}, "x" * 100, "PROJECT_UPDATED"])
def test_other_events_are_ignored(backend: Backend, action: object) -> None:
    for project in (3, None):
        assert backend.client.post("/webhook", json={"action": action, "project": project}).status_code == 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotation": {}}, "a document needs a number as its id"),
        ({"project": "x"}, "an event needs the id of its"),
        ({"action": "ANNOTATIONS_DELETED"}, "a deletion needs the list of what was deleted: it has null"),
    ],
)
def test_events_that_name_no_annotation_or_project_are_refused(
    backend: Backend, changes: dict[str, Any], message: str
) -> None:
    answer = backend.client.post("/webhook", json=event(1) | changes)
    assert (answer.status_code, message in document(answer)["error"]) == (400, True)


def test_nothing_is_stored_if_no_project_learns(tmp_path: Path) -> None:
    with running(tmp_path, Settings(learning=False)) as backend:
        assert document(backend.client.post("/webhook", json=event(1))) == {"status": "ignored"}
        assert backend.store.annotations.known("3") == {}


DELETIONS = [
    {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 1}]},
    {"action": "TASKS_DELETED", "tasks": [{"id": 9}]},
    {"action": "PROJECT_DELETED"},
    event(1, was_cancelled=True),
    event(1, was_cancelled=True) | {"action": "ANNOTATION_UPDATED"},
]


@pytest.mark.parametrize("deletion", DELETIONS)
def test_deletions_are_carried_out_also_while_learning_is_off(tmp_path: Path, deletion: dict[str, Any]) -> None:
    with running(tmp_path, Settings()) as backend:
        assert backend.client.post("/webhook", json=event(1)).status_code == 200
    with running(tmp_path, Settings(learning=False)) as backend:
        answer = backend.client.post("/webhook", json={"project": {"id": 3}} | deletion)
        assert document(answer) == {"status": "stored"}
        assert backend.store.annotations.known("3") == {}


def test_the_setup_is_saved_under_the_projects_id(backend: Backend) -> None:
    backend.set_up(extra_params={"max_regions": 3})
    assert backend.store.label_config("3") == SETUP["schema"]
    assert backend.store.extra_params("3") == {"max_regions": 3}


def versions(backend: Backend, query: str = "") -> list[str]:
    return list(document(backend.client.get(f"/versions{query}"))["versions"])


def test_versions_are_those_that_the_last_set_up_of_a_project_returned(tmp_path: Path) -> None:
    with running(tmp_path, Settings()) as backend:
        assert versions(backend) == versions(backend, "?project=3") == []
        assert backend.set_up() == versions(backend, "?project=3")[-1]
        assert [version.split(" ")[0] for version in versions(backend)] == ["auto", "coarse", "fine", "medium"]
        for max_regions in range(1, 9):
            version = backend.set_up(project="4.1", extra_params={"max_regions": max_regions})
    with running(tmp_path, Settings()) as again:
        assert version == versions(again, "?project=4")[-1]
        assert len(versions(again, "?project=3.1795163936")) == len(versions(again, "?project=4")) == 4
        assert sorted(versions(again)) == sorted(versions(again, "?project=3") + versions(again, "?project=4"))
        assert versions(again, "?project=5") == []
        answer = again.client.get("/versions?project=abc")
        assert (answer.status_code, "'abc' is no project" in document(answer)["error"]) == (400, True)
        again.store.forget("4")
        assert len(versions(again)) == 4


def test_versions_are_bounded(backend: Backend) -> None:
    for number in range(60):
        backend.store.save_versions(str(number), [f"auto {number:06x}", f"fine {number:06x}"])
    assert len(versions(backend)) == 100


def test_metrics_count_requests_and_tasks(backend: Backend) -> None:
    backend.predict(IMAGE, None)
    text = backend.client.get("/metrics").text
    assert 'walkcut_requests_total{endpoint="predict",status="200"} 1.0' in text
    assert 'walkcut_tasks_total{outcome="predicted"} 1.0' in text
    assert 'walkcut_tasks_total{outcome="failed"} 1.0' in text


def test_predictions_are_timed_by_caller(backend: Backend) -> None:
    backend.predict(IMAGE)
    backend.predict("gone.jpg", params={"context": text_command("3")})
    backend.predict(IMAGE, None)
    assert backend.sample("walkcut_predict_seconds_count", caller="annotator") == 2
    assert backend.sample("walkcut_predict_seconds_count", caller="batch") == 1


def test_the_feedback_workers_backlog_is_measured(backend: Backend) -> None:
    backend.set_up()
    for number in range(20):
        backend.client.post("/webhook", json=event(number))
    backend.client.post("/webhook", json=event(20, updated_at="soon"))
    waiting = []
    for _ in range(2):
        backend.feedback_worker.learn_due()
        waiting.append([backend.sample(f"walkcut_annotations_{state}") for state in ("pending", "set_aside")])
    assert waiting == [[4, 1], [0, 1]]


def test_failures_are_counted_by_reason_and_stages_timed(backend: Backend) -> None:
    backend.predict(IMAGE, None, "gone.jpg")
    backend.predict("gone.jpg", params={"context": text_command("3")})
    backend.client.post("/setup", json={})
    assert backend.sample("walkcut_failures_total", reason="ImageFetchError") == 2
    assert backend.sample("walkcut_failures_total", reason="RequestError") == 2  # a task without an image, a set-up
    assert backend.sample("walkcut_stage_seconds_count", stage="decode") == 1
    assert backend.sample("walkcut_stage_seconds_count", stage="encode") == 4


def test_the_last_failure_of_each_kind_is_told_to_callers_with_credentials(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, token="abc")
    with running(tmp_path, settings) as backend:
        known = {"Authorization": "Bearer abc"}
        backend.client.post("/predict", json=predict_body(None, "gone.jpg"), headers=known)
        assert backend.client.get("/ready").json == {"status": "READY"}
        failures = document(backend.client.get("/ready", headers=known))["failures"]
        assert [failure.split(":")[0] for failure in failures] == [
            "1 RequestError, the last", "1 ImageFetchError, the last"
        ]  # fmt: skip
        assert "task 1 has no image: data.photo is missing; set it to" in failures[0]


def test_controls_that_are_left_out_are_logged_once_for_each_config(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    second = '<PolygonLabels name="p" toName="im"/></View>'
    for _ in range(2):
        backend.set_up(schema=CONFIG.format("").replace("</View>", second))
    assert (
        caplog.text.count("project 3: <PolygonLabels name='p'> is left out: <PolygonLabels name='p'> needs a <Label")
        == 1
    )


def lose_database(backend: Backend, folder: Path) -> None:
    """Replace the database with one that cannot be opened."""
    backend.store.close()
    for file in folder.glob("walkcut.sqlite3*"):
        file.unlink()
    (folder / "walkcut.sqlite3").mkdir()


def test_an_unavailable_database_is_reported_and_counted(
    backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[str] = []
    monkeypatch.setattr(backend.feedback_worker.synchronizer, "request", lambda: syncs.append("soon"))
    assert backend.client.post("/webhook", json=event(1)).status_code == 200
    assert not syncs
    lose_database(backend, tmp_path)
    answer = backend.client.post("/webhook", json=event(2))
    expected = {"error": "walkcut cannot answer now: try again; its log has the details"}
    assert (answer.status_code, answer.json) == (503, expected)
    assert [backend.sample("walkcut_events_total", outcome=outcome) for outcome in ("stored", "lost")] == [1, 1]
    assert "ANNOTATION_CREATED not stored; a sync" in caplog.text
    assert syncs == ["soon"]
    assert "Traceback" not in caplog.text


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"")


@pytest.mark.parametrize(
    ("lose", "reason"),
    [
        (
            lambda backend, folder: setattr(
                backend.predictor.tree_service._model, "unavailable_reason", "it is loading"
            ),
            "model: it is",
        ),
        (lambda backend, folder: backend.predictor.tree_service.stop_accepting(), "model: shutting down"),
        (lambda backend, folder: replace_by_file(folder / "state"), "state folder: it cannot be written (File exists"),
    ],
)
def test_a_backend_that_cannot_answer_new_images_is_alive_but_not_ready(
    tmp_path: Path, lose: Callable[[Backend, Path], None], reason: str
) -> None:
    (tmp_path / "state").mkdir()
    with running(tmp_path, Settings(state_dir=tmp_path / "state"), model=GatedModel()) as backend:
        answer = backend.client.get("/ready")
        assert (answer.status_code, answer.json) == (200, {"status": "READY"})
        lose(backend, tmp_path)
        answer = backend.client.get("/ready")
        assert answer.status_code == 503
        (actual,) = document(answer)["reasons"]
        assert actual.startswith(reason)
        assert backend.client.get("/health").status_code == 200


NO_DATABASE = "database: it does not answer: predictions go on, nothing is learned"


def test_without_a_database_images_are_answered_and_ready_tells(tmp_path: Path, backend: Backend) -> None:
    version = backend.set_up(extra_params={"max_regions": 2})
    (before,) = backend.predict(IMAGE)
    lose_database(backend, tmp_path)
    assert backend.predict(IMAGE) == [before]
    assert len(backend.predict(data_url(png(quarters(30, 44))))[0][-1]["result"]) == 2
    assert backend.set_up(extra_params={"max_regions": 2}) == version
    answer = backend.client.get("/ready")
    assert (answer.status_code, answer.json) == (200, {"status": "READY", "reasons": [NO_DATABASE]})


def test_the_reasons_are_for_the_log_and_callers_with_credentials(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(state_dir=tmp_path, basic_auth_user="me", basic_auth_pass="geheim", token="abc")
    with running(tmp_path, settings, model=GatedModel()) as backend:
        get, known = backend.client.get, ({"Authorization": "Bearer abc"}, basic("me", "geheim"))
        for headers in ({}, *known):
            answer = get("/ready", headers=headers)
            assert (answer.status_code, answer.json) == (200, {"status": "READY"})
        lose_database(backend, tmp_path)
        for headers in ({}, basic("me", "wrong"), {"Authorization": "Bearer geheim"}):
            answer = get("/ready", headers=headers)
            assert (answer.status_code, answer.json) == (200, {"status": "READY"})
        for headers in known:
            answer = get("/ready", headers=headers)
            assert (answer.status_code, document(answer)["reasons"]) == (200, [NO_DATABASE])
    assert f"ready, with problems: {NO_DATABASE}" in caplog.text


def test_tasks_are_handed_back_at_shutdown(backend: Backend) -> None:
    backend.predict(IMAGE)
    backend.predictor.tree_service.stop_accepting()
    known, new = backend.predict(IMAGE, data_url(png(quarters(30, 44))))
    assert (len(known), new) == (4, [])


def batch(image: str) -> dict[str, Any]:
    """Return the body of a call for two tasks, both of this image."""
    body = predict_body(image)
    return body | {"tasks": body["tasks"] * 2}


def test_an_opened_task_does_not_wait_behind_batches(tmp_path: Path) -> None:
    begun, resume = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert resume.wait(60)

    images = [data_url(png(quarters(30, 40 + index))) for index in range(6)]
    order: list[str] = []

    def ask(url: str, name: str, body: dict[str, Any]) -> None:
        assert all(requests.post(f"{url}/predict", json=body, timeout=60).json()["results"])
        order.append(name)

    with running(tmp_path, Settings(threads=9), CountingBackbone(hook=wait)) as backend, listening(backend, 9) as url:
        bodies = [("batch", batch(image)) for image in images[:4]]
        callers = [threading.Thread(target=ask, args=(url, *named)) for named in bodies]
        for caller in callers:
            caller.start()
        wait_for("4 predictions", lambda: begun.is_set() and backend.sample("walkcut_predicting") == 4, 60)
        opening = threading.Thread(target=ask, args=(url, "opened", predict_body(images[5])))
        opening.start()
        wait_for("5 predictions", lambda: backend.sample("walkcut_predicting") == 5, 60)
        resume.set()
        for caller in (*callers, opening):
            caller.join(60)
    assert order.index("opened") <= 1, "the running one may end before it"


def test_tasks_that_come_while_all_threads_predict_are_counted_with_the_reason(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("walkcut.serving.app.threading.BoundedSemaphore.acquire", lambda *_, **__: False)
    assert backend.predict(IMAGE, IMAGE) == [[], []]
    assert backend.sample("walkcut_tasks_total", outcome="busy") == 2
    assert backend.sample("walkcut_failures_total", reason="BusyError") == 1
    (failure,) = document(backend.client.get("/ready"))["failures"]
    assert failure.startswith("1 BusyError, the last: too many calls at once: 2 tasks")


def test_health_and_set_up_answer_while_predictions_wait_for_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, resume = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert resume.wait(60)

    threads = 9  # four for batches, one for annotators
    images = [data_url(png(quarters(30, 40 + index))) for index in range(6)]
    batches, suggestions = [batch(image) for image in images[:4]], predict_body(images[5])
    suggestions["params"] = {"context": text_command("3")}
    answers: list[Any] = []

    def ask(url: str, body: dict[str, Any]) -> None:
        answers.append(requests.post(f"{url}/predict", json=body, timeout=60).json()["results"])

    read, extra_params = list[str](), ProjectStore.extra_params

    def counted(store: ProjectStore, project_id: str) -> dict[str, Any]:
        read.append(project_id)
        return extra_params(store, project_id)

    monkeypatch.setattr(ProjectStore, "extra_params", counted)
    with (
        running(tmp_path, Settings(threads=threads), CountingBackbone(hook=wait)) as backend,
        listening(backend, threads) as url,
    ):
        callers = [threading.Thread(target=ask, args=(url, body)) for body in (*batches, suggestions)]
        for caller in callers:
            caller.start()
        assert begun.wait(60)
        wait_for("5 predictions", lambda: backend.sample("walkcut_predicting") == len(read) == 5, 60)
        ask(url, batch(images[4]))
        assert answers == [[[], []]], "a call beyond the free threads is handed back at once"
        ask(url, suggestions)
        assert answers[1:] == [[{"result": []}]], "an annotator's call too, as a dict"
        ask(url, predict_body(images[4]))
        assert answers[2:] == [[[]]], "and a call for an opened task"
        assert len(read) == 5, "without the database"
        assert requests.get(f"{url}/health", timeout=30).ok
        assert requests.post(f"{url}/setup", json=SETUP, timeout=30).ok
        resume.set()
        for caller in callers:
            caller.join(60)
    assert sorted(len(answer[0]) for answer in answers[3:]) == [3, 4, 4, 4, 4]  # the annotator's has three keys


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def remove_log(folder: Path) -> None:
    (folder / "walkcut.sqlite3-wal").unlink()


def move_away(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def replace_database(folder: Path) -> None:
    """Put the database of another backend in its place, as one who restores a backup does."""
    ProjectStore(folder.with_name("backup")).close()
    (folder.with_name("backup") / "walkcut.sqlite3").replace(folder / "walkcut.sqlite3")


@pytest.mark.parametrize("lose", [remove, remove_log, move_away, replace_database])
def test_nothing_is_acknowledged_that_is_not_in_the_file_at_the_databases_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lose: Callable[[Path], None]
) -> None:
    folder = tmp_path / "state"
    with running(folder, Settings(state_dir=folder)) as backend:
        backend.set_up()
        assert backend.client.post("/webhook", json=event(1)).status_code == 200
        lose(folder)
        statuses = [backend.client.post("/webhook", json=event(number)).status_code for number in range(2, 6)]
        assert statuses[0] == 503
        assert statuses[-1] == 200
        assert "was removed, replaced or overwritten" in caplog.text
        assert backend.client.get("/ready").get_json()["status"] == "READY"
        another = ProjectStore(folder)
        stored = set(another.annotations.known("3"))
        another.close()
        acknowledged = {number for number, status in enumerate(statuses, 2) if status == 200}
        assert stored >= acknowledged
        assert backend.predict(data_url(png(quarters(31, 41))))[0]
        assert list((folder / "trees").glob("*.tree.npz"))


def test_a_database_that_is_overwritten_is_named_as_damaged(
    backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert backend.client.post("/webhook", json=event(1)).status_code == 200
    (tmp_path / "walkcut.sqlite3").write_bytes(b"")
    assert [backend.client.post("/webhook", json=event(number)).status_code for number in (2, 3)] == [503, 503]
    assert "is damaged" in caplog.text
    assert "`walkcut repair`" in caplog.text
    assert "there is room" not in caplog.text
    assert backend.predict(IMAGE)[0]


OTHER = "3.1795163999"  # project 3 of another Label Studio


def test_a_project_of_another_label_studio_is_refused_by_every_route(tmp_path: Path) -> None:
    created = {"id": 3, "created_at": "2026-11-20T08:38:56.976830Z"}
    with running(tmp_path, Settings()) as backend:
        backend.set_up()
        assert backend.client.post("/webhook", json=event(1) | {"project": created}).status_code == 200
    with running(tmp_path, Settings()) as backend:
        later = created | {"created_at": "2026-11-20T10:39:59+02:00"}
        deletion = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 1}], "project": later}
        requests = [("/setup", SETUP | {"project": OTHER}), ("/predict", predict_body(IMAGE) | {"project": OTHER}),
                    ("/webhook", event(2) | {"project": later}), ("/webhook", deletion)]  # fmt: skip
        for path, body in requests:
            answer = backend.client.post(path, json=body)
            assert answer.status_code == 400, path
            assert "project 3 is another one (created 2026-11-20 08:39:59" in document(answer)["error"]
            assert "one walkcut serves one Label Studio" in answer.status
        assert list(backend.store.annotations.known("3")) == [1]
        assert backend.predict(IMAGE)[0]
        backend.store.forget("3")
        assert backend.set_up(project=OTHER)


def test_a_second_address_of_label_studio_is_refused(backend: Backend) -> None:
    backend.predictor.loader = ImageLoader(FetchPolicy(), None, trusts_callers=True)
    backend.set_up()
    for same in ("HTTP://LocalHost:8080", "http://localhost:08080", "http://localhost:8080/"):
        backend.set_up(hostname=same)
    answer = backend.client.post("/setup", json=SETUP | {"project": "8.17", "hostname": "http://localhost:8081"})
    assert answer.status_code == 400
    assert "walkcut already serves the Label Studio at 'http://localhost:8080/', and" in document(answer)["error"]
    assert "restart walkcut, or set LABEL_STUDIO_URL" in document(answer)["error"]
    assert backend.store.projects() == ["3"]
