import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from walkcut.learning.examples import AnnotationFeedback, LabelExample, ProjectProfile
from walkcut.serving.project_cache import ProfileCache
from walkcut.storage import ProjectStore

LABELS = frozenset({"Car", "Sky"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProjectStore]:
    opened = ProjectStore(tmp_path)
    yield opened
    opened.close()


def lesson(annotation: int, label: str = "Car", segmenter: str = "v1") -> AnnotationFeedback:
    examples = (LabelExample(label, (1.0, 0.0), 0.5),)
    return AnnotationFeedback("3", annotation, annotation, "2026-11-20T08:38:56Z", segmenter, {}, examples)


def slowly(store: ProjectStore, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> list[str]:
    """Have something happen whenever lessons are read; of which projects they were."""
    lessons, reads = store.feedback, list[str]()

    def slow(project: str) -> list[AnnotationFeedback]:
        reads.append(project)
        meanwhile()
        return lessons(project)

    monkeypatch.setattr(store, "lessons", slow)
    return reads


def test_it_is_what_the_lessons_of_a_project_come_to(store: ProjectStore) -> None:
    knowledge = ProfileCache(store, "v1")
    assert knowledge.of("3", LABELS) == ProjectProfile()
    for each in (lesson(1), lesson(2, "Sky"), lesson(3, "Gone"), lesson(4, "Sky", segmenter="v2")):
        store.save_feedback(each)
    assert knowledge.of("3", LABELS).labels_from == {"Car": ((1, 1),), "Sky": ((2, 2),)}
    assert knowledge.of("3", frozenset({"Car"})).labels == ("Car",)
    assert knowledge.of("4", LABELS) == ProjectProfile()


def test_lessons_are_read_when_they_have_changed_alone(store: ProjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    knowledge, reads = ProfileCache(store, "v1"), slowly(store, monkeypatch, lambda: None)
    for annotation in (1, 2):
        store.save_feedback(lesson(annotation))
        for _ in range(3):
            assert len(knowledge.of("3", LABELS).labels_from["Car"]) == annotation
    assert len(reads) == 2


def test_others_go_on_with_what_was_known_while_one_learns_anew(
    store: ProjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    knowledge, begun, go_on = ProfileCache(store, "v1"), threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(30)

    known = knowledge.of("3", LABELS)
    reads = slowly(store, monkeypatch, wait)
    store.save_feedback(lesson(1))
    found: list[ProjectProfile] = []
    one = threading.Thread(target=lambda: found.append(knowledge.of("3", LABELS)))
    one.start()
    assert begun.wait(30)
    assert knowledge.of("3", LABELS) is known
    go_on.set()
    one.join()
    assert found[0].labels == ("Car",)
    assert knowledge.of("3", LABELS) is found[0]
    assert len(reads) == 1


def test_what_takes_long_to_work_out_is_not_worked_out_all_the_time(
    store: ProjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    knowledge, reads = ProfileCache(store, "v1"), slowly(store, monkeypatch, lambda: pass_time(2))
    for annotation in range(60):
        store.save_feedback(lesson(annotation))
        knowledge.of("3", LABELS)
        pass_time(1)
    pass_time(30)
    assert len(knowledge.of("3", LABELS).labels_from["Car"]) == 60
    assert 3 <= len(reads) <= 5
