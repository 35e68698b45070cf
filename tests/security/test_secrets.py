"""No secret of a reference or a task comes into the log, the metrics, the answers or the list of failures."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.backend import SETUP, Backend, predict_body, running
from tests.builders.bulk import make_plan, quick_segmenter
from walkcut.bulk.checkpoint import FAILED, open_checkpoint
from walkcut.bulk.runner import run, run_settings
from walkcut.bulk.sinks import Sink
from walkcut.bulk.sources.scan import read_sources
from walkcut.bulk.workers import make_full_worker
from walkcut.errors import ImageError
from walkcut.images import DecodeLimits, FetchPolicy, LabelStudioAccess, decode, redact
from walkcut.images.fetch import Fetcher
from walkcut.settings import Settings

SECRET = "mArKeR"

SCHEME = st.sampled_from(["http://", "https://", "HTTPS://", "http:/", "http:\\\\", "//", "", "s3://", " http://"])
HOST = st.sampled_from(["h.invalid", "127.0.0.1:1", "h", "[::1]:1", "[::1", "bücher.invalid", ""])
PATH = st.sampled_from(["/a.jpg", "/b/c d.jpg", "", "/@scope/a.jpg", "/a@2x.png"])
SEPARATOR = st.sampled_from(["", "/", "?", "#", "@", ":", "%2F", " "])
USER = st.builds("{}{}{}{}".format, st.sampled_from(["me:", "", "me:x", ":"]), SEPARATOR, st.just(SECRET), SEPARATOR)
QUERY = st.sampled_from(
    ["?{}", "?sig={}", "?a=1&b={}#c", "#{}", ";s={}", "%3Fsig={}", "&X-Amz-Signature={}", "?a=x@{}"]
)
SIGNED = QUERY.map(lambda form: form.format(SECRET))
LABEL_STUDIO = st.sampled_from(
    ["/data/upload/1/a.jpg", "/ls/data/upload/1/a.jpg", "//data/upload/1/a.jpg", "/data/local-files/?d=a.jpg",
     "/data/local-files/?x=1&d=a.jpg", "/storage-data/uploaded/?filepath=a", "/tasks/5/presign/?fileuri=a"]
)  # fmt: skip
TEXT = st.one_of(
    st.builds("{}{}@{}{}".format, SCHEME, USER, HOST, PATH),
    st.builds("{}{}{}{}".format, SCHEME, HOST, PATH, SIGNED),
    st.builds("{}h:{}{}".format, SCHEME, st.just(SECRET), PATH),
    st.builds("{}me:1/{}@h{}".format, SCHEME, st.just(SECRET), PATH),
    st.builds("{}me%3A{}%40h{}".format, SCHEME, st.just(SECRET), PATH),
    st.builds("{}{}".format, st.sampled_from(["/data/upload/1/a.jpg", "/ls//data/upload/1/a.jpg"]), SIGNED),
    st.builds("{}{}".format, LABEL_STUDIO, st.sampled_from([f"&sig={SECRET}", f"?{SECRET}", f"#{SECRET}"])),
    st.builds("{}{}".format, st.sampled_from(["h/a.png%3Fsig=", "me:x/"]), st.just(f"{SECRET}@h/a.png")),
    st.sampled_from(["data:{}", "data:text/plain,{}", "data:image/png;base64,{}*", "DATA:{},x", " data:;x={},"]).map(
        lambda form: form.format(SECRET)
    ),
)
REFERENCE = st.recursive(
    TEXT,
    lambda inner: st.lists(inner, min_size=1, max_size=2) | st.dictionaries(st.sampled_from(["url", SECRET]), inner),
    max_leaves=3,
)
FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def is_hidden(text: str) -> bool:
    return SECRET.lower() not in text.lower()


@given(REFERENCE)
@settings(max_examples=500, deadline=None)
def test_references_are_redacted(reference: object) -> None:
    assert is_hidden(redact(reference))


@given(REFERENCE)
@FEW
def test_errors_of_fetching_hide_secrets(reference: object) -> None:
    policy = FetchPolicy(timeout=0.2, connect_timeout=0.1, local_files_root=Path("/nowhere"))
    for access in (None, LabelStudioAccess("http://127.0.0.1:1")):
        with pytest.raises(ImageError) as caught:
            decode(Fetcher(policy, access, resolve=lambda host, port: ()).fetch(reference, 5), DecodeLimits())
        assert is_hidden(str(caught.value))


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running(tmp_path_factory.mktemp("state"), Settings()) as backend:
        yield backend


@given(REFERENCE, st.sampled_from(["id", "updated_at", "data", "photo", "task", "annotation"]))
@FEW
def test_the_server_hides_secrets(backend: Backend, caplog: pytest.LogCaptureFixture, value: Any, place: str) -> None:
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    client = backend.client
    typed = predict_body(value)
    typed["params"]["context"] = {"result": [{"type": "textarea", "value": {"text": ["fine"]}}]}
    task: dict[str, Any] = {"id": 1, "data": {"photo": value}, "project": 3}
    annotation: dict[str, Any] = {"id": 5, "updated_at": "2026-11-20T08:38:56Z", "result": []}
    if place in ("task", "data", "photo"):
        task = {"task": value, "data": {**task, "data": value}, "photo": task}[place]
    else:
        annotation = value if place == "annotation" else {**annotation, place: value}
    event = {"action": "ANNOTATION_CREATED", "task": task, "annotation": annotation, "project": {"id": 3}}
    answers = [
        client.post("/setup", json=SETUP),
        client.post("/predict", json=predict_body(value)),
        client.post("/predict", json={**predict_body(), "tasks": [task]}),
        client.post("/predict", json=typed),
        client.post("/webhook", json=event),
        client.get("/metrics"),
        client.get("/versions"),
    ]
    assert all(is_hidden(answer.get_data(as_text=True) + answer.status) for answer in answers)
    assert is_hidden(caplog.text)


@given(st.lists(REFERENCE, min_size=1, max_size=4))
@settings(parent=FEW, max_examples=20)
def test_a_run_hides_secrets(tmp_path_factory: pytest.TempPathFactory, caplog: Any, references: list[Any]) -> None:
    caplog.clear()
    folder = tmp_path_factory.mktemp("run")
    rows = [row for reference in references for row in ({"image": reference}, reference)]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plan = make_plan()
    worker = make_full_worker(plan, folder, quick_segmenter)
    with open_checkpoint(folder / "out", run_settings(plan)) as checkpoint:
        jobs = read_sources([str(folder / "list.jsonl")])
        run(jobs, lambda jobs: map(worker, jobs), checkpoint, Sink(checkpoint, plan.output_format))
    failures = (folder / "out" / FAILED).read_text()
    assert failures
    assert is_hidden(failures)
    assert is_hidden(caplog.text)
