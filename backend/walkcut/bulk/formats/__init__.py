"""Output formats of bulk runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from walkcut.bulk.formats.coco import CocoFormat
from walkcut.bulk.formats.label_maps import classes
from walkcut.bulk.formats.labelstudio import LabelStudioFormat
from walkcut.bulk.formats.png import PngFormat
from walkcut.bulk.formats.polygon import PolygonFormat
from walkcut.bulk.formats.protocol import Format
from walkcut.bulk.formats.yolo import YoloFormat
from walkcut.errors import SettingsError
from walkcut.labelstudio.config import BrushControl


@dataclass(frozen=True)
class FormatOptions:
    """Options of formats: the control that regions are for, and the `tolerance` of polygons in pixels."""

    control: BrushControl
    tolerance: float = 1.0


FORMATS: Mapping[str, Callable[[FormatOptions], Format]] = {
    LabelStudioFormat.name: lambda options: LabelStudioFormat(options.control),
    PngFormat.name: lambda _: PngFormat(),
    CocoFormat.name: lambda options: CocoFormat(classes(options.control)),
    PolygonFormat.name: lambda options: PolygonFormat(options.tolerance),
    YoloFormat.name: lambda options: YoloFormat(classes(options.control), options.tolerance),
}


def make_format(name: str, options: FormatOptions) -> Format:
    """Return a format by its name. Raises `SettingsError` for an unknown name, and for options that it rejects."""
    if name not in FORMATS:
        raise SettingsError(f"unknown format {name!r}: use {', '.join(FORMATS)}")
    return FORMATS[name](options)


__all__ = [
    "FORMATS",
    "CocoFormat",
    "FormatOptions",
    "LabelStudioFormat",
    "PngFormat",
    "PolygonFormat",
    "YoloFormat",
    "make_format",
]
