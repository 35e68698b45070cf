"""Projects that label with masks, outlines or boxes: shown, edited, submitted, and read back from the API."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.e2e import images
from tests.e2e.browser import Editor
from tests.e2e.label_studio import LabelStudio
from walkcut.labelstudio import shapes
from walkcut.labelstudio.results import shape_items
from walkcut.labelstudio.shapes.percent import Mask
from walkcut.masks.components import components

pytestmark = pytest.mark.e2e

MASKS = ("Brush", "Bitmask")
KINDS = (*MASKS, "Polygon", "Vector", "Ellipse", "Rectangle")


def config_of(label_config: str, kind: str, labels: str) -> str:
    """Return the config with controls of another kind, whose labels are their own or apart."""
    inside = re.search(r"<BrushLabels [^>]*>(.*?)</BrushLabels>", label_config, re.DOTALL)
    assert inside is not None
    attributes = 'name="shape" toName="image" smart="false"' + ' closable="true"' * (kind == "Vector")
    tags = {
        "own": f"<{kind}Labels {attributes}>{inside[1]}</{kind}Labels>",
        "apart": f'<{kind} {attributes}/><Labels name="labels" toName="image">{inside[1]}</Labels>',
    }
    config = label_config.replace(inside[0], tags[labels])
    for control in ("KeyPointLabels", "RectangleLabels"):
        config = config.replace(
            f"</{control}>", f'<Label value="Background" hotkey="{control[0].lower()}"/></{control}>'
        )
    return config


def masks(result: Sequence[dict[str, Any]]) -> list[Mask]:
    """Return the masks of the regions in a result."""
    items = [shape for shape in shape_items(result) if shape.shape != "keypoint"]
    sizes = [(shape.item["original_height"], shape.item["original_width"]) for shape in items]
    return [shapes.decode(shape.shape, shape.value, size) for shape, size in zip(items, sizes, strict=True)]


def overlap(mask: Mask, others: Sequence[Mask]) -> float:
    """Return the best intersection over union of a mask and one of others."""
    return max(float((mask & other).sum() / (mask | other).sum()) for other in others)


@pytest.mark.parametrize(
    ("kind", "labels"), [*((kind, "own") for kind in KINDS), ("Brush", "apart"), ("Polygon", "apart")]
)
def test_regions_of_every_shape_are_shown_edited_and_submitted(
    label_studio: LabelStudio, editor: Editor, backend: str, label_config: str, artifacts: Path, kind: str, labels: str
) -> None:
    config = config_of(label_config, kind, labels)
    project = label_studio.create_project(f"{kind} {labels}", config)
    (task,) = label_studio.import_tasks(project, [images.sample_task()])
    label_studio.attach_backend(project, backend)
    label_studio.retrieve_predictions(project)
    body: dict[str, Any] = {
        "tasks": [{"id": task, **images.sample_task()}],
        "project": "99.1",
        "label_config": label_config,
    }
    body |= {"params": {"context": None}}
    reference = httpx.post(f"{backend}/predict", json=body, timeout=60).json()["results"][0][-1]["result"]
    parts = [part for mask in masks(reference) for part in components(mask)]
    predicted = label_studio.predictions(task)[-1]["result"]

    editor.open_task(project, task, n_tabs=1)
    editor.auto_annotation_on()
    editor.screenshot(artifacts / f"shape-{kind}-{labels}.png")
    assert len(editor.regions()) == len(masks(predicted))
    if kind in MASKS:
        assert min(overlap(mask, masks(reference)) for mask in masks(predicted)) >= 0.99
    elif kind in {"Polygon", "Vector"}:
        assert min(overlap(mask, parts) for mask in masks(predicted)) >= 0.97

    assert editor.type_granularity("6")
    editor.accept()
    editor.wait_for_draft()
    match kind:
        case "Bitmask":  # which a click selects, whatever the tool
            assert editor.smart_box("Background", (0.3, 0.02), (0.5, 0.1))
        case "Vector":  # which a click selects, and a drag may move, whatever the tool
            assert editor.type_granularity("4")
        case _:
            assert editor.smart_point("Background", 0.05, 0.05)
    named = int(kind != "Vector")
    assert editor.status() == "→ Selected: Background" or not named
    editor.accept()
    editor.screenshot(artifacts / f"shape-{kind}-{labels}-edited.png")
    shown = editor.regions()
    assert [region.label for region in shown].count("Background") == named
    assert editor.console_errors() == []

    editor.submit()
    (stored,) = label_studio.annotations(task)
    found = [shape for shape in shape_items(stored["result"]) if shape.shape != "keypoint"]
    assert {shape.shape for shape in found} == {kind.lower()}
    assert [shape.label for shape in found].count("Background") == named
    assert len(found) == len(shown)
    if kind not in {"Ellipse", "Rectangle"}:
        assert np.sum(masks(stored["result"]), axis=0).max() == 1
