"""Default prediction as a label map, and its labels as classes of a data set."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt16

from walkcut.bulk.items import ItemPrediction
from walkcut.errors import SettingsError
from walkcut.labelstudio.annotations import region_numbers
from walkcut.labelstudio.config import BrushControl
from walkcut.labelstudio.predictions import Region

_MAX_REGIONS = np.iinfo(np.uint16).max


def default_regions(image: ItemPrediction) -> Sequence[Region]:
    """Return the regions of the default prediction."""
    return image.predictions[-1].regions


def default_label_map(image: ItemPrediction) -> UInt16[np.ndarray, "y x"]:
    """Return the default prediction's regions, numbered from 1 in their order; 0 is in none.

    Raises `SettingsError` for more regions than 16 bits can count.
    """
    regions = default_regions(image)
    if len(regions) > _MAX_REGIONS:
        raise SettingsError(
            f"{image.item.key} has {len(regions)} regions, more than {_MAX_REGIONS}: choose a coarser granularity"
        )
    return region_numbers(regions, image.size)


def classes(control: BrushControl) -> tuple[str, ...]:
    """Return all labels that regions can have, in the order of the labelling config."""
    return control.labels or control.neutral_labels


def class_index(label: str, names: Sequence[str]) -> int:
    """Return the index of a label among the classes. Raises `SettingsError` if it is missing."""
    if label not in names:
        raise SettingsError(f"the label {label!r} is not in the labelling config, which has {', '.join(names)}: add it")
    return names.index(label)
