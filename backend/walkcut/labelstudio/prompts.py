"""Prompts of interactive calls: text commands, points and boxes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from walkcut.errors import RequestError
from walkcut.labelstudio.results import ShapeItem, result_items, shape_items
from walkcut.labelstudio.tasks import TaskImage

STATUS_MARK = "→ "  # begins each line that walkcut itself writes into a text field
_MAX_PROMPTS = 200
_MIN_SIDE = 16  # pixels of the smallest crop that can be segmented
_ROUNDING = 1e-6  # pixels: percentages are not exact
_MAX_PERCENT = 1e6  # larger ones are not on a screen


@dataclass(frozen=True)
class Point:
    """A click with a smart key point: its label and its position in [0, 1] of width and height; negative with Alt."""

    id: str
    label: str
    x: float
    y: float
    is_positive: bool = True

    def pixel(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return row and column in an image of `size` (height, width)."""
        height, width = size
        return min(int(self.y * height), height - 1), min(int(self.x * width), width - 1)


@dataclass(frozen=True)
class Box:
    """A smart rectangle: its label and its sides in [0, 1] of width and height; the bounding box of a rotated one."""

    id: str
    label: str
    left: float
    top: float
    right: float
    bottom: float

    def pixels(self, size: tuple[int, int]) -> tuple[slice, slice]:
        """Return rows and columns of an image of `size` (height, width), at least 16 each where it has as many."""
        height, width = size
        return _span(self.top, self.bottom, height), _span(self.left, self.right, width)

    @property
    def centre(self) -> Point:
        """The point in its middle."""
        return Point(self.id, self.label, (self.left + self.right) / 2, (self.top + self.bottom) / 2)


Prompt = Point | Box


def text_commands(context: object, image: TaskImage) -> list[str]:
    """Return the lines that an annotator typed for an image, oldest first, at most the last 200.

    Reads the text field named `granularity` or, without one, all text fields of the image but `status`. Lines that
    walkcut wrote itself are left out.
    """
    anywhere = {"to_name": image.tag.name, "item_index": image.item_index}  # a text without a page is for all pages
    items = result_items(_result(context))
    fields = [item for item in items if item["type"] == "textarea" and image.holds({**anywhere, **item})]
    named = [item for item in fields if item.get("from_name") == "granularity"]
    typed = named or [item for item in fields if item.get("from_name") != "status"]
    texts = [item["value"].get("text") for item in typed]
    lines = [str(line) for text in texts for line in (text if isinstance(text, list) else [text])]
    return [line for line in lines if not line.startswith(STATUS_MARK)][-_MAX_PROMPTS:]


def read_prompts(context: object, image: TaskImage) -> list[Prompt]:
    """Return the points and boxes on an image, oldest first, without those outside the image.

    Raises `RequestError` for more than 200, since each takes a pass over the whole image.
    """
    shapes = [
        shape for shape in shape_items(_result(context)) if image.holds({"to_name": image.tag.name, **shape.item})
    ]
    prompts = [prompt for shape in shapes if (prompt := _read_prompt(shape, image))]
    if len(prompts) > _MAX_PROMPTS:
        raise RequestError(
            f"{len(prompts)} points and boxes are more than {_MAX_PROMPTS}: accept the suggestions first"
        )
    return prompts


def _read_prompt(shape: ShapeItem, image: TaskImage) -> Prompt | None:
    """Return the point or box of a shape on an image; None for other shapes and outside the image."""
    label = image.tag.label_of(shape.label)
    match shape.shape:
        case "keypoint":
            x, y = (_fraction(shape.value.get(axis)) for axis in "xy")
            is_positive = shape.item.get("is_positive") is not False
            return Point(shape.id, label, x, y, is_positive) if 0 <= x <= 1 and 0 <= y <= 1 else None
        case "rectangle":
            left, top, right, bottom = _bounds(shape.item)
            return Box(shape.id, label, left, top, right, bottom) if left < right and top < bottom else None
    return None


def _result(context: object) -> object:
    return context.get("result") if isinstance(context, dict) else None


def _bounds(item: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a rectangle's bounding box within the image; NaN for malformed ones."""
    value = item["value"]
    x, y, width, height = (_fraction(value.get(side)) for side in ("x", "y", "width", "height"))
    ratio = _fraction(item.get("original_width")) / (_fraction(item.get("original_height")) or math.nan)
    aspect = ratio if math.isfinite(ratio) and ratio > 0 else 1.0  # where a side is unknown
    angle = math.radians(100 * _fraction(value.get("rotation") or 0))
    right = width * math.cos(angle), width * math.sin(angle) * aspect  # a rotation keeps lengths in pixels
    down = -height * math.sin(angle) / aspect, height * math.cos(angle)
    xs = [x, x + right[0], x + down[0], x + right[0] + down[0]]
    ys = [y, y + right[1], y + down[1], y + right[1] + down[1]]
    if not all(map(math.isfinite, (*xs, *ys))):
        return math.nan, math.nan, math.nan, math.nan
    return max(0, min(xs)), max(0, min(ys)), min(1, max(xs)), min(1, max(ys))


def _fraction(percent: object) -> float:
    """Return a percentage divided by 100, or NaN for anything but a number below a million."""
    if isinstance(percent, (int, float)) and not isinstance(percent, bool) and abs(percent) < _MAX_PERCENT:
        return percent / 100
    return math.nan


def _span(first: float, last: float, length: int) -> slice:
    """Return the pixels between two fractions of a length, extended on both sides to 16 where the length allows."""
    start, stop = math.floor(first * length + _ROUNDING), math.ceil(last * length - _ROUNDING)
    missing = max(0, _MIN_SIDE - (stop - start))
    start = max(0, min(start - missing // 2, length - _MIN_SIDE))
    return slice(start, min(length, max(stop, start + _MIN_SIDE)))
