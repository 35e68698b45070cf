"""The tags of a labelling config, in the order of the document."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError  # nosec B405 - for types and errors: defusedxml parses

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from walkcut.errors import LabelConfigError
from walkcut.labelstudio.task_data import resolve

_MAX_CHARACTERS: Final = 1_000_000
_FALSE: Final = ("", "false", "no", "0")
PROMPTS: Final = ("Select", "Finer", "Coarser", "Merge", "Re-segment")  # labels that name an edit, not an object
EXAMPLE_CONFIG: Final = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Region"/></BrushLabels></View>'
)


@dataclass(frozen=True)
class Label:
    """A label of a control: its value, and its name in results, which is its alias if it has one."""

    value: str
    name: str
    is_neutral: bool = False


@dataclass(frozen=True)
class Tag:
    """A tag: its kind in lower case, as Label Studio compares it, its attributes, and the labels inside.

    It `is_repeated` inside a `<Repeater>`.
    """

    element: Element
    kind: str
    is_repeated: bool = False
    labels: list[Label] = field(default_factory=list)

    @property
    def attributes(self) -> Mapping[str, str]:
        """The attributes as they are written."""
        return self.element.attrib

    @property
    def name(self) -> str:
        """The name that results refer to."""
        return self.get("name")

    @property
    def to_name(self) -> str:
        """The name of the object that a control labels; empty for other tags."""
        return self.get("toname")

    @property
    def task_labels(self) -> str:
        """The variable, such as `$labels`, that names more labels of a control in a task's data; empty without one."""
        return self.get("value").strip() if self.kind.endswith("labels") else ""

    def get(self, attribute: str) -> str:
        """Return an attribute by its name in lower case; empty if it is missing."""
        return next((value for name, value in self.attributes.items() if name.lower() == attribute), "")

    def __str__(self) -> str:
        return f"<{_local_name(self.element)}{f' name={self.name!r}' if self.name else ''}>"


def read_tags(label_config: str) -> list[Tag]:
    """Return the tags of a labelling config. Raises `LabelConfigError` for a text that is not XML, or too long."""
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
    return list(_walk(root))


def read_task_labels(variable: str, data: Mapping[str, Any]) -> list[Label]:
    """Return the labels that a variable names in a task's data, where Label Studio reads a list of objects."""
    options = resolve(variable, data) if variable else None
    documents = [option for option in options if isinstance(option, dict)] if isinstance(options, list) else []
    values = [(option.get("value"), option.get("alias")) for option in documents]
    return [
        Label(value, alias if isinstance(alias, str) and alias else value)
        for value, alias in values
        if isinstance(value, str) and value
    ]


def is_prompt(name: str) -> bool:
    """Return whether a label names an edit, in any case."""
    return name.lower() in {prompt.lower() for prompt in PROMPTS}


def _walk(root: Element) -> Iterator[Tag]:
    """Yield the tags; a `<Label>` is added to the nearest control around it instead."""
    stack: list[tuple[Element, bool, list[Label]]] = [(root, False, [])]
    while stack:
        element, is_repeated, labels = stack.pop()
        tag = Tag(element, _local_name(element).lower(), is_repeated)
        if tag.kind == "label":
            labels += _read_label(tag)
        else:
            labels = tag.labels if tag.name or tag.kind.endswith("labels") else labels
            yield tag
        stack += [(child, is_repeated or tag.kind == "repeater", labels) for child in reversed(element)]


def _read_label(tag: Tag) -> list[Label]:
    """Return a tag's label in a list, empty for one without a name. Text inside is its value, as in Label Studio."""
    text = "" if len(tag.element) else (tag.element.text or "").strip()
    value = text or tag.get("value")
    name = tag.get("alias") or value
    return [Label(value or name, name, tag.get("neutral").lower() not in _FALSE)] if name else []


def _local_name(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]
