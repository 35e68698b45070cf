"""Class numbers: the `category` of labels, as Label Studio's own exports number them."""

from itertools import count
from xml.etree.ElementTree import Element  # nosec B405 - for types: defusedxml parses

_LABEL_TAGS = ("Label", "Choice", "Relation")


def label_categories(config: Element) -> dict[str, int]:
    """Return the class number of each label of a labelling config, by value and alias; none without any `category`.

    Labels of all controls without a `category` that is a whole number get the lowest free numbers, in the order of
    their names (`Converter._get_labels` of label-studio-sdk 2.1).
    """
    names, numbers = set[str](), dict[str, int]()
    values: list[tuple[str, str]] = []
    for labels in _labels_of_controls(config):
        names |= set(labels)
        values += [(label.get("value", ""), name) for name, label in labels.items()]
        numbers |= {name: int(label.get("category", "")) for name, label in labels.items() if _is_numbered(label)}
    if not numbers:
        return {}
    free = (number for number in count() if number not in set(numbers.values()))
    numbers |= dict(zip(sorted(names - set(numbers)), free, strict=False))
    return {value: numbers[name] for value, name in values if value} | numbers


def _labels_of_controls(config: Element) -> list[dict[str, Element]]:
    """Return the labels of each control by their names: a label belongs to the nearest control around it."""
    controls: list[dict[str, Element]] = []
    pending: list[tuple[Element, dict[str, Element]]] = [(config, {})]
    while pending:
        element, labels = pending.pop()
        if element.tag in _LABEL_TAGS and _name(element):
            labels[_name(element)] = element
        if element.get("name") and element.get("toName"):
            labels = {}
            controls.append(labels)
        pending += [(child, labels) for child in reversed(element)]
    return controls


def _name(label: Element) -> str:
    return label.get("alias") or label.get("value") or label.get("valueList") or ""


def _is_numbered(label: Element) -> bool:
    try:
        int(label.get("category", ""))
    except ValueError:
        return False
    return True
