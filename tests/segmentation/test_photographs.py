"""Properties of segmentations of real images."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_opening

from tests.builders.bsds500 import needs_photographs, photographs
from tests.builders.label_config import make_image_tag, make_task_image
from walkcut.hierarchy.granularity import Level
from walkcut.images import DecodeLimits, decode
from walkcut.inference.predictor import regions_at_granularity
from walkcut.inference.project import Project, ProjectOptions
from walkcut.segmentation.segmenter import load_segmenter

pytestmark = needs_photographs

IMAGE_TAG = make_image_tag("$image", ("Region",))
PROJECT = Project((IMAGE_TAG,), ProjectOptions())


@pytest.mark.parametrize("path", photographs(5), ids=lambda path: path.stem)
def test_fine_regions_are_many_disjoint_and_not_noisy(path: Path) -> None:
    image = decode(path.read_bytes(), DecodeLimits())
    tree = load_segmenter("classical").segment(image)
    masks = np.stack(
        [region.mask for region in regions_at_granularity(tree, Level.FINE, PROJECT, make_task_image(IMAGE_TAG))]
    )
    assert 8 <= len(masks) <= 40
    assert masks.shape[1:] == image.shape[:2]
    assert masks.sum(0).max() == 1
    assert masks.any(0).mean() > 0.99
    for mask in masks:
        assert binary_opening(mask, np.ones((3, 3), bool)).sum() > mask.sum() / 2


@pytest.mark.parametrize("path", photographs(5), ids=lambda path: path.stem)
def test_coarser_levels_have_fewer_regions(path: Path) -> None:
    tree = load_segmenter("classical").segment(decode(path.read_bytes(), DecodeLimits()))
    coarse, medium, fine, auto = (
        tree.segment_count(level) for level in (Level.COARSE, Level.MEDIUM, Level.FINE, Level.AUTO)
    )
    assert 2 <= coarse < medium < fine
    assert auto >= 2
    assert auto not in {coarse, medium, fine}
