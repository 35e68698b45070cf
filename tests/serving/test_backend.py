"""Learning and syncing go on beside each other, and neither keeps the server from ending."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.builders.feedback import CONFIG, HALVES, FakeLabelStudio, created, deliver
from tests.builders.models import make_predictor
from tests.builders.processes import wait_for
from walkcut.serving.backend import background_learning
from walkcut.serving.feedback_worker import FeedbackWorker
from walkcut.settings import Settings
from walkcut.storage import ProjectStore
from walkcut.telemetry.metrics import Metrics


class SlowLabelStudio(FakeLabelStudio):
    """A Label Studio whose answers do not end until it is `released`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.released = threading.Event(), threading.Event()

    def annotations(self, project: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        self.wait()
        yield from self.held

    def prediction_version(self, prediction_id: int) -> str:
        self.wait()
        return super().prediction_version(prediction_id)

    def wait(self) -> None:
        self.asked.set()
        self.released.wait(60)


@pytest.mark.parametrize("parent", [None, 7], ids=["sync waits", "sync and learning wait"])
def test_a_label_studio_that_does_not_answer_holds_neither_learning_nor_the_end(
    tmp_path: Path, parent: int | None
) -> None:
    studio = SlowLabelStudio()
    with closing(ProjectStore(tmp_path)) as store:
        store.save_setup("3", CONFIG, {})
        worker = FeedbackWorker(make_predictor(tmp_path / "trees"), store, studio)
        with background_learning(worker, Settings(state_dir=tmp_path), Metrics()):
            assert studio.asked.wait(30)
            deliver(store, created(5, *HALVES, parent_prediction=parent))
            if parent is None:
                wait_for("feedback", lambda: store.annotations.feedback("3"), 60)
            begin = time.monotonic()
        assert time.monotonic() - begin < 2
        studio.released.set()
