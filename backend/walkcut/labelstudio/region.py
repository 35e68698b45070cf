"""Region: one labelled mask of an image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool


@dataclass(frozen=True)
class Region:
    """A mask of the image's size, a label of its control, and a score in [0, 1].

    Label Studio shows the `notes` in the region's Info panel. `id` is the region's id in Label Studio, empty if it has
    none yet.
    """

    mask: Bool[np.ndarray, "y x"]
    label: str
    score: float = 1.0
    notes: tuple[str, ...] = ()
    id: str = ""
