"""The labelling config and its brush controls."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from xml.etree.ElementTree import Element, ParseError  # nosec B405 - for types and errors: defusedxml parses

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from walkcut.errors import LabelConfigError
from walkcut.labelstudio.categories import label_categories

_MAX_CHARACTERS = 1_000_000
UNLABELLED = ""  # the label of a region without one: Label Studio shows it grey, to be named
EXAMPLE_CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Region"/></BrushLabels></View>'
)


@dataclass(frozen=True)
class BrushControl:
    """A brush control and the image that it labels.

    `data_key` names the image in a task's data, `options` are the tag's attributes, and `labels` all labels of the
    control. Pre-annotated regions take the `neutral_labels` in turn, so that neighbours differ in colour; there are
    none where the config has several labels and marks none of them as neutral.
    `status_field` names the text field for messages to annotators: `status`, else `granularity`, else the first one of
    the image; it is empty where the config has none. `categories` are the class numbers of labels, see
    `label_categories`.
    """

    from_name: str
    to_name: str
    data_key: str
    neutral_labels: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    status_field: str = ""
    categories: Mapping[str, int] = field(default_factory=dict)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The labels for regions that nobody has named: the neutral ones, else the empty label."""
        return self.neutral_labels or (UNLABELLED,)

    def is_class(self, label: str) -> bool:
        """Return whether a label names a kind of object: it is neither neutral nor empty."""
        return label not in {UNLABELLED, *self.neutral_labels}


def parse_brush_controls(label_config: str) -> tuple[BrushControl, ...]:
    """Return the brush controls of a labelling config, the first one of each image.

    Raises `LabelConfigError` with an example where the config is not XML or has no brush control on an image.
    """
    if len(label_config) > _MAX_CHARACTERS:
        raise LabelConfigError(
            f"the labelling config has {len(label_config)} characters, more than {_MAX_CHARACTERS}: make it shorter"
        )
    try:
        root = fromstring(label_config)
    except (ParseError, DefusedXmlException, ValueError, TypeError) as error:
        raise LabelConfigError(
            f"the labelling config is not readable XML ({error}): write for example {EXAMPLE_CONFIG}"
        ) from error
    image_tags = {image.get("name", ""): image for image in root.iter("Image")}
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for text in root.iter("TextArea"):
        texts[text.get("toName", "")].append(text.get("name", ""))
    controls: dict[str, BrushControl] = {}
    for control in root.iter("BrushLabels"):
        to_name = control.get("toName", "")
        if to_name in image_tags and to_name not in controls:
            preferred = ("status", "granularity", *texts[to_name])
            status_field = next((name for name in preferred if name in texts[to_name]), "")
            controls[to_name] = _control(control, image_tags[to_name], status_field)
    if not controls:
        raise LabelConfigError(
            f"walkcut needs BrushLabels on an Image in the labelling config, for example {EXAMPLE_CONFIG}"
        )
    categories = label_categories(root)
    return tuple(replace(control, categories=categories) for control in controls.values())


def semantic_labels(controls: Sequence[BrushControl]) -> frozenset[str]:
    """Return the labels that name kinds of objects: all but the neutral ones."""
    return frozenset(label for control in controls for label in control.labels if control.is_class(label))


def _control(control: Element, image: Element, status_field: str) -> BrushControl:
    """Return the brush control of a tag; a single label is neutral.

    Raises `LabelConfigError` without an image variable or without labels.
    """
    value = image.get("value", "")
    if not value.startswith("$") or len(value) < 2:
        raise LabelConfigError(
            f'the tag <Image name={image.get("name", "")!r}> needs value="$KEY", where KEY names one image in the '
            "task's data, such as $image; lists of images (valueList) are not supported"
        )
    labels = {label.get("value", ""): label.get("neutral") == "true" for label in control.iter("Label")}
    labels.pop("", None)
    if not labels:
        raise LabelConfigError(f'<BrushLabels name={control.get("name", "")!r}> needs a <Label value="Region"/>')
    neutral_labels = tuple(label for label, is_neutral in labels.items() if is_neutral or len(labels) == 1)
    names = control.get("name", ""), image.get("name", "")
    return BrushControl(*names, value[1:], neutral_labels, dict(control.attrib), tuple(labels), status_field)
