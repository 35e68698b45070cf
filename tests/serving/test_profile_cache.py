import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from walkcut.learning.feedback import AnnotationFeedback, LabelExample
from walkcut.learning.profile import ProjectProfile
from walkcut.serving.profile_cache import ProfileCache
from walkcut.storage import ProjectStore

LABELS = frozenset({"Car", "Sky"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProjectStore]:
    opened = ProjectStore(tmp_path)
    yield opened
    opened.close()


def save(store: ProjectStore, annotation_id: int, label: str = "Car", segmenter: str = "v1") -> None:
    """Save feedback with one example of a label."""
    examples = (LabelExample(label, (1.0, 0.0), 0.5),)
    updated_at = "2026-11-20T08:38:56Z"
    store.save_feedback(
        AnnotationFeedback("3", annotation_id, annotation_id, updated_at, segmenter, {}, examples).to_row()
    )


def slowly(store: ProjectStore, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> list[str]:
    """Call `meanwhile` whenever feedback is read; return the projects that it was read for."""
    feedback, reads = store.feedback, list[str]()

    def slow(project_id: str) -> list[dict[str, Any]]:
        reads.append(project_id)
        meanwhile()
        return feedback(project_id)

    monkeypatch.setattr(store, "feedback", slow)
    return reads


def test_a_profile_is_fitted_to_a_projects_feedback(store: ProjectStore) -> None:
    profiles = ProfileCache(store, "v1")
    assert profiles.get("3", LABELS) == ProjectProfile()
    save(store, 1)
    save(store, 2, "Sky")
    save(store, 3, "Deleted")
    save(store, 4, "Sky", segmenter="v2")
    assert profiles.get("3", LABELS).labels_from == {"Car": ((1, 1),), "Sky": ((2, 2),)}
    assert profiles.get("3", frozenset({"Car"})).labels == ("Car",)
    assert profiles.get("4", LABELS) == ProjectProfile()


def test_feedback_is_read_only_when_it_has_changed(store: ProjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles, reads = ProfileCache(store, "v1"), slowly(store, monkeypatch, lambda: None)
    for annotation_id in (1, 2):
        save(store, annotation_id)
        for _ in range(3):
            assert len(profiles.get("3", LABELS).labels_from["Car"]) == annotation_id
    assert len(reads) == 2


def test_others_use_the_previous_profile_while_one_thread_fits(
    store: ProjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles, begun, resume = ProfileCache(store, "v1"), threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert resume.wait(30)

    previous = profiles.get("3", LABELS)
    reads = slowly(store, monkeypatch, wait)
    save(store, 1)
    fitted: list[ProjectProfile] = []
    thread = threading.Thread(target=lambda: fitted.append(profiles.get("3", LABELS)))
    thread.start()
    assert begun.wait(30)
    assert profiles.get("3", LABELS) is previous
    resume.set()
    thread.join()
    assert fitted[0].labels == ("Car",)
    assert profiles.get("3", LABELS) is fitted[0]
    assert len(reads) == 1


def test_a_slow_fit_is_not_repeated_all_the_time(store: ProjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    profiles, reads = ProfileCache(store, "v1"), slowly(store, monkeypatch, lambda: pass_time(2))
    for annotation_id in range(60):
        save(store, annotation_id)
        profiles.get("3", LABELS)
        pass_time(1)
    pass_time(30)
    assert len(profiles.get("3", LABELS).labels_from["Car"]) == 60
    assert 3 <= len(reads) <= 5
