"""What an annotator did to ask for suggestions: lines typed, points and boxes drawn."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from walkcut.errors import RequestError
from walkcut.labelstudio.config import BrushControl

PROMPTS = ("Select", "Finer", "Coarser", "Merge", "Re-segment")  # labels that ask for something, and name nothing
_MOST_ASKED = 200
_LEAST_SIDE = 16  # pixels
_ROUNDING = 1e-6  # pixels: percentages are not exact
_FAR = 1e6  # percent: nothing on a screen is
STATUS_MARK = "→ "  # begins what walkcut itself writes into a text field


@dataclass(frozen=True)
class Point:
    """A click with a smart key point: its label, where it is (from 0 to 1 of width and height), and whether it wants
    what is there or, with Alt, does not."""

    id: str
    label: str
    x: float
    y: float
    is_positive: bool = True

    def pixel(self, size: tuple[int, int]) -> tuple[int, int]:
        """Row and column in an image of `size` (height, width)."""
        height, width = size
        return min(int(self.y * height), height - 1), min(int(self.x * width), width - 1)


@dataclass(frozen=True)
class Box:
    """A smart rectangle: its label, and its sides from 0 to 1 of width and height; a turned one is drawn round."""

    id: str
    label: str
    left: float
    top: float
    right: float
    bottom: float

    def pixels(self, size: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of an image of `size` (height, width), as many as walkcut can segment at least."""
        height, width = size
        rows, columns = _span(self.top, self.bottom, height), _span(self.left, self.right, width)
        return rows, columns


Prompt = Point | Box


def text_commands(context: object, control: BrushControl) -> list[str]:
    """What an annotator typed for a target's image, oldest line first; nothing for calls that carry no text.

    The text field named `granularity` counts where there is one, else all of the image's text fields do; of these the
    last 200 lines. What walkcut wrote itself does not count.
    """
    fields = [item for item in _items(context, control) if item["type"] == "textarea"]
    named = [item for item in fields if item.get("from_name") == "granularity"]
    typed = named or [item for item in fields if item.get("from_name") != "status"]
    texts = [item["value"].get("text") for item in typed]
    lines = [str(line) for text in texts for line in (text if isinstance(text, list) else [text])]
    return [line for line in lines if not line.startswith(STATUS_MARK)][-_MOST_ASKED:]


def read_prompts(context: object, control: BrushControl) -> list[Prompt]:
    """The points and boxes on a target's image, oldest first; points beside the image are left out.

    Raises `RequestError` for more than 200: each costs a look at the whole image.
    """
    asked = [prompt for item in _items(context, control) for prompt in _read_prompt(item)]
    if len(asked) > _MOST_ASKED:
        raise RequestError(f"{len(asked)} points and boxes are more than {_MOST_ASKED}: accept the suggestions first")
    return asked


def _items(context: object, control: BrushControl) -> list[Mapping[str, Any]]:
    """The items of a context that are about a target's image and have a type and a value."""
    result = context.get("result") if isinstance(context, dict) else None
    return [
        item
        for item in (result if isinstance(result, list) else [])
        if isinstance(item, dict)
        and isinstance(item.get("type"), str)
        and isinstance(item.get("value"), dict)
        and item.get("to_name", control.to_name) == control.to_name
    ]


def _read_prompt(item: Mapping[str, Any]) -> list[Prompt]:
    """The point or the box that an item is, if it is one on the image."""
    labels = item["value"].get(item["type"])
    identity, label = str(item.get("id", "")), str(labels[0]) if isinstance(labels, list) and labels else ""
    match item["type"]:
        case "keypointlabels":
            x, y = (_share(item["value"].get(side)) for side in "xy")
            is_positive = item.get("is_positive") is not False
            return [Point(identity, label, x, y, is_positive)] if 0 <= x <= 1 and 0 <= y <= 1 else []
        case "rectanglelabels":
            left, top, right, bottom = _bounds(item)
            return [Box(identity, label, left, top, right, bottom)] if left < right and top < bottom else []
    return []


def _bounds(item: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """The left, top, right and bottom of the part of a rectangle that lies on the image; nothing is below nan."""
    value = item["value"]
    x, y, width, height = (_share(value.get(side)) for side in ("x", "y", "width", "height"))
    aspect = _ratio(item.get("original_width"), item.get("original_height"))
    turn = math.radians(100 * _share(value.get("rotation", 0)))
    along = width * math.cos(turn), width * math.sin(turn) * aspect  # a turn keeps lengths in pixels
    across = -height * math.sin(turn) / aspect, height * math.cos(turn)
    xs = [x, x + along[0], x + across[0], x + along[0] + across[0]]
    ys = [y, y + along[1], y + across[1], y + along[1] + across[1]]
    if not all(map(math.isfinite, (*xs, *ys))):
        return math.nan, math.nan, math.nan, math.nan
    return max(0, min(xs)), max(0, min(ys)), min(1, max(xs)), min(1, max(ys))


def _share(percent: object) -> float:
    """A percentage as a number from 0 to 1; not a number for what is none, or far too large."""
    if isinstance(percent, (int, float)) and not isinstance(percent, bool) and abs(percent) < _FAR:
        return percent / 100
    return math.nan


def _ratio(width: object, height: object) -> float:
    """Width by height, or 1 where they are not known."""
    ratio = _share(width) / (_share(height) or math.nan)
    return ratio if math.isfinite(ratio) and ratio > 0 else 1.0


def _span(first: float, last: float, length: int) -> slice:
    """The pixels between two places from 0 to 1, and those around where they are too few."""
    start, stop = math.floor(first * length + _ROUNDING), math.ceil(last * length - _ROUNDING)
    missing = max(0, _LEAST_SIDE - (stop - start))
    start = max(0, min(start - missing // 2, length - _LEAST_SIDE))
    return slice(start, min(length, max(stop, start + _LEAST_SIDE)))
