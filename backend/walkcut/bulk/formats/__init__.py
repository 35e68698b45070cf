"""Output formats of bulk runs."""

from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from walkcut.bulk.formats.coco import CocoFormat
from walkcut.bulk.formats.labelstudio import LabelStudioFormat
from walkcut.bulk.formats.png import PngFormat
from walkcut.bulk.formats.polygon import PolygonFormat
from walkcut.bulk.formats.records import Records, class_numbers
from walkcut.bulk.formats.yolo import YoloFormat
from walkcut.bulk.items import EncodedItem, ItemPrediction
from walkcut.errors import SettingsError
from walkcut.labelstudio.config import BrushControl
from walkcut.masks.polygons import DEFAULT_TOLERANCE

FORMATS = tuple(kind.name for kind in (LabelStudioFormat, PngFormat, CocoFormat, PolygonFormat, YoloFormat))
_POLYGONS = (PolygonFormat.name, YoloFormat.name)


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


def make_format(name: str, control: BrushControl, tolerance: float | None = None) -> Format:
    """Return a format by its name, for a control's regions; polygons have a `tolerance` in pixels.

    Raises `SettingsError` for an unknown name, for a tolerance that is not a distance or that the format ignores, and
    for class numbers that the format cannot write.
    """
    if name not in FORMATS:
        raise SettingsError(f"unknown format {name!r}: use {', '.join(FORMATS)}")
    if tolerance is not None and name not in _POLYGONS:
        raise SettingsError(
            f"the format {name} has no polygons: leave out --tolerance, or use {' or '.join(_POLYGONS)}"
        )
    pixels = DEFAULT_TOLERANCE if tolerance is None else tolerance
    if not 0 <= pixels < inf:
        raise SettingsError(f"a polygon's tolerance of {pixels} is not a distance in pixels: use 0 (exact) or more")
    factories: dict[str, Callable[[], Format]] = {
        LabelStudioFormat.name: lambda: LabelStudioFormat(control),
        PngFormat.name: PngFormat,
        CocoFormat.name: lambda: CocoFormat(class_numbers(control, 1)),
        PolygonFormat.name: lambda: PolygonFormat(pixels),
        YoloFormat.name: lambda: YoloFormat(class_numbers(control, 0), pixels),
    }
    return factories[name]()


__all__ = [
    "FORMATS",
    "CocoFormat",
    "Format",
    "LabelStudioFormat",
    "PngFormat",
    "PolygonFormat",
    "YoloFormat",
    "make_format",
]
