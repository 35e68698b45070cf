"""Why walkcut cannot write regions with a control of a labelling config, and the smallest change that would help."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import chain, count
from typing import Final

from walkcut.images import redact
from walkcut.images.decode import IMAGE_SUFFIXES
from walkcut.labelstudio.tags import EXAMPLE_CONFIG, Tag, is_prompt
from walkcut.labelstudio.task_data import variables, without_variables

SHAPE_TAGS: Final = {  # those closest to masks first
    "brush": "BrushLabels",
    "bitmask": "BitmaskLabels",
    "polygon": "PolygonLabels",
    "vector": "VectorLabels",
    "ellipse": "EllipseLabels",
    "rectangle": "RectangleLabels",
}
_NEED: Final = "walkcut needs a control that takes regions, such as BrushLabels, on an Image"
_PATH: Final = re.compile(r"\w+(\.\w+|\[\d+\])*", re.ASCII)
_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]*:|/", re.IGNORECASE)
_ADDRESS_PART: Final = re.compile(r"[/.?=&:]")  # in the text behind a variable
_MAX_LISTED: Final = 3


def region_shape(tag: Tag) -> str:
    """Return the shape of the regions of a control, empty for a tag without regions, or for commands alone."""
    shape = tag.kind.removesuffix("labels")
    is_prompt_tag = bool(tag.labels) and all(is_prompt(label.name) for label in tag.labels)
    return "" if is_prompt_tag or shape not in SHAPE_TAGS else shape


def control_problem(tag: Tag, images: Mapping[str, Tag]) -> str:
    """Return why regions cannot be written with a control, with the remedy; empty if they can."""
    image = images.get(tag.to_name)
    if not tag.name:
        return f'{tag} needs a name that no other tag has: write {str(tag)[:-1]} name="{region_shape(tag)}" …>'
    if "" in images:
        return f'<Image> needs a name, for the toName of its controls: write <Image name="{tag.to_name or "image"}" …>'
    if image is None or not tag.to_name:
        return (
            f"{tag} needs toName with the name of one <Image>, and has {tag.to_name!r}: write "
            f'toName="{next(iter(images), "image")}"'
        )
    if tag.task_labels and variables(tag.task_labels) != [tag.task_labels[1:]]:
        return (
            f'{tag} has value={redact(tag.task_labels)}: write value="$labels", where labels is the field of a task '
            'that holds the list of labels, or remove it and add a <Label value="Region"/> inside'
        )
    if tag.kind.endswith("labels") and not (tag.labels or tag.task_labels):
        return f'{tag} needs a <Label value="Region"/>: add one inside'
    return _image_problem(image)


def missing_control(tags: Sequence[Tag], images: Mapping[str, Tag]) -> str:
    """Return why a config without a control that takes regions cannot be used, and the smallest change."""
    if not images:
        kinds = ", ".join([*dict.fromkeys(str(tag) for tag in tags if tag.name and not tag.to_name)][:_MAX_LISTED])
        return f"{_NEED}, and the labelling config has no <Image>{f' but {kinds}' * bool(kinds)}: use {EXAMPLE_CONFIG}"
    drawn = [tag for tag in tags if tag.labels and tag.to_name in images]
    image = next((images[tag.to_name] for tag in drawn), next(iter(images.values())))
    labels = [label.name for tag in drawn for label in tag.labels if tag.to_name == image.name]
    taken = {tag.name for tag in tags}
    name = next(name for name in chain(["brush"], (f"brush{index}" for index in count(2))) if name not in taken)
    if problem := _image_problem(image):
        return f"{problem}, and add {_brush_example(name, 'image' if image.is_repeated else image.name, labels)}"
    brush = _brush_example(name, image.name, labels)
    if drawn:
        return f"{_NEED}, and {drawn[0]} takes none: add {brush}, beside it or in its place"
    return f"{_NEED}, and {image} has none: add {brush}"


def _brush_example(name: str, to_name: str, labels: Sequence[str]) -> str:
    """Return a brush control with some labels, as XML."""
    names = [label for label in dict.fromkeys(labels) if not is_prompt(label)][:_MAX_LISTED] or ["Region"]
    more = "…" if len({*labels}) > len(names) else ""
    tags = "".join(f'<Label value="{escape(label)}"/>' for label in names) + more
    return f'<BrushLabels name="{name}" toName="{escape(to_name)}">{tags}</BrushLabels>'


def _image_problem(image: Tag) -> str:
    """Return why Label Studio, and so walkcut, cannot tell the image's address from a task; empty if it can."""
    value = (image.get("valuelist") or image.get("value")).strip()
    remedy = 'write value="$image", where image is the field of the task that holds its address'
    if image.is_repeated:
        return (
            f"{image} is repeated by <Repeater>, whose pages walkcut does not segment: move the tags out of it, and "
            'write <Image valueList="$pages"> with the list of pages, or import each page as a task'
        )
    if not value:
        return f"{image} needs a value: {remedy}"
    if image.get("valuelist") and variables(value) != [value[1:]]:
        field = value if _PATH.fullmatch(value) else "pages"
        return (
            f'{image} has valueList={redact(value)}: write valueList="${field}", where {field} is the field of a task '
            "that holds the list of addresses"
        )
    if problem := _value_problem(value):
        return f"{image} has value={redact(value)}, {problem}; {remedy}"
    return ""


def _value_problem(value: str) -> str:
    """Return why the value of an image's tag names no image that Label Studio can show; empty if it does."""
    paths, text = variables(value), without_variables(value).strip()
    endings = [path for path in paths if "." in path and f".{path.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES]
    if "$" in text or any("{" in path or "}" in path for path in paths):
        return "and Label Studio reads letters a to z, digits and _ only: rename the field"
    if any(not _PATH.fullmatch(path) for path in paths):
        return "whose variable is no path of a field: write for example $image.url or $img[0].url"
    if not paths and not _ADDRESS.match(text):
        return "which has no $, and is no address: put a $ before the name of the field"
    if value.startswith("$") and text and not _ADDRESS_PART.search(text):
        return f"which Label Studio reads as the field {paths[0]!r} and a text: rename it to letters, digits and _"
    if endings and text:
        return f"where Label Studio reads {endings[0]!r} as one field: put the ending of the file into the data"
    return ""
