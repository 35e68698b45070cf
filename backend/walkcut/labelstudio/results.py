"""Items of results: the documents of regions, texts and choices, in annotations, drafts and contexts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from walkcut.labelstudio.config import UNLABELLED

_GEOMETRY: Final = {  # fields of a value, of which each shape has one
    "brush": ("rle", "touches", "maskDataURL"),
    "bitmask": ("imageDataURL",),
    "polygon": ("points",),
    "vector": ("vertices",),
    "ellipse": ("radiusX",),
    "rectangle": ("height",),
    "keypoint": ("x",),
}


@dataclass(frozen=True)
class ShapeItem:
    """The item that holds the shape of a region or a prompt, and its label, empty for none."""

    item: Mapping[str, Any]
    shape: str
    label: str

    @property
    def id(self) -> str:
        """The region's id in Label Studio; empty without one."""
        identity = self.item.get("id")
        return identity if isinstance(identity, str) else ""

    @property
    def value(self) -> Mapping[str, Any]:
        """The value that describes the shape."""
        return dict(self.item["value"])

    @property
    def has_geometry(self) -> bool:
        """Whether the value describes the shape that the item's type says."""
        return any(name in self.value for name in _GEOMETRY[self.shape])


def result_items(result: object) -> list[dict[str, Any]]:
    """Return the items of a result that have a type and a value; none for anything but a list."""
    items = [item for item in result if isinstance(item, dict)] if isinstance(result, list) else []
    return [item for item in items if isinstance(item.get("type"), str) and isinstance(item.get("value"), dict)]


def shape_items(result: object) -> list[ShapeItem]:
    """Return the shapes in a result, in order, each once.

    Label Studio writes an item for each control that labels a region, all with the region's id and the same value: one
    for `<Polygon>` and one for `<Labels>`, which holds the label, or a further one of another control whose label was
    selected when a suggestion was accepted.
    """
    items, shapes = result_items(result), list[ShapeItem]()
    labels = {
        str(item.get("id")): _first_label(item["value"].get("labels")) for item in items if item["type"] == "labels"
    }
    last = dict[object, int]()  # shape with an id, on an image
    for item in items:
        if shape := shape_of(item["type"]):
            label = _first_label(item["value"].get(f"{shape}labels"))
            found = ShapeItem(item, shape, label or labels.get(str(item.get("id")), UNLABELLED))
            index = last.get((found.id, str(item.get("to_name"))), len(shapes)) if found.id else len(shapes)
            if index == len(shapes) or geometry(shapes[index].item) != geometry(item):
                index = len(shapes)
                shapes.append(found)
            elif (found.has_geometry, bool(found.label)) > (shapes[index].has_geometry, bool(shapes[index].label)):
                shapes[index] = found
            last[found.id, str(item.get("to_name"))] = index
    return shapes


def shape_of(result_type: str) -> str:
    """Return the shape of a type of result, empty for others; a magic wand's is a brush's.

    >>> shape_of("polygonlabels"), shape_of("ellipse"), shape_of("magicwand"), shape_of("choices")
    ('polygon', 'ellipse', 'brush', '')
    """
    shape = result_type.removesuffix("labels")
    return "brush" if shape == "magicwand" else shape if shape in _GEOMETRY else ""


def geometry(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the value of an item says of the shape, without its labels."""
    return {name: value for name, value in item["value"].items() if name != "format" and not name.endswith("labels")}


def _first_label(labels: object) -> str:
    return labels[0] if isinstance(labels, list) and labels and isinstance(labels[0], str) else UNLABELLED
