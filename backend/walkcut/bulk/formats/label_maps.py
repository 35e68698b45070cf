"""A labelling as one map of numbers, and its labels as the classes of a data set."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt16

from walkcut.bulk.items import ItemPrediction
from walkcut.errors import SettingsError
from walkcut.labelstudio import BrushControl, Region

_MOST = np.iinfo(np.uint16).max


def default_regions(image: ItemPrediction) -> Sequence[Region]:
    """The regions of the default labelling."""
    return image.predictions[-1].regions


def label_map(image: ItemPrediction) -> UInt16[np.ndarray, "y x"]:
    """The default labelling's regions, numbered from 1 in their order; 0 is in none.

    Raises `SettingsError` for more regions than 16 bits can count.
    """
    regions = default_regions(image)
    if len(regions) > _MOST:
        raise SettingsError(f"{image.item.key} has {len(regions)} regions, {_MOST} at most fit: ask for fewer")
    labels = np.zeros(image.size, np.uint16)
    for number, region in enumerate(regions, 1):
        labels[region.mask] = number
    return labels


def classes(control: BrushControl) -> tuple[str, ...]:
    """All labels that regions can have, in the order of the labelling config."""
    return control.labels or control.generic_labels


def class_number(label: str, names: Sequence[str]) -> int:
    """A label's place among the classes, from 0. Raises `SettingsError` where it has none."""
    if label not in names:
        raise SettingsError(f"the label {label!r} is not in the labelling config, which has {', '.join(names)}: add it")
    return names.index(label)
