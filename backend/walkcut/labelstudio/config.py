"""The labelling config: where regions go."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, ParseError  # nosec B405 - their names alone: defusedxml reads

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from walkcut.errors import LabelConfigError

_MOST_CHARACTERS = 1_000_000
_EXAMPLE = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Region"/></BrushLabels></View>'
)


@dataclass(frozen=True)
class BrushControl:
    """A brush control and the image it labels: where regions go, and what the tag's attributes wish for.

    Pre-annotated regions take the control's `generic_labels` labels in turn, so that neighbours differ in colour; `labels`
    are all that it has. `status` names the text field in which annotators are answered, if there is one.
    """

    from_name: str
    to_name: str
    data_key: str
    generic_labels: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    status: str = ""


def parse_brush_controls(label_config: str) -> tuple[BrushControl, ...]:
    """The brush controls of a labelling config, the first one of each image.

    Raises `LabelConfigError` with an example for a config that is no XML or has no brush control on an image.
    """
    if len(label_config) > _MOST_CHARACTERS:
        raise LabelConfigError(
            f"the labelling config has {len(label_config)} characters, more than {_MOST_CHARACTERS}: make it shorter"
        )
    try:
        root = fromstring(label_config)
    except (ParseError, DefusedXmlException, ValueError, TypeError) as error:
        raise LabelConfigError(
            f"the labelling config is no readable XML ({error}); write for example {_EXAMPLE}"
        ) from error
    image_tags = {image.get("name", ""): image for image in root.iter("Image")}
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for text in root.iter("TextArea"):
        texts[text.get("toName", "")].append(text.get("name", ""))
    controls: dict[str, BrushControl] = {}
    for control in root.iter("BrushLabels"):
        to_name = control.get("toName", "")
        if to_name in image_tags and to_name not in controls:
            controls[to_name] = _control(control, image_tags[to_name], _status(texts[to_name]))
    if not controls:
        raise LabelConfigError(f"walkcut needs BrushLabels on an Image in the labelling config, for example {_EXAMPLE}")
    return tuple(controls.values())


def semantic_labels(controls: Sequence[BrushControl]) -> frozenset[str]:
    """The labels that say what a region shows: all that are not neutral."""
    return frozenset(label for control in controls for label in control.labels if label not in control.generic_labels)


def _control(control: Element, image: Element, status: str) -> BrushControl:
    """The control with its image's data key and its labels."""
    value = image.get("value", "")
    if not value.startswith("$") or len(value) < 2:
        raise LabelConfigError(
            f'the tag <Image name={image.get("name", "")!r}> needs value="$…", the name of one image in the task\'s '
            "data, such as $image; lists of images (valueList) are not supported"
        )
    labels = {label.get("value", ""): label.get("neutral", "") == "true" for label in control.iter("Label")}
    labels.pop("", None)
    if not labels:
        raise LabelConfigError(f'<BrushLabels name={control.get("name", "")!r}> needs a <Label value="Region"/>')
    generic_labels = tuple(label for label, is_neutral in labels.items() if is_neutral) or tuple(labels)[:1]
    options = dict(control.attrib)
    return BrushControl(
        control.get("name", ""), image.get("name", ""), value[1:], generic_labels, options, tuple(labels), status
    )


def _status(names: Sequence[str]) -> str:
    """Of an image's text fields the one named `status`, else the one that granularities are typed into, else none."""
    return next((name for name in ("status", "granularity") if name in names), names[0] if names else "")
