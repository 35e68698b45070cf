"""Label Studio's documents as values: label config, task, prediction. Text and numbers only, no I/O."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from jaxtyping import Bool

from walkcut import brush
from walkcut.errors import LabelConfigError, RequestError

_EXAMPLE = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Region"/></BrushLabels></View>'
)


@dataclass(frozen=True)
class BrushTarget:
    """A brush control and the picture it labels: where regions go, and what the tag's attributes wish for.

    Pre-annotated regions take the control's `neutral` labels in turn, so that neighbours differ in colour.
    """

    from_name: str
    to_name: str
    data_key: str
    neutral: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A task as Label Studio sends it; `id` is 0 in previews."""

    id: int
    data: Mapping[str, Any]

    def reference(self, target: BrushTarget) -> str:
        """What the task says of a target's picture. Raises `RequestError` where it says nothing of use."""
        value = self.data.get(target.data_key)
        if not isinstance(value, str) or not value.strip():
            shown = json.dumps(value, default=str)[:60]
            raise RequestError(
                f"task {self.id} has no picture: data.{target.data_key} is {shown}; write one picture's address there"
            )
        return value


@dataclass(frozen=True)
class Region:
    """One brush region: a mask of the picture's own size, a label of the control, and a score in [0, 1].

    `notes` are shown in its Info panel.
    """

    mask: Bool[np.ndarray, "y x"]
    label: str
    score: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """A segmentation as Label Studio stores it."""

    result: list[dict[str, Any]]
    score: float
    model_version: str

    def as_json(self) -> dict[str, Any]:
        """The document that a backend answers with."""
        return {"result": self.result, "score": self.score, "model_version": self.model_version}


def brush_targets(label_config: str) -> tuple[BrushTarget, ...]:
    """The brush controls of a labelling config, the first one of each picture.

    Raises `LabelConfigError` with an example for a config that is no XML or has no brush control on a picture.
    """
    try:
        root = fromstring(label_config)
    except (ParseError, DefusedXmlException, ValueError, TypeError) as error:
        raise LabelConfigError(
            f"the labelling config is no readable XML ({error}); write for example {_EXAMPLE}"
        ) from error
    images = {image.get("name", ""): image for image in root.iter("Image")}
    targets: dict[str, BrushTarget] = {}
    for control in root.iter("BrushLabels"):
        picture = control.get("toName", "")
        if picture in images and picture not in targets:
            targets[picture] = _target(control, images[picture])
    if not targets:
        raise LabelConfigError(f"walkcut needs BrushLabels on an Image in the labelling config, for example {_EXAMPLE}")
    return tuple(targets.values())


def _target(control: Element, image: Element) -> BrushTarget:
    """The control with its picture's data key and its labels."""
    value = image.get("value", "")
    if not value.startswith("$") or len(value) < 2:
        raise LabelConfigError(
            f'the tag <Image name={image.get("name", "")!r}> needs value="$…", the name of one picture in the task\'s '
            "data, such as $image; lists of pictures (valueList) are not supported"
        )
    labels = {label.get("value", ""): label.get("neutral", "") == "true" for label in control.iter("Label")}
    labels.pop("", None)
    if not labels:
        raise LabelConfigError(f'<BrushLabels name={control.get("name", "")!r}> needs a <Label value="Region"/>')
    neutral = tuple(label for label, is_neutral in labels.items() if is_neutral) or tuple(labels)[:1]
    return BrushTarget(control.get("name", ""), image.get("name", ""), value[1:], neutral, dict(control.attrib))


def read_tasks(body: Mapping[str, Any]) -> list[Task]:
    """The tasks of a request, in order; one that is no task has no data. Raises `RequestError` without a list."""
    tasks = body.get("tasks")
    if not isinstance(tasks, list):
        raise RequestError('the request needs "tasks", a list of tasks as Label Studio sends them')
    return [_task(task if isinstance(task, dict) else {}) for task in tasks]


def _task(document: Mapping[str, Any]) -> Task:
    number, data = document.get("id"), document.get("data")
    return Task(number if isinstance(number, int) else 0, data if isinstance(data, dict) else {})


def typed_lines(context: object, target: BrushTarget) -> list[str]:
    """What an annotator typed for a target's picture, oldest line first; nothing for calls that carry no text.

    The text field named `granularity` counts where there is one, else all of the picture's text fields do.
    """
    result = context.get("result") if isinstance(context, dict) else None
    fields = [item for item in result if _is_text(item, target)] if isinstance(result, list) else []
    named = [item for item in fields if item.get("from_name") == "granularity"]
    texts = [item["value"].get("text") for item in named or fields]
    return [str(line) for text in texts for line in (text if isinstance(text, list) else [text])]


def _is_text(item: object, target: BrushTarget) -> bool:
    """Whether an item of a context is a text field of a target's picture."""
    return (
        isinstance(item, dict)
        and item.get("type") == "textarea"
        and item.get("to_name", target.to_name) == target.to_name
        and isinstance(item.get("value"), dict)
    )


def read_extra_params(value: object) -> dict[str, Any]:
    """Extra parameters of the model's settings: an object, or its JSON as the settings form sends it; else nothing."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def prediction(
    task: Task,
    targets: Sequence[tuple[BrushTarget, Sequence[Region]]],
    model_version: str,
) -> Prediction:
    """A prediction with the regions of each target, under ids that no other task, version or control shares."""
    result = [
        brush_region(region, target, region_id(task, target, model_version, number))
        for target, regions in targets
        for number, region in enumerate(regions)
    ]
    scores = [region.score for _, regions in targets for region in regions]
    return Prediction(result, sum(scores) / max(1, len(scores)), model_version)


def brush_region(region: Region, target: BrushTarget, identity: str) -> dict[str, Any]:
    """One region as Label Studio shows it."""
    height, width = region.mask.shape
    notes = {"meta": {"text": list(region.notes)}} if region.notes else {}
    return {
        "id": identity,
        "from_name": target.from_name,
        "to_name": target.to_name,
        "type": "brushlabels",
        "origin": "prediction",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": region.score,
        **notes,
        "value": {"format": "rle", "rle": brush.encode(region.mask), "brushlabels": [region.label]},
    }


def region_id(task: Task, target: BrushTarget, model_version: str, number: int) -> str:
    """The same region of the same answer has the same id, and no other has."""
    identity = f"{task.id} {task.reference(target)} {target.from_name} {model_version} {number}"
    return hashlib.sha256(identity.encode()).hexdigest()[:16]
