"""A labelling as one map of numbers, and its labels as the classes of a data set."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt16

from walkcut.bulk.items import ItemPrediction, Segment
from walkcut.errors import SettingsError
from walkcut.labelstudio import BrushControl

_MOST = np.iinfo(np.uint16).max


def default_segments(image: ItemPrediction) -> Sequence[Segment]:
    """The segments of the default labelling."""
    return image.predictions[-1].segments


def label_map(image: ItemPrediction) -> UInt16[np.ndarray, "y x"]:
    """The default labelling's segments, numbered from 1 in their order; 0 is in none.

    Raises `SettingsError` for more segments than 16 bits can count.
    """
    segments = default_segments(image)
    if len(segments) > _MOST:
        raise SettingsError(f"{image.item.key} has {len(segments)} regions, {_MOST} at most fit: ask for fewer")
    labels = np.zeros(image.size, np.uint16)
    for number, segment in enumerate(segments, 1):
        labels[segment.mask] = number
    return labels


def classes(control: BrushControl) -> tuple[str, ...]:
    """All labels that regions can have, in the order of the labelling config."""
    return control.labels or control.generic_labels


def class_number(label: str, names: Sequence[str]) -> int:
    """A label's place among the classes, from 0. Raises `SettingsError` where it has none."""
    if label not in names:
        raise SettingsError(f"the label {label!r} is not in the labelling config, which has {', '.join(names)}: add it")
    return names.index(label)
