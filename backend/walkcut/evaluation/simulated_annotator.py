"""Simulated annotators: the ground truth annotates, by full masks and click by click."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Int64, Integer
from scipy.ndimage import distance_transform_edt, label

from walkcut.errors import SettingsError
from walkcut.evaluation.datasets import Dataset
from walkcut.evaluation.metrics import Counts, contingency_table
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Level
from walkcut.learning.oracle_merge import oracle_merge, oracle_merge_tree, tree_segments
from walkcut.masks.bounds import bounding_box
from walkcut.segmentation.segmenter import Segmenter

GRANULARITIES: Final[dict[str, Granularity | None]] = {"leaves": None, "fine": Level.FINE}
_REPORTED_CLICKS: Final = (1, 3, 5, 10)
_MAX_CLICKS: Final = 50
_GOAL: Final = 0.8  # of the score with full masks


@dataclass(frozen=True)
class SimulatedAnnotation:
    """Mean IoU over the regions of one annotation: with full masks, and after each click.

    Clicking ends once the goal, 80 % of the score with full masks, is reached and ten clicks are done; after 50
    clicks; or when no wrong area is left to click.
    """

    regions: int
    iou_full_masks: float
    iou_clicks: tuple[float, ...]

    @property
    def clicks_to_goal(self) -> int | None:
        """The number of clicks that reach the goal; `None` if they never do."""
        return next((n for n, iou in enumerate(self.iou_clicks, 1) if iou >= _GOAL * self.iou_full_masks), None)


def score_simulated_annotator(
    tree: CutTree, truth: Int64[np.ndarray, "y x"], granularity: Granularity | None = None
) -> SimulatedAnnotation:
    """Score an annotator who merges segments into the regions of `truth`, numbered from 1.

    The segments are the tree's leaves, or those at a granularity; clicks are answered by `oracle_merge_tree`. The first
    click lies in the truth's largest region, each later one in the largest connected wrong area, always at its most
    interior point. No segment is clicked twice for the same region.
    """
    segments, _ = tree_segments(tree, granularity)
    full = region_iou(truth, oracle_merge(segments, truth))
    annotation = np.zeros_like(truth)
    wrong = truth == np.bincount(truth.ravel()).argmax()
    clicked = np.zeros((int(segments.max()) + 1, int(truth.max()) + 1), np.bool_)  # segments, regions
    scores: list[float] = []
    while wrong.any() and len(scores) < _MAX_CLICKS:
        click = interior_point(wrong)
        annotation[click] = truth[click]
        clicked[segments[click], truth[click]] = True
        answer = oracle_merge_tree(tree, annotation, granularity=granularity)
        scores.append(region_iou(truth, answer))
        if len(scores) >= max(_REPORTED_CLICKS) and max(scores) >= _GOAL * full:
            break
        wrong = (answer != truth) & ~clicked[segments, truth]
    return SimulatedAnnotation(len(np.unique(truth)), full, tuple(scores))


def interior_point(area: Bool[np.ndarray, "y x"]) -> tuple[int, int]:
    """Return row and column of the pixel farthest from the border of the largest connected part; the first of several.

    >>> interior_point(np.pad(np.ones((3, 3), bool), 1))
    (2, 2)
    """
    part = largest_part(area)
    box = bounding_box(part)
    depth = distance_transform_edt(np.pad(part[box], 1))
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(row) - 1 + box[0].start, int(column) - 1 + box[1].start


def largest_part(area: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """Return the largest connected part of an area, the first of several; nothing of an empty one."""
    parts, _ = label(area)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return area & (parts == sizes.argmax())


def region_iou(truth: Int64[np.ndarray, "y x"], answer: Integer[np.ndarray, "y x"]) -> float:
    """Return the mean IoU of the truth's regions with the answer's of the same number; a missing one counts as 0."""
    table = contingency_table(truth, answer)
    table = np.pad(table, ((0, 0), (0, max(0, len(table) - table.shape[1]))))
    regions = np.flatnonzero(table.any(axis=1))
    tp, predicted, true = table[regions, regions], table.sum(axis=0)[regions], table.sum(axis=1)[regions]
    return Counts(tp, predicted - tp, true - tp).mean_iou


def simulated_annotations(dataset: Dataset, segmenter: Segmenter) -> Iterator[dict[str, list[SimulatedAnnotation]]]:
    """Yield for each image, in its own size, a simulated annotation for each truth, at each of `GRANULARITIES`.

    Raises `SettingsError` for a data set with classes, whose truths do not separate regions.
    """
    if not dataset.partitions:
        raise SettingsError(
            f"{dataset.name} has classes: feedback is measured on data sets of partitions, such as bsds500"
        )
    for example in dataset.examples:
        image, truths = example.read()
        tree = segmenter.segment(image)
        parts = [np.unique(truth, return_inverse=True)[1].reshape(truth.shape) + 1 for truth in truths]
        yield {
            name: [score_simulated_annotator(tree, truth, granularity) for truth in parts]
            for name, granularity in GRANULARITIES.items()
        }


def summarise_annotations(images: Sequence[dict[str, list[SimulatedAnnotation]]]) -> dict[str, Any]:
    """Return the means over all annotations for each granularity, ready for JSON.

    An annotation whose goal was not reached counts with 50 clicks, and in `unreached`.
    """
    return {name: _summary([annotation for image in images for annotation in image[name]]) for name in images[0]}


def _summary(annotations: Sequence[SimulatedAnnotation]) -> dict[str, Any]:
    goals = [annotation.clicks_to_goal for annotation in annotations]
    clicks = [_MAX_CLICKS if goal is None else goal for goal in goals]
    curves = [annotation.iou_clicks for annotation in annotations]
    return {
        "annotations": len(annotations),
        "regions": float(np.mean([annotation.regions for annotation in annotations])),
        "miou_full_masks": float(np.mean([annotation.iou_full_masks for annotation in annotations])),
        "miou_clicks": {n: float(np.mean([curve[:n][-1] for curve in curves])) for n in _REPORTED_CLICKS},
        "clicks_mean": float(np.mean(clicks)),
        "clicks_median": float(np.median(clicks)),
        "unreached": goals.count(None),
    }
