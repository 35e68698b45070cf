"""Annotated tasks, their webhook events, and a client of a Label Studio that holds them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tests.builders.scenes import data_url, png, quarters
from walkcut.errors import LabelStudioError
from walkcut.labelstudio.client import LabelStudioClient
from walkcut.labelstudio.shapes import rle
from walkcut.serving.webhooks import save_event
from walkcut.storage import ProjectStore

SIZE = (40, 60)
IMAGE = data_url(png(quarters(*SIZE)))
LABELS = '<Label value="Region" neutral="true"/><Label value="Car"/><Label value="Sky"/>'
CONFIG = f'<View><Image name="im" value="$photo"/><BrushLabels name="b" toName="im">{LABELS}</BrushLabels></View>'
NOON, LATER = "2026-11-20T12:00:00.000000Z", "2026-11-20T13:00:00.000000Z"
LEFT, RIGHT, TOP = (np.zeros(SIZE, bool) for _ in range(3))
LEFT[:, :30], RIGHT[:, 30:], TOP[:20] = True, True, True
HALVES = (("Car", LEFT), ("Region", RIGHT))


class Event(NamedTuple):
    """A webhook event."""

    action: str
    project_id: str
    body: dict[str, Any]


def deliver(store: ProjectStore, *events: Event) -> None:
    """Save events as the server does."""
    for event in events:
        save_event(store, *event)


def task(task_id: int = 1) -> dict[str, Any]:
    return {"id": task_id, "data": {"photo": IMAGE}}


def annotation(
    annotation_id: int, *drawn: tuple[str, np.ndarray], updated: str = NOON, **changes: Any
) -> dict[str, Any]:
    """Return an annotation's document with a brush region for each label and mask."""
    result = [
        {
            "id": f"r{index}",
            "type": "brushlabels",
            "from_name": "b",
            "to_name": "im",
            "value": {"rle": rle.encode(mask), "brushlabels": [label]},
        }
        for index, (label, mask) in enumerate(drawn)
    ]
    return {"id": annotation_id, "result": result, "updated_at": updated, "was_cancelled": False} | changes


def created(annotation_id: int, *drawn: tuple[str, np.ndarray], task_id: int = 1, **changes: Any) -> Event:
    """Return the event of a new annotation in project 3."""
    body = {"task": task(task_id), "annotation": annotation(annotation_id, *drawn, **changes)}
    return Event("ANNOTATION_CREATED", "3", body)


class FakeLabelStudio(LabelStudioClient):
    """A Label Studio with the annotations that a test sets, which keeps the predictions that it gets."""

    def __init__(self) -> None:
        self.held: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.predicted: list[Mapping[str, Any]] = []
        self.loses_answers = False
        self.created_at = 0

    def created(self, project: str) -> int:
        return self.created_at

    def annotations(self, project: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        yield from self.held

    def label_config(self, project: str) -> str:
        return CONFIG

    def prediction_version(self, prediction_id: int) -> str:
        if prediction_id != 7:
            raise LabelStudioError("deleted")
        return "fine 000000"

    def predictions(self, task_id: int) -> dict[int, str]:
        return {index: row["model_version"] for index, row in enumerate(self.predicted) if row["task"] == task_id}

    def add_predictions(self, project: str, predictions: Sequence[Mapping[str, Any]]) -> None:
        self.predicted += predictions
        if self.loses_answers:
            raise LabelStudioError("it is down")
