"""The evidence as the methods take it, or an error that says what the model lacks."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from walkcut.backbones import ImageFeatures
from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.random_walk import aggregate
from walkcut.telemetry.spans import span

_MOST_PATCHES = 64  # along the longest side; features finer than that are averaged before they are cut


def transition_matrix(image_features: ImageFeatures) -> tuple[Float[Tensor, "n n"], tuple[int, int]]:
    """The transition matrix of all attention maps, and its grid, the finest of theirs."""
    if not image_features.maps:
        raise SegmentationError("this model gave no attention maps: choose another method, or another model")
    grids = [level.grid for level in image_features.maps]
    grid = max(grids, key=lambda sides: sides[0] * sides[1])
    with span("aggregate"):
        return aggregate([level.weights for level in image_features.maps], grids, grid), grid


def patch_features(image_features: ImageFeatures) -> Float[Tensor, "h w c"]:
    """Each patch's features."""
    if image_features.features is None:
        raise SegmentationError("this model gave no features: choose another method, or another model")
    _, height, width = image_features.features.shape
    scale = min(1.0, _MOST_PATCHES / max(height, width))
    grid = max(1, round(height * scale)), max(1, round(width * scale))
    return adaptive_avg_pool2d(image_features.features, grid).permute(1, 2, 0).float()


def contour_features(image_features: ImageFeatures) -> tuple[Float[Tensor, "y x"], Float[Tensor, "c y x"]]:
    """The contour map and the features of the same size."""
    if image_features.contour is None or image_features.features is None:
        raise SegmentationError("this model gave no contour map: choose another method, or the model classical")
    return image_features.contour, image_features.features
