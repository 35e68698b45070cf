"""Images of labelling configs, as values."""

from collections.abc import Mapping, Sequence
from typing import Any

from walkcut.labelstudio.config import ControlTag, ImageTag
from walkcut.labelstudio.tasks import Task, TaskImage


def make_image_tag(
    value: str = "$image",
    neutral: Sequence[str] = ("Region",),
    labels: Sequence[str] | None = None,
    *,
    name: str = "image",
    control: str = "brush",
    shape: str = "brush",
    **more: Any,
) -> ImageTag:
    """Return an image with one control, whose labels are the neutral ones if none are given."""
    controls = (ControlTag(control, shape, tuple(neutral if labels is None else labels), control),)
    return ImageTag(name, value, controls, tuple(neutral), **more)


def make_task_image(image_tag: ImageTag, data: Mapping[str, Any] | None = None, task_id: int = 1) -> TaskImage:
    """Return the image of a task with some data, by default an address for the image."""
    return TaskImage(Task(task_id, {image_tag.data_path: "a.png"} if data is None else data), image_tag)
