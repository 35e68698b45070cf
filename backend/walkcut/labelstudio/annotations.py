"""What annotators drew: results of an annotation or a draft as masks of the image's size."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, UInt16
from PIL import Image, ImageDraw
from skimage import draw

from walkcut.errors import BrushError, RequestError
from walkcut.labelstudio import brush
from walkcut.labelstudio.config import BrushControl
from walkcut.labelstudio.prompts import PROMPTS

_FAR: Final = 1000.0  # percent; whatever lies farther out was drawn on no image
_MOST_REGIONS: Final = 65535
_MOST_BYTES: Final = 1 << 32  # of the masks of one result
_MOST_PAINTED: Final = 10**11  # pixels, in all strokes of a region: some five seconds
_Size = tuple[int, int]  # height and width
_Points = list[tuple[float, float]]  # x and y
_Mask = Bool[np.ndarray, "y x"]


@dataclass(frozen=True)
class AnnotatedRegion:
    """What an annotator marked: its id and label in Label Studio, and a mask of the image's size."""

    id: str
    label: str
    mask: Bool[np.ndarray, "y x"]


def annotated_regions(
    result: object, control: BrushControl | str | None, size: _Size, *, strict: bool = False
) -> tuple[AnnotatedRegion, ...]:
    """The regions in the `result` of an annotation or a draft on an image of `size` (height, width), in order.

    Those of a brush control, of all controls of the image with this name (`to_name`), or of whatever there is.
    Regions are brush masks and strokes, rectangles, ellipses, polygons and key points with a label. Prompts, key points
    that say "not this", the second result that Label Studio adds to an accepted region, and regions without a pixel
    are none. Whatever cannot be read is left out, or `strict`, raises `BrushError` or `RequestError`. Raises
    `RequestError` for more regions than there is room for, a byte for each pixel of each.
    """
    items = [item for item in _region_items(result) if _belongs(item, control)]
    if len(items) * size[0] * size[1] > _MOST_BYTES:
        raise RequestError(f"{len(items)} regions on an image of {size[1]}×{size[0]} pixels are too many: draw fewer")
    regions = []
    for item in items:
        try:
            regions.append(_read(item, size))
        except (BrushError, RequestError):
            if strict:
                raise
    return tuple(region for region in regions if region.mask.any())


def label_map(regions: Sequence[AnnotatedRegion], size: _Size) -> UInt16[np.ndarray, "y x"]:
    """The number of each pixel's region, counted from 1 in the order given, or 0.

    Smaller regions lie on larger ones, so that no mask hides a stroke or a click; of the same size the later on top.
    Raises `RequestError` for more than 65535 regions.
    """
    if len(regions) > _MOST_REGIONS:
        raise RequestError(f"{len(regions)} regions are more than {_MOST_REGIONS}: annotate fewer in one image")
    numbers = np.zeros(size, np.uint16)
    for number, region in sorted(enumerate(regions, 1), key=lambda pair: -int(pair[1].mask.sum())):
        numbers[region.mask] = number
    return numbers


def annotated_image_names(result: object) -> tuple[str, ...]:
    """The names of the images (`to_name`) with regions in a result, in order of appearance."""
    names = [item.get("to_name") for item in _region_items(result)]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def _region_items(result: object) -> list[dict[str, Any]]:
    """The items of a result that are regions, whether or not they can be read."""
    return [item for item in result if _is_region(item)] if isinstance(result, list) else []


def _is_region(item: object) -> bool:
    """Whether an item is a region with a label that names something."""
    if not isinstance(item, dict) or not isinstance(item.get("value"), dict) or item.get("is_positive") is False:
        return False
    kind, value = item.get("type"), item["value"]
    # On accept Label Studio gives a brush region a second result, of the type of another label that is selected.
    if not isinstance(kind, str) or kind not in _SHAPES or (kind != "brushlabels" and "rle" in value):
        return False
    return bool(_label(item)) and _label(item) not in PROMPTS


def _belongs(item: Mapping[str, Any], control: BrushControl | str | None) -> bool:
    """Whether an item is of this control, or this image."""
    match control:
        case None:
            return True
        case str(image):
            return item.get("to_name") == image
    return (item.get("from_name"), item.get("to_name")) == (control.from_name, control.to_name)


def _label(item: Mapping[str, Any]) -> str:
    """The first label of an item, empty for none."""
    labels = item["value"].get(item["type"])
    return labels[0] if isinstance(labels, list) and labels and isinstance(labels[0], str) else ""


def _read(item: Mapping[str, Any], size: _Size) -> AnnotatedRegion:
    """The region that an item is; raises `BrushError` or `RequestError`, which name it, for one out of the format."""
    identity = item["id"] if isinstance(item.get("id"), str) else ""
    height, width = size
    if (item.get("original_width", width), item.get("original_height", height)) != (width, height):
        raise RequestError(
            f"region {identity} was not drawn on an image of {width}×{height} pixels: take this very image's annotation"
        )
    if item.get("image_rotation"):
        raise RequestError(f"region {identity} was drawn on a turned image: turn the file itself and annotate that")
    try:
        return AnnotatedRegion(identity, _label(item), _SHAPES[item["type"]](item["value"], size))
    except BrushError as error:
        raise BrushError(f"region {identity}: {error}; export the annotation again") from error
    except RequestError as error:
        raise RequestError(f"region {identity}: {error}; export the annotation again") from error


def _brush(value: Mapping[str, Any], size: _Size) -> _Mask:
    """A brush mask, and on top of it the strokes that a draft has not yet made part of it."""
    code, strokes = (value.get(name) or [] for name in ("rle", "touches"))
    if not (isinstance(code, list) and isinstance(strokes, list) and {*map(type, code)} <= {int}):
        raise BrushError("a brush region holds a run-length code, which is a list of bytes, and a list of strokes")
    if not (code or strokes):
        raise BrushError("a brush region holds neither a run-length code nor strokes")
    mask = brush.decode(code, size) if code else np.zeros(size, np.bool_)
    image = Image.fromarray(mask.astype(np.uint8))
    courses = [_stroke_path(stroke, size) for stroke in strokes]
    if sum(len(points) * min(thick * thick, mask.size) for points, thick in courses) > _MOST_PAINTED:
        raise RequestError("these brush strokes go over the image too many times: draw fewer")
    for stroke, (points, thick) in zip(strokes, courses, strict=True):
        _draw_stroke(ImageDraw.Draw(image), points, thick, ink=0 if stroke.get("type") == "eraser" else 1)
    return np.asarray(image) > 0


def _draw_stroke(canvas: ImageDraw.ImageDraw, points: _Points, thick: float, *, ink: int) -> None:
    """Draw one stroke, a line with round ends and joints."""
    reach = (thick - 1) / 2
    canvas.line(points, fill=ink, width=round(thick))
    canvas.point([(round(x), round(y)) for x, y in points], fill=ink)  # Pillow's disc of one pixel is empty
    for x, y in points:
        canvas.ellipse((x - reach, y - reach, x + reach, y + reach), fill=ink)


def _stroke_path(stroke: object, size: _Size) -> tuple[_Points, float]:
    """The points (x, y) of a stroke from the centre of the first pixel, and its width, in pixels.

    `relativePoints` are percent of the image, x, y, x, …, and `relativeStrokeWidth` of its width. `points` and
    `strokeWidth` are pixels of the screen it was drawn on; where there are no others they count as the image's.
    """
    if not isinstance(stroke, dict):
        raise RequestError(f"a brush stroke is an object, not {type(stroke).__name__}")
    height, width = size
    if stroke.get("relativePoints"):
        numbers, thick, far = stroke["relativePoints"], stroke.get("relativeStrokeWidth"), _FAR
        scale = width / 100, height / 100
    else:
        numbers, thick, far = stroke.get("points"), stroke.get("strokeWidth"), _FAR / 100 * max(size)
        scale = 1.0, 1.0
    if not isinstance(numbers, list) or not numbers or len(numbers) % 2:
        raise RequestError("a brush stroke needs points, an x and a y each")
    x, y = ([_number(each, far) * factor - 0.5 for each in numbers[axis::2]] for axis, factor in enumerate(scale))
    return list(zip(x, y, strict=True)), max(1.0, _number(thick, far, least=0) * scale[0])


def _rectangle(value: Mapping[str, Any], size: _Size) -> _Mask:
    """A rectangle, turned clockwise about its upper left corner."""
    x, y = _place(value, size)
    width, height = (_length(value, name, along) for name, along in (("width", size[1]), ("height", size[0])))
    turn = _rotation(value)
    along, down = (math.cos(turn) * width, math.sin(turn) * width), (-math.sin(turn) * height, math.cos(turn) * height)
    corners = [(0.0, 0.0), along, (along[0] + down[0], along[1] + down[1]), down]
    return _filled([(x + right, y + below) for right, below in corners], size)


def _ellipse(value: Mapping[str, Any], size: _Size) -> _Mask:
    """An ellipse about its centre, turned clockwise."""
    x, y = _place(value, size)
    across, down = (_length(value, name, side) for name, side in (("radiusX", size[1]), ("radiusY", size[0])))
    return _round(x, y, across, down, size, turn=_rotation(value))


def _polygon(value: Mapping[str, Any], size: _Size) -> _Mask:
    """A polygon of at least three points."""
    points = value.get("points")
    if not isinstance(points, list) or len(points) < 3 or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise RequestError("a polygon needs three points, each an x and a y")
    height, width = size
    return _filled([(_number(x, _FAR) * width / 100, _number(y, _FAR) * height / 100) for x, y in points], size)


def _key_point(value: Mapping[str, Any], size: _Size) -> _Mask:
    """A disc of the point's width, a share of the image's width; the pixel of its centre at least."""
    x, y = _place(value, size)
    radius = _length(value, "width", size[1]) / 2
    mask = _round(x, y, radius, radius, size)
    if 0 <= x <= size[1] and 0 <= y <= size[0]:
        mask[min(int(y), size[0] - 1), min(int(x), size[1] - 1)] = True
    return mask


_SHAPES: Final[Mapping[str, Callable[[Mapping[str, Any], _Size], _Mask]]] = MappingProxyType(
    {
        "brushlabels": _brush,
        "rectanglelabels": _rectangle,
        "ellipselabels": _ellipse,
        "polygonlabels": _polygon,
        "keypointlabels": _key_point,
    }
)


def _round(x: float, y: float, across: float, down: float, size: _Size, *, turn: float = 0.0) -> _Mask:
    """The pixels whose centres lie within an ellipse of these radii, half a pixel at least, turned clockwise."""
    mask = np.zeros(size, np.bool_)
    turn = -math.remainder(turn, math.tau)
    mask[draw.ellipse(y - 0.5, x - 0.5, max(down, 0.5), max(across, 0.5), shape=size, rotation=turn)] = True
    return mask


def _filled(corners: Sequence[tuple[float, float]], size: _Size) -> _Mask:
    """The pixels whose centres lie within corners (x, y) in pixels, by the even-odd rule.

    Each edge turns over all that is right of it, in the rows that it crosses: so work grows with the corners and with
    the image, not with their product.
    """
    height, width = size
    turned = np.zeros((height, width + 1), np.bool_)
    places = np.array(corners) - 0.5
    for (left, top), (right, bottom) in zip(places, np.roll(places, -1, axis=0), strict=True):
        start, stop = (math.ceil(min(max(end, 0), height)) for end in sorted((top, bottom)))
        rows = np.arange(start, stop)
        crossed = left + (rows - top) * (right - left) / ((bottom - top) or 1)
        turned[rows, np.ceil(crossed.clip(0, width)).astype(np.int64)] ^= True
    return np.bitwise_xor.accumulate(turned[:, :width], axis=1)


def _place(value: Mapping[str, Any], size: _Size) -> tuple[float, float]:
    """The x and y of a shape in pixels, from percent."""
    return _number(value.get("x"), _FAR) * size[1] / 100, _number(value.get("y"), _FAR) * size[0] / 100


def _length(value: Mapping[str, Any], name: str, side: int) -> float:
    """A length in pixels, from percent of a side of the image."""
    return _number(value.get(name), _FAR, least=0) * side / 100


def _rotation(value: Mapping[str, Any]) -> float:
    """A clockwise turn in radians, from degrees."""
    return math.radians(_number(value.get("rotation", 0), _FAR))


def _number(value: object, most: float, *, least: float | None = None) -> float:
    """A number from `least`, or `-most`, to `most`. Raises `RequestError` for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RequestError(f"a shape lacks a number and has {type(value).__name__}")
    if not (-most if least is None else least) <= value <= most:
        raise RequestError(f"{value!s:.20} is out of the range of a shape on an image")
    return float(value)
