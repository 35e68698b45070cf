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
class BrushTarget:
    """A brush control and the picture it labels: where regions go, and what the tag's attributes wish for.

    Pre-annotated regions take the control's `neutral` labels in turn, so that neighbours differ in colour; `labels`
    are all that it has. `status` names the text field in which annotators are answered, if there is one.
    """

    from_name: str
    to_name: str
    data_key: str
    neutral: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    status: str = ""


def brush_targets(label_config: str) -> tuple[BrushTarget, ...]:
    """The brush controls of a labelling config, the first one of each picture.

    Raises `LabelConfigError` with an example for a config that is no XML or has no brush control on a picture.
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
    images = {image.get("name", ""): image for image in root.iter("Image")}
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for text in root.iter("TextArea"):
        texts[text.get("toName", "")].append(text.get("name", ""))
    targets: dict[str, BrushTarget] = {}
    for control in root.iter("BrushLabels"):
        picture = control.get("toName", "")
        if picture in images and picture not in targets:
            targets[picture] = _target(control, images[picture], _status(texts[picture]))
    if not targets:
        raise LabelConfigError(f"walkcut needs BrushLabels on an Image in the labelling config, for example {_EXAMPLE}")
    return tuple(targets.values())


def named_labels(targets: Sequence[BrushTarget]) -> frozenset[str]:
    """The labels that say what a region shows: all that are not neutral."""
    return frozenset(label for target in targets for label in target.labels if label not in target.neutral)


def _target(control: Element, image: Element, status: str) -> BrushTarget:
    """The control with its picture's data key and its labels."""
    value = image.get("value", "")
    if not value.startswith("$") or len(value) < 2:
        raise LabelConfigError(
            f'the tag <Image name={image.get("name", "")!r}> needs value="$…", the name of one picture in the task\'s '
            "data, such as $image; lists of pictures (valueList) are not supported"
        )
    labels = {label.get("value", ""): label.get("neutral", "") == "true" for label in control.iter("Label")}
    labels.pop("", None)
    if not labels:
        raise LabelConfigError(f'<BrushLabels name={control.get("name", "")!r}> needs a <Label value="Region"/>')
    neutral = tuple(label for label, is_neutral in labels.items() if is_neutral) or tuple(labels)[:1]
    options = dict(control.attrib)
    return BrushTarget(
        control.get("name", ""), image.get("name", ""), value[1:], neutral, options, tuple(labels), status
    )


def _status(names: Sequence[str]) -> str:
    """Of a picture's text fields the one named `status`, else the one that granularities are typed into, else none."""
    return next((name for name in ("status", "granularity") if name in names), names[0] if names else "")
