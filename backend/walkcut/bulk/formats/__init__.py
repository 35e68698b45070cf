"""Output formats of bulk runs."""

from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from walkcut.bulk.formats.coco import CocoFormat, CocoPolygonFormat
from walkcut.bulk.formats.labelstudio import LabelStudioFormat
from walkcut.bulk.formats.png import PngFormat
from walkcut.bulk.formats.polygon import PolygonFormat
from walkcut.bulk.formats.records import Records, class_numbers
from walkcut.bulk.formats.voc import VocFormat
from walkcut.bulk.formats.yolo import YoloFormat
from walkcut.bulk.items import EncodedItem, ItemPrediction
from walkcut.errors import SettingsError
from walkcut.labelstudio.config import ImageTag
from walkcut.masks.polygons import DEFAULT_TOLERANCE

_KINDS = (LabelStudioFormat, PngFormat, CocoFormat, CocoPolygonFormat, PolygonFormat, YoloFormat, VocFormat)
FORMATS = tuple(kind.name for kind in _KINDS)
POLYGON_FORMATS = (CocoPolygonFormat.name, PolygonFormat.name, YoloFormat.name)  # which have a tolerance


@runtime_checkable
class Format(Protocol):
    """An output format: images are encoded one by one in any process, and assembled once at the end."""

    name: ClassVar[str]  # on the command line

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """Encode one image."""

    def assemble(self, records: Records, output_dir: Path) -> None:
        """Write the files that describe all images, from their records in the order of their keys.

        Memory does not grow with the number of images. A repeated call replaces the files of the call before.
        """


def make_format(name: str, image_tag: ImageTag, tolerance: float | None = None) -> Format:
    """Return a format by its name, for an image's regions; polygons have a `tolerance` in pixels.

    Raises `SettingsError` for an unknown name, for a tolerance that is not a distance or that the format ignores, and
    for class numbers that the format cannot write.
    """
    if name not in FORMATS:
        raise SettingsError(f"unknown format {name!r}: use {', '.join(FORMATS)}")
    if tolerance is not None and name not in POLYGON_FORMATS:
        raise SettingsError(
            f"the format {name} has no polygons: leave out --tolerance, or use {' or '.join(POLYGON_FORMATS)}"
        )
    pixels = DEFAULT_TOLERANCE if tolerance is None else tolerance
    if not 0 <= pixels < inf:
        raise SettingsError(f"a polygon's tolerance of {pixels} is not a distance in pixels: use 0 (exact) or more")
    factories: dict[str, Callable[[], Format]] = {
        LabelStudioFormat.name: lambda: LabelStudioFormat(image_tag),
        PngFormat.name: PngFormat,
        CocoFormat.name: lambda: CocoFormat(class_numbers(image_tag, 1)),
        CocoPolygonFormat.name: lambda: CocoPolygonFormat(class_numbers(image_tag, 1), pixels),
        PolygonFormat.name: lambda: PolygonFormat(pixels),
        YoloFormat.name: lambda: YoloFormat(class_numbers(image_tag, 0), pixels),
        VocFormat.name: VocFormat,
    }
    return factories[name]()


__all__ = [
    "FORMATS",
    "POLYGON_FORMATS",
    "CocoFormat",
    "CocoPolygonFormat",
    "Format",
    "LabelStudioFormat",
    "PngFormat",
    "PolygonFormat",
    "VocFormat",
    "YoloFormat",
    "make_format",
]
