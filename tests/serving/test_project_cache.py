import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.builders.feedback import CONFIG
from tests.builders.models import make_predictor
from walkcut.errors import RequestError, StoreError
from walkcut.inference.predictor import Predictor
from walkcut.learning.feedback import AnnotationFeedback, LabelExample
from walkcut.learning.profile import ProjectProfile
from walkcut.serving.project_cache import ProjectCache
from walkcut.storage import AnnotationRow, ProjectStore

ONLY_CAR = CONFIG.replace('<Label value="Sky"/>', "")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProjectStore]:
    opened = ProjectStore(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return make_predictor(tmp_path / "trees")


@pytest.fixture
def projects(predictor: Predictor, store: ProjectStore) -> ProjectCache:
    return ProjectCache(predictor, store)


@pytest.fixture
def save(store: ProjectStore, predictor: Predictor) -> Callable[..., None]:
    """A function that saves feedback of project 3 with one example of a label."""

    def save_example(annotation_id: int, label: str = "Car", segmenter: str = predictor.tree_service.version) -> None:
        updated = datetime(2026, 11, 20, 8, 38, 56, tzinfo=timezone.utc)
        examples = (LabelExample(label, (1.0, 0.0), 0.5, 0.5, 0.5),)
        feedback = AnnotationFeedback("3", annotation_id, annotation_id, updated.isoformat(), segmenter, {}, examples)
        row = AnnotationRow("3", annotation_id, annotation_id, updated, {})
        store.annotations.save(row)
        store.annotations.save_feedback(row, segmenter, [label], feedback.to_json())

    return save_example


def slowly(store: ProjectStore, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> list[str]:
    """Call `meanwhile` whenever feedback is read; return the projects that it was read for."""
    feedback, reads = store.annotations.feedback, list[str]()

    def slow(project_id: str) -> list[dict[str, Any]]:
        reads.append(project_id)
        meanwhile()
        return feedback(project_id)

    monkeypatch.setattr(store.annotations, "feedback", slow)
    return reads


def profile(projects: ProjectCache, project_id: str = "3", config: str = CONFIG) -> ProjectProfile:
    return projects.get(project_id, config).profile


def test_a_profile_is_fitted_to_a_projects_feedback(projects: ProjectCache, save: Callable[..., None]) -> None:
    assert profile(projects) == ProjectProfile()
    save(1)
    save(2, "Sky")
    save(3, "Deleted")
    save(4, "Sky", segmenter="other")
    assert profile(projects).labels_from == {"Car": ((1, 1),), "Sky": ((2, 2),)}
    assert profile(projects, config=ONLY_CAR).labels == ("Car",)
    assert profile(projects, "4") == ProjectProfile()


def test_a_set_up_is_saved_and_used(projects: ProjectCache, store: ProjectStore) -> None:
    for extra_params in ({"max_regions": 3}, {}):
        project = projects.set_up("3", CONFIG, extra_params)
        assert project == projects.get("3", CONFIG)
        assert project.options.max_regions == extra_params.get("max_regions", 40)
        assert (store.label_config("3"), store.extra_params("3")) == (CONFIG, extra_params)


def test_an_unusable_set_up_is_refused_and_not_saved(projects: ProjectCache, store: ProjectStore) -> None:
    with pytest.raises(RequestError, match="the extra parameters cannot be used"):
        projects.set_up("3", CONFIG, {"max_regions": "many"})
    assert store.projects() == []


def test_projects_stay_as_they_were_while_the_database_is_unavailable(
    projects: ProjectCache, store: ProjectStore, save: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise StoreError("the database is away")

    projects.set_up("3", CONFIG, {"max_regions": 3})
    for annotation_id in (1, 2):
        save(annotation_id)
    store.set_learning("4", enabled=False)
    before = [projects.get(project_id, CONFIG) for project_id in "345"]
    with monkeypatch.context() as away:
        for database in (store._database, store.annotations._database):
            away.setattr(database, "transaction", fail)
        assert [projects.get(project_id, CONFIG) for project_id in "345"] == before
        fewer = projects.set_up("3", CONFIG, {"max_regions": 2})
        assert fewer == replace(before[0], options=replace(before[0].options, max_regions=2))
        assert projects.get("3", CONFIG) == fewer
        assert projects.get("3", ONLY_CAR).profile == ProjectProfile(), "its labels are others"
        assert projects.get("6", CONFIG) == before[2], "nothing is known of it"
    assert projects.get("3", CONFIG) == before[0]


def test_feedback_is_read_only_when_it_has_changed(
    projects: ProjectCache, store: ProjectStore, save: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = slowly(store, monkeypatch, lambda: None)
    for annotation_id in (1, 2):
        save(annotation_id)
        for _ in range(3):
            assert len(profile(projects).labels_from["Car"]) == annotation_id
    assert len(reads) == 2


def test_others_use_the_previous_profile_while_one_thread_fits(
    projects: ProjectCache, store: ProjectStore, save: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, resume = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert resume.wait(30)

    previous = profile(projects)
    reads = slowly(store, monkeypatch, wait)
    save(1)
    fitted: list[ProjectProfile] = []
    thread = threading.Thread(target=lambda: fitted.append(profile(projects)))
    thread.start()
    assert begun.wait(30)
    assert profile(projects) is previous
    resume.set()
    thread.join()
    assert fitted[0].labels == ("Car",)
    assert profile(projects) is fitted[0]
    assert len(reads) == 1


def test_a_slow_fit_is_not_repeated_all_the_time(
    projects: ProjectCache, store: ProjectStore, save: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    reads = slowly(store, monkeypatch, lambda: pass_time(2))
    for annotation_id in range(60):
        save(annotation_id)
        profile(projects)
        pass_time(1)
    pass_time(30)
    assert len(profile(projects).labels_from["Car"]) == 60
    assert 3 <= len(reads) <= 5


def test_a_database_that_hangs_is_not_waited_for(
    projects: ProjectCache, store: ProjectStore, save: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("walkcut.serving.project_cache._CALL_S", 0.1)
    save(1)
    projects.set_up("3", CONFIG, {"max_regions": 7})
    known, answered = projects.get("3", CONFIG), threading.Event()
    assert known.profile.labels == ("Car",)
    for name in ("extra_params", "learning", "revision", "save_setup"):
        monkeypatch.setattr(store, name, lambda *_arguments: answered.wait(60))
    begin = time.monotonic()
    for _ in range(20):
        assert projects.get("3", CONFIG) == known
        assert projects.set_up("3", CONFIG, {"max_regions": 7}) == known
    assert "did not answer" in projects.database_problem()
    answered.set()
    assert time.monotonic() - begin < 5, "each kind of call was tried once"
