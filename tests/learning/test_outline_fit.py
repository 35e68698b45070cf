import numpy as np
import pytest

from tests.builders.scenes import quarter_labels
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.labelstudio.predictions import Region
from walkcut.learning.outline_fit import fit_outline
from walkcut.masks.raster import fill_ellipse

SIZE = (20, 20)
QUARTERS = quarter_labels(*SIZE)
TREE = CutTree(
    QUARTERS.astype(np.uint16),
    Hierarchy(np.array([[0, 1], [2, 3], [4, 5]]), np.array([0.9, 0.5, 0.1]), np.zeros(3, np.bool_)),
    {Level.COARSE: 1, Level.MEDIUM: 2, Level.FINE: 4},
)


def outline(top: int, left: int, bottom: int, right: int, shape: str = "rectangle") -> Region:
    """A region of all pixels in a box."""
    mask = np.zeros(SIZE, np.bool_)
    mask[top:bottom, left:right] = True
    return Region(mask, "Car", shape=shape)


def covered(region: Region) -> np.ndarray:
    """The pixels of a region after the fit, whose label stays."""
    fitted = fit_outline(region, TREE)
    assert fitted.label == "Car"
    return fitted.mask


@pytest.mark.parametrize(
    ("box", "quarters"),
    [((0, 0, 10, 10), {0}), ((0, 0, 10, 20), {0, 1}), ((0, 0, 20, 20), {0, 1, 2, 3}), ((1, 1, 10, 10), {0})],
)
def test_a_box_covers_the_segment_with_the_most_similar_box(box: tuple[int, int, int, int], quarters: set[int]) -> None:
    region = outline(*box)
    assert (covered(region) == np.isin(QUARTERS, [*quarters]) & region.mask).all()


def test_an_ellipse_covers_the_segment_that_fits_it_best() -> None:
    region = Region(fill_ellipse((5, 5), (5.5, 5.5), SIZE), "Car", shape="ellipse")
    assert (covered(region) == (QUARTERS == 0)).all()


def test_without_a_fitting_segment_the_leaves_inside_count() -> None:
    region = outline(0, 0, 20, 10)  # both quarters of the left half, which are no segment
    assert (covered(region) == region.mask).all()


def test_an_outline_inside_a_leaf_stays_as_it_is() -> None:
    region = outline(2, 2, 5, 5)
    assert fit_outline(region, TREE) is region


@pytest.mark.parametrize("shape", ["brush", "bitmask", "polygon", "vector"])
def test_other_shapes_stay_as_they_are(shape: str) -> None:
    region = outline(0, 0, 10, 9, shape)
    assert fit_outline(region, TREE) is region
