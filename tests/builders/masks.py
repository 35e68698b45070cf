"""Made masks, small ones drawn with characters."""

from collections.abc import Sequence

import numpy as np
import shapely
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage


def mask_of(*rows: str) -> np.ndarray:
    """Return a mask that is inside at each #."""
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def drawing(mask: np.ndarray) -> list[str]:
    """Return the rows of a mask as `mask_of` takes them."""
    return ["".join(".#"[inside] for inside in row) for row in mask.astype(int).tolist()]


def enlarge(labels: np.ndarray) -> np.ndarray:
    """Return each pixel three times as large, so that a tolerance of a pixel leaves something of it."""
    enlarged: np.ndarray = np.kron(labels, np.ones((3, 3), labels.dtype))
    return enlarged


def blobs(seed: int, size: tuple[int, int] = (40, 50)) -> np.ndarray:
    """Return numbered smooth regions with wild borders, islands and holes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(size), 2)
    labels: np.ndarray = np.digitize(noise, np.quantile(noise, [0.3, 0.5, 0.7])).astype(np.uint16)
    return labels


def as_shapely(rings: Sequence[np.ndarray]) -> shapely.Polygon:
    """Return shapely's polygon of an outer ring and those of holes."""
    return shapely.Polygon(rings[0], rings[1:])


label_maps = arrays.arrays(
    np.uint16, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3)
)
masks = (label_maps | label_maps.map(enlarge)).map(lambda labels: labels > 1)
any_labels = label_maps | label_maps.map(enlarge) | st.integers(0, 1000).map(blobs)
tolerances = st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0, 10.0])
