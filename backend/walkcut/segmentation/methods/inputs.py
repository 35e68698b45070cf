"""The evidence as the methods take it, or an error that says what the model lacks."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from walkcut.backbones import Evidence
from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.random_walk import aggregate
from walkcut.telemetry.stages import stage

_MOST_PATCHES = 64  # along the longest side; features finer than that are averaged before they are cut


def transitions(evidence: Evidence) -> tuple[Float[Tensor, "n n"], tuple[int, int]]:
    """The transition matrix of all attention maps, and its grid, the finest of theirs."""
    if not evidence.maps:
        raise SegmentationError("this model gave no attention maps: choose another method, or another model")
    grids = [level.grid for level in evidence.maps]
    grid = max(grids, key=lambda sides: sides[0] * sides[1])
    with stage("aggregate"):
        return aggregate([level.weights for level in evidence.maps], grids, grid), grid


def patch_features(evidence: Evidence) -> Float[Tensor, "h w c"]:
    """Each patch's features."""
    if evidence.features is None:
        raise SegmentationError("this model gave no features: choose another method, or another model")
    _, height, width = evidence.features.shape
    scale = min(1.0, _MOST_PATCHES / max(height, width))
    grid = max(1, round(height * scale)), max(1, round(width * scale))
    return adaptive_avg_pool2d(evidence.features, grid).permute(1, 2, 0).float()


def outlines(evidence: Evidence) -> tuple[Float[Tensor, "y x"], Float[Tensor, "c y x"]]:
    """The contour map and the features of the same size."""
    if evidence.contour is None or evidence.features is None:
        raise SegmentationError("this model gave no contour map: choose another method, or the model embedded")
    return evidence.contour, evidence.features
