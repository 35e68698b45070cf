"""Image features in the form that methods take, or an error that names what is missing."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from walkcut.backbones import ImageFeatures
from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.random_walk import aggregate
from walkcut.telemetry.spans import span

_MAX_PATCHES = 64  # along the longest side; finer feature maps are averaged before they are cut


def transition_matrix(features: ImageFeatures) -> tuple[Float[Tensor, "n n"], tuple[int, int]]:
    """Return the transition matrix of all attention maps, and its grid, the finest of theirs."""
    if not features.attention_maps:
        raise SegmentationError("this model gave no attention maps: choose another method, or another model")
    grids = [level.grid for level in features.attention_maps]
    grid = max(grids, key=lambda sides: sides[0] * sides[1])
    with span("aggregate"):
        return aggregate([level.weights for level in features.attention_maps], grids, grid), grid


def patch_features(features: ImageFeatures) -> Float[Tensor, "h w c"]:
    """Return the feature map, with at most 64 patches on the longest side."""
    if features.feature_map is None:
        raise SegmentationError("this model gave no features: choose another method, or another model")
    _, height, width = features.feature_map.shape
    scale = min(1.0, _MAX_PATCHES / max(height, width))
    grid = max(1, round(height * scale)), max(1, round(width * scale))
    return adaptive_avg_pool2d(features.feature_map, grid).permute(1, 2, 0).float()


def contour_features(features: ImageFeatures) -> tuple[Float[Tensor, "y x"], Float[Tensor, "c y x"]]:
    """Return the contour map, and the feature map of the same size."""
    if features.contour is None or features.feature_map is None:
        raise SegmentationError("this model gave no contour map: choose another method, or the model classical")
    return features.contour, features.feature_map
