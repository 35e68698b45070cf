"""The labelling config and its brush controls."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from itertools import chain, count

from walkcut.errors import LabelConfigError, SettingsError
from walkcut.images import redact
from walkcut.images.decode import IMAGE_SUFFIXES
from walkcut.labelstudio.categories import label_categories
from walkcut.labelstudio.tags import EXAMPLE_CONFIG, Label, Tag, is_prompt, read_tags
from walkcut.labelstudio.task_data import variables, without_variables

UNLABELLED = ""  # the label of a region without one: Label Studio shows it grey, to be named
_SHAPES = ("brush", "bitmask", "polygon", "rectangle", "ellipse", "keypoint", "vector", "magicwand")
_REGION_TAGS = frozenset([*_SHAPES, *(f"{shape}labels" for shape in _SHAPES), "labels"])
_PATH = re.compile(r"\w+(\.\w+|\[\d+\])*", re.ASCII)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:|/", re.IGNORECASE)
_ADDRESS_PART = re.compile(r"[/.?=&:]")  # in the text behind a variable
_MAX_LISTED = 3


@dataclass(frozen=True)
class BrushControl:
    """A brush control and the image that it labels.

    `image_value` is the `value` of the image's tag, which names it in a task's data; `options` are the tag's
    attributes, and `labels` all labels of the control as results have them: the alias of those that have one. `names`
    maps each value and alias of the image's labels to that label, or to a prompt. Pre-annotated regions take the
    `neutral_labels` in turn, so that neighbours differ in colour; there are none where the config has several labels
    and marks none of them as neutral.
    `status_field` names the text field for messages to annotators: `status`, else `granularity`, else the first one of
    the image; it is empty where the config has none. `categories` are the class numbers of labels, see
    `label_categories`.
    """

    from_name: str
    to_name: str
    image_value: str
    neutral_labels: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    status_field: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, int] = field(default_factory=dict)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The labels for regions that nobody has named: the neutral ones, else the empty label."""
        return self.neutral_labels or (UNLABELLED,)

    @property
    def data_paths(self) -> list[str]:
        """The paths in a task's data that the image's address is made of, usually one."""
        return variables(self.image_value)

    @property
    def data_path(self) -> str:
        """The path of the image in a task's data. Raises `SettingsError` where its address has other parts too."""
        path = self.image_value[1:]
        if self.data_paths != [path] or re.search(r"\[0*[1-9]", path):
            raise SettingsError(
                f'<Image name={self.to_name!r} value="{self.image_value}"> does not name a field that holds one image '
                'file: write value="$image", or import the tasks into Label Studio and use `walkcut prelabel --project`'
            )
        return path

    def is_class(self, label: str) -> bool:
        """Return whether a label names a kind of object: it is neither neutral nor empty."""
        return label not in {UNLABELLED, *self.neutral_labels}

    def label_of(self, name: str) -> str:
        """Return the label, or the prompt, whose value or alias is `name`; any other name as it is."""
        return self.names.get(name, name)


def parse_brush_controls(label_config: str) -> tuple[BrushControl, ...]:
    """Return the brush controls of a labelling config, the first one of each image.

    Raises `LabelConfigError`, with the smallest change that makes it usable, where the config is not XML, has no brush
    control on an image, or has one that cannot be served.
    """
    tags = read_tags(label_config)
    images = {tag.name: tag for tag in tags if tag.kind == "image"}
    brushes = [tag for tag in tags if tag.kind == "brushlabels"]
    if not images or not brushes:
        raise LabelConfigError(_missing_brush(tags, images))
    for brush in brushes:
        _check_brush(brush, images)
    first = {brush.to_name: brush for brush in reversed(brushes)}
    ordered = dict.fromkeys(brush.to_name for brush in brushes)
    on_image: defaultdict[str, list[Tag]] = defaultdict(list)
    for tag in tags:
        on_image[tag.to_name].append(tag)
    categories = label_categories(tags[0].element)
    controls = (_control(first[name], images[name], on_image[name]) for name in ordered)
    return tuple(replace(control, categories=categories) for control in controls)


def unused_controls(label_config: str) -> tuple[tuple[str, str], ...]:
    """Return the controls of a usable config that walkcut leaves out, each with the remedy. Raises as above."""
    controls = {control.to_name: control for control in parse_brush_controls(label_config)}
    drawn = [tag for tag in read_tags(label_config) if tag.kind in _REGION_TAGS and tag.to_name in controls]
    unused = [(str(tag), controls[tag.to_name]) for tag in drawn if not _is_used(tag, controls[tag.to_name])]
    return tuple(
        (
            f"the regions of {title} are neither predicted nor learned from, only those of {control.from_name!r}",
            f"to have them, add their labels to <BrushLabels name={control.from_name!r}>, and draw with that",
        )
        for title, control in unused
    )


def semantic_labels(controls: Sequence[BrushControl]) -> frozenset[str]:
    """Return the labels that name kinds of objects: all but the neutral ones."""
    return frozenset(label for control in controls for label in control.labels if control.is_class(label))


def _is_used(tag: Tag, control: BrushControl) -> bool:
    """Return whether walkcut reads a tag: a brush, or key points and boxes with commands or the brush's labels."""
    if tag.name == control.from_name or tag.kind == "brush":
        return True
    labels = [control.label_of(label.name) for label in tag.labels]
    is_known = all(is_prompt(label) or label in control.labels for label in labels)
    return tag.kind in {"keypointlabels", "rectanglelabels"} and bool(labels) and is_known


def _missing_brush(tags: Sequence[Tag], images: Mapping[str, Tag]) -> str:
    """Return why a config has no brush control on an image, and the smallest change."""
    need = "walkcut needs BrushLabels on an Image"
    if not images:
        kinds = ", ".join([*dict.fromkeys(str(tag) for tag in tags if tag.name and not tag.to_name)][:_MAX_LISTED])
        return f"{need}, and the labelling config has no <Image>{f' but {kinds}' * bool(kinds)}: use {EXAMPLE_CONFIG}"
    drawn = [tag for tag in tags if tag.kind in _REGION_TAGS and tag.to_name in images]
    image = next((images[tag.to_name] for tag in drawn), next(iter(images.values())))
    labels = [label.name for tag in drawn for label in tag.labels if tag.to_name == image.name]
    taken = {tag.name for tag in tags}
    name = next(name for name in chain(["brush"], (f"brush{index}" for index in count(2))) if name not in taken)
    try:
        _check_image(image)
    except LabelConfigError as error:
        return f"{error}, and add {_brush_example(name, 'image' if image.is_repeated else image.name, labels)}"
    brush = _brush_example(name, image.name, labels)
    if any(tag.kind == "brush" for tag in drawn):
        used = " and ".join(str(tag) for tag in drawn if tag.kind in {"brush", "labels"})
        return f"{need}, and a mask of <Brush> has no label of its own: replace {used} by {brush}"
    if drawn:
        return f"{need}, and {drawn[0]} takes no masks: add {brush}, beside it or in its place"
    return f"{need}, and {image} has no control that takes masks: add {brush}"


_REPEATED = (
    "repeated by <Repeater>, whose pages walkcut does not segment: import each page as a task, move the tags out of "
    'the <Repeater>, write <Image value="$image">'
)


def _brush_example(name: str, to_name: str, labels: Sequence[str]) -> str:
    """Return a brush control with some labels, as XML."""
    names = [*dict.fromkeys(labels)][:_MAX_LISTED] or ["Region"]
    more = "…" if len({*labels}) > len(names) else ""
    tags = "".join(f'<Label value="{escape(label)}"/>' for label in names) + more
    return f'<BrushLabels name="{name}" toName="{escape(to_name)}">{tags}</BrushLabels>'


def _check_brush(brush: Tag, images: Mapping[str, Tag]) -> None:
    """Raise `LabelConfigError` for a brush control that cannot be served: its name, its image or its labels."""
    image = images.get(brush.to_name)
    if not brush.name:
        raise LabelConfigError('<BrushLabels> needs a name that no other tag has: write <BrushLabels name="brush" …>')
    if "" in images:
        raise LabelConfigError(
            f'<Image> needs a name, for the toName of its controls: write <Image name="{brush.to_name or "image"}" …>'
        )
    if image is None or not brush.to_name:
        raise LabelConfigError(
            f"{brush} needs toName with the name of one <Image>, and has {brush.to_name!r}: walkcut needs BrushLabels "
            f'on an Image, so write toName="{next(iter(images))}"'
        )
    if brush.get("value").strip():
        raise LabelConfigError(
            f'{brush} takes its labels from each task (value="{brush.get("value")}"), and walkcut learns labels of the '
            'project: remove value, and list them as <Label value="…"/>'
        )
    if not brush.labels:
        raise LabelConfigError(f'{brush} needs a <Label value="Region"/>: add one inside')
    _check_image(image)


def _check_image(image: Tag) -> None:
    """Raise `LabelConfigError` for an image whose address Label Studio, and so walkcut, cannot tell from a task."""
    value, value_list = image.get("value").strip(), image.get("valuelist")
    remedy = 'write value="$image", where image is the field of the task that holds its address'
    if image.is_repeated:
        raise LabelConfigError(f"{image} is {_REPEATED}")
    if value_list:
        raise LabelConfigError(
            f'{image} has a list of images (valueList="{value_list}"): import a task for each image, and {remedy}'
        )
    if not value:
        raise LabelConfigError(f"{image} needs a value: {remedy}")
    if problem := _value_problem(value):
        raise LabelConfigError(f"{image} has value={redact(value)}, {problem}; {remedy}")


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


def _control(brush: Tag, image: Tag, on_image: Sequence[Tag]) -> BrushControl:
    """Return the brush control of a tag; a single label is neutral."""
    texts = [tag.name for tag in on_image if tag.kind == "textarea"]
    status_field = next((name for name in ("status", "granularity", *texts) if name in texts), "")
    labels = {label.name: label.is_neutral for label in brush.labels}
    neutral_labels = tuple(label for label, is_neutral in labels.items() if is_neutral or len(labels) == 1)
    names = _names(brush.labels, [label for tag in on_image if tag is not brush for label in tag.labels])
    return BrushControl(
        brush.name,
        image.name,
        image.get("value").strip(),
        neutral_labels,
        dict(brush.attributes),
        tuple(labels),
        status_field,
        names,
    )


def _names(labels: Iterable[Label], others: Iterable[Label]) -> dict[str, str]:
    """Return the label that each value and alias stands for, where that differs.

    Label Studio writes the alias into results, and reads both. An alias comes before an equal value of another label. A
    label of another tag of the image stands for the brush's label, or the prompt, that its value or its alias names.
    """
    names: dict[str, str] = {label.name: label.name for label in labels}
    for label in labels:
        names.setdefault(label.value, label.name)
    of_brush = dict(names)
    for label in others:
        known = [of_brush.get(name, name) for name in (label.value, label.name) if name in of_brush or is_prompt(name)]
        for name in (label.name, label.value):
            names.setdefault(name, known[0] if known else label.name)
    return {name: label for name, label in names.items() if name != label}
