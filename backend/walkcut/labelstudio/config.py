"""The labelling config: its images, and the control tags that their regions are written with."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from walkcut.errors import LabelConfigError, SettingsError
from walkcut.labelstudio.categories import label_categories
from walkcut.labelstudio.config_problems import SHAPE_TAGS, control_problem, missing_control, region_shape
from walkcut.labelstudio.tags import PROMPTS, Label, Tag, is_prompt, read_tags, read_task_labels
from walkcut.labelstudio.task_data import variables
from walkcut.masks.polygons import DEFAULT_TOLERANCE

UNLABELLED = ""  # the label of a region without one: Label Studio shows it grey, to be named
_MAX_TOLERANCE: Final = 100
OUTPUT: Final = "walkcut_output"  # an attribute of tags, and an extra parameter


@dataclass(frozen=True)
class ControlTag:
    """A control tag that regions are written with: its name, the shape of its regions, and the labels that they take.

    The labels are those that its regions have in results: the alias of a label that has one. A control without labels
    of its own, such as `<Polygon>`, takes those of the `<Labels>` tag of its image, whose name is `labels_name` then.
    `task_labels` is the variable that names more of them in a task's data. `tolerance` is the largest distance of a
    polygon from the region's border, in pixels.
    """

    name: str
    shape: str
    labels: tuple[str, ...] = ()
    labels_name: str = ""  # empty for a control that takes no labels
    tolerance: float = DEFAULT_TOLERANCE
    task_labels: str = ""

    @property
    def result_type(self) -> str:
        """The type of its results, which is the name of its tag."""
        return f"{self.shape}labels" if self.labels_name == self.name else self.shape

    def __str__(self) -> str:
        kind = SHAPE_TAGS[self.shape]
        return f"<{kind if self.labels_name == self.name else kind.removesuffix('Labels')} name={self.name!r}>"


@dataclass(frozen=True)
class ImageTag:
    """An image of the labelling config, and the `controls` that its regions are written with, the preferred one first.

    `value` is the attribute of its tag that names it in a task's data, a list of images (pages) if it `is_list`.
    `options` are the attributes of its first control. `names` maps each value and alias of the image's labels to that
    label, or to a prompt. Regions that nobody has named take the `neutral_labels` in turn, so that neighbours differ in
    colour; there are none where the config has several labels and marks none of them as neutral.
    `status_field` names the text field for messages to annotators: `status`, else `granularity`, else the first one of
    the image; it is empty where the config has none. `categories` are the class numbers of labels, see
    `label_categories`.
    """

    name: str
    value: str
    controls: tuple[ControlTag, ...]
    neutral_labels: tuple[str, ...] = ()
    is_list: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    status_field: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, int] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels of the controls."""
        return tuple(dict.fromkeys(label for control in self.controls for label in control.labels))

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The labels for regions that nobody has named: the neutral ones, else the empty label."""
        return self.neutral_labels or (UNLABELLED,)

    @property
    def data_paths(self) -> list[str]:
        """The paths in a task's data that the image's address is made of, usually one."""
        return variables(self.value)

    @property
    def data_path(self) -> str:
        """The path of the image in a task's data. Raises `SettingsError` where its address has other parts too."""
        path = self.value[1:]
        if self.data_paths != [path] or re.search(r"\[0*[1-9]", path):
            raise SettingsError(
                f'<Image name={self.name!r} value="{self.value}"> does not name a field that holds one image file: '
                'write value="$image", or import the tasks into Label Studio and use `walkcut prelabel --project`'
            )
        return f"{path}[0]" if self.is_list else path

    def is_class(self, label: str) -> bool:
        """Return whether a label names a kind of object: it is neither neutral nor empty."""
        return label not in {UNLABELLED, *self.neutral_labels}

    def label_of(self, name: str) -> str:
        """Return the label, or the prompt, whose value or alias is `name`; any other name as it is."""
        return self.names.get(name, name)

    def with_task_labels(self, data: Mapping[str, Any]) -> "ImageTag":
        """Return the image with the labels, too, that its controls take from a task's data: all are classes."""
        controls, names, taken = list[ControlTag](), dict(self.names), {*self.labels}
        for control in self.controls:
            found = [label for label in read_task_labels(control.task_labels, data) if label.name not in taken]
            taken |= {label.name for label in found}
            names |= {label.value: label.name for label in found if label.value not in {label.name, *taken}}
            controls.append(replace(control, labels=(*control.labels, *dict.fromkeys(label.name for label in found))))
        return replace(self, controls=tuple(controls), names=names)

    def control_of(self, label: str) -> ControlTag:
        """Return the control that holds a label, or the preferred one."""
        return next((control for control in self.controls if label in control.labels), self.controls[0])


def parse_image_tags(label_config: str, output: str = "") -> tuple[ImageTag, ...]:
    """Return the images of a labelling config that regions can be written on, in the order of their controls.

    Each label belongs to one control, the first that holds it: those of the shape of an attribute `walkcut_output` (on
    the image or its tags, else on any) or, without one, of the extra parameter `output` come first, then those without
    commands, then those closest to masks.
    Raises `LabelConfigError`, with the smallest change that makes the config usable, where it is not XML, has no
    control that regions can be written with, or none of the shape asked for.
    """
    tags = read_tags(label_config)
    images = {tag.name: tag for tag in tags if tag.kind == "image"}
    problems = [(tag, control_problem(tag, images)) for tag in tags if region_shape(tag)]
    usable = [tag for tag, problem in problems if not problem]
    if not images or not problems:
        raise LabelConfigError(missing_control(tags, images))
    if not usable:
        raise LabelConfigError(problems[0][1])
    shapes = {region_shape(tag): problem for tag, problem in reversed(problems) if problem}
    shapes |= {region_shape(tag): "" for tag in usable}
    output = _output_shape(tags, shapes, output)
    categories = label_categories(tags[0].element)
    usable_on, on_image = _by_image(usable), _by_image(tags)
    outputs = {name: _output_shape([images[name], *on_image[name]], shapes, output) for name in usable_on}
    image_tags = (_image_tag(images[name], on_image[name], usable_on[name], outputs[name]) for name in usable_on)
    return tuple(replace(image_tag, categories=categories) for image_tag in image_tags)


def unused_controls(label_config: str) -> tuple[tuple[str, str], ...]:
    """Return the problems of the controls of a usable config that walkcut leaves out, each with the remedy.

    Raises as `parse_image_tags`.
    """
    tags, image_tags = read_tags(label_config), {tag.name: tag for tag in parse_image_tags(label_config)}
    images = {tag.name: tag for tag in tags if tag.kind == "image"}
    problems = [(tag, control_problem(tag, images)) for tag in tags if region_shape(tag)]
    points = [tag for tag in tags if tag.kind.startswith("keypoint") and tag.to_name in image_tags]
    unknown = [tag for tag in points if not _is_prompt_tag(tag, image_tags[tag.to_name])]
    return (
        *((f"{tag} is left out", problem) for tag, problem in problems if problem and tag.to_name in images),
        *(
            (
                f"the points of {tag} are neither predicted nor learned from, as they cover nothing",
                f"to point at regions with them, use labels of {image_tags[tag.to_name].controls[0].name!r}, or "
                f"{', '.join(PROMPTS)}",
            )
            for tag in unknown
        ),
    )


def semantic_labels(image_tags: Sequence[ImageTag]) -> frozenset[str]:
    """Return the labels that name kinds of objects: all but the neutral ones."""
    return frozenset(label for image_tag in image_tags for label in image_tag.labels if image_tag.is_class(label))


def _is_prompt_tag(tag: Tag, image_tag: ImageTag) -> bool:
    """Return whether all labels of a tag are commands or labels of the image's controls."""
    if tag.task_labels and tag.task_labels not in {control.task_labels for control in image_tag.controls}:
        return False
    labels = [image_tag.label_of(label.name) for label in tag.labels]
    return bool(labels or tag.task_labels) and all(is_prompt(label) or label in image_tag.labels for label in labels)


def _output_shape(tags: Sequence[Tag], shapes: Mapping[str, str], output: str) -> str:
    """Return the shape that an attribute or the extra parameter `output` asks for, empty if none does.

    `shapes` are those of the config's controls, with the reason why none of it can be used, empty if one can. Raises
    `LabelConfigError` where none of the shape can be used.
    """
    tag = next((tag for tag in tags if tag.get(OUTPUT).strip()), None)
    text = tag.get(OUTPUT) if tag else output
    shape = text.strip().lower().removesuffix("labels")
    if not shape or shapes.get(shape) == "":
        return shape
    source = f"{tag} has" if tag else "the extra parameters have"
    if shape in shapes:
        raise LabelConfigError(f'{source} {OUTPUT}="{shape}", and {shapes[shape]}')
    usable = " and ".join(shape for shape, problem in shapes.items() if not problem)
    raise LabelConfigError(
        f'{source} {OUTPUT}="{text[:40]}", and the labelling config has controls for {usable}: write one of these, or '
        + (f"add <{SHAPE_TAGS[shape]}>" if shape in SHAPE_TAGS else "remove it")
    )


def _by_image(tags: Iterable[Tag]) -> dict[str, list[Tag]]:
    """Return the tags of each image, by its name."""
    by_image = defaultdict[str, list[Tag]](list)
    for tag in tags:
        by_image[tag.to_name].append(tag)
    return by_image


def _image_tag(image: Tag, on_image: Sequence[Tag], usable: Sequence[Tag], output: str) -> ImageTag:
    """Return an image and the controls that its regions are written with, of those on it that are usable."""
    controls, sources, taken = list[ControlTag](), list[Tag](), set[str]()
    shared = next((tag for tag in on_image if tag.kind == "labels" and (tag.labels or tag.task_labels)), None)
    for tag in sorted(usable, key=partial(_preference, output=output)):
        source = tag if shared is None or tag.kind.endswith("labels") else shared
        names = [label.name for label in source.labels if not is_prompt(label.name)]
        labels = tuple(name for name in dict.fromkeys(names) if name not in taken)
        taken.update(labels)
        task_labels = source.task_labels if all(source.task_labels != other.task_labels for other in controls) else ""
        if labels or task_labels or not controls:
            labels_name = source.name if source.labels or task_labels else ""
            controls.append(ControlTag(tag.name, region_shape(tag), labels, labels_name, _tolerance(tag), task_labels))
            sources.append(source)
    known = [label for source in sources for label in source.labels]
    own = {id(source) for source in sources}
    others = [label for tag in on_image if id(tag) not in own for label in tag.labels]
    texts = [tag.name for tag in on_image if tag.kind == "textarea"]
    return ImageTag(
        image.name,
        (image.get("valuelist") or image.get("value")).strip(),
        tuple(controls),
        _neutral_labels(known, controls),
        is_list=bool(image.get("valuelist")),
        options=dict(next(tag for tag in on_image if tag.name == controls[0].name).attributes),
        status_field=next((name for name in ("status", "granularity", *texts) if name in texts), ""),
        names=_names(known, others),
    )


def _preference(tag: Tag, output: str) -> tuple[bool, bool, int, bool]:
    """Return the key by which controls are sorted: the shape asked for, no commands, close to masks, own labels."""
    shape = region_shape(tag)
    has_commands = any(is_prompt(label.name) for label in tag.labels)
    return shape != output, has_commands, [*SHAPE_TAGS].index(shape), not tag.labels


def _neutral_labels(labels: Sequence[Label], controls: Sequence[ControlTag]) -> tuple[str, ...]:
    """Return the labels that are marked as neutral, or are the only one of the preferred control."""
    marked = {label.name for label in labels if label.is_neutral}
    single = controls[0].labels if len(controls[0].labels) == 1 and not controls[0].task_labels else ()
    return tuple(name for control in controls for name in control.labels if name in marked or name in single)


def _tolerance(tag: Tag) -> float:
    """Return the tolerance of a control. Raises `LabelConfigError` for anything but a number of pixels."""
    text = tag.get("tolerance") or str(DEFAULT_TOLERANCE)
    try:
        tolerance = float(text)
    except ValueError:
        tolerance = math.nan
    if not 0 <= tolerance <= _MAX_TOLERANCE:
        raise LabelConfigError(f'{tag} has tolerance="{text}": write pixels from 0 to {_MAX_TOLERANCE}, such as 1.5')
    return tolerance


def _names(labels: Iterable[Label], others: Iterable[Label]) -> dict[str, str]:
    """Return the label that each value and alias stands for, where that differs.

    Label Studio writes the alias into results, and reads both. An alias comes before an equal value of another label. A
    label of another tag of the image stands for the control's label, or the prompt, that its value or its alias names.
    """
    names: dict[str, str] = {label.name: label.name for label in labels}
    for label in labels:
        names.setdefault(label.value, label.name)
    of_control = dict(names)
    for label in others:
        known = [
            of_control.get(name, name) for name in (label.value, label.name) if name in of_control or is_prompt(name)
        ]
        for name in (label.name, label.value):
            names.setdefault(name, known[0] if known else label.name)
    return {name: label for name, label in names.items() if name != label}
