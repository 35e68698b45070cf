"""What feedback is worth: the ground truth plays the annotator, by full masks and click by click."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Int64, Integer
from scipy.ndimage import distance_transform_edt, find_objects, label

from walkcut.errors import SettingsError
from walkcut.evaluation.contingency import contingency_table
from walkcut.evaluation.datasets import Dataset
from walkcut.evaluation.metrics import Counts
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Level
from walkcut.learning.oracle_merge import oracle_merge, oracle_merge_tree, tree_segments
from walkcut.segmentation.segmenter import Segmenter

GRANULARITIES: Final[dict[str, Granularity | None]] = {"leaves": None, "fine": Level.FINE}
_REPORTED: Final = (1, 3, 5, 10)  # clicks
_MOST_CLICKS: Final = 50
_GOAL: Final = 0.8  # of the score by full masks


@dataclass(frozen=True)
class Feedback:
    """What one annotation of one image brings: mean IoU over its `regions` by full masks, and after each click.

    Clicking ends when the goal, 80 % of the score by full masks, is reached and ten clicks are done, at the latest
    after 50; or when there is nothing left to click on.
    """

    regions: int
    masks: float
    clicks: tuple[float, ...]

    @property
    def clicks_to_goal(self) -> int | None:
        """How many clicks the goal takes, if it was reached."""
        return next((n for n, score in enumerate(self.clicks, 1) if score >= _GOAL * self.masks), None)


def feedback(tree: CutTree, truth: Int64[np.ndarray, "y x"], granularity: Granularity | None = None) -> Feedback:
    """The scores of an annotator who wants the regions of a `truth`, numbered from 1, as segments fold into them.

    The segments are the tree's leaves, or those at a granularity; the answer to clicks is `oracle_merge_tree`'s.
    """
    segments, _ = tree_segments(tree, granularity)
    masks = region_iou(truth, oracle_merge(segments, truth))
    scores: list[float] = []
    for answer in _answers(tree, segments, truth, granularity):
        scores.append(region_iou(truth, answer))
        if len(scores) >= max(_REPORTED) and max(scores) >= _GOAL * masks:
            break
    return Feedback(len(np.unique(truth)), masks, tuple(scores))


def _answers(
    tree: CutTree, segments: Int64[np.ndarray, "y x"], truth: Int64[np.ndarray, "y x"], granularity: Granularity | None
) -> Iterator[Integer[np.ndarray, "y x"]]:
    """The answer after each click of an annotator.

    The first click lies in the truth's largest region, each other in the largest connected area that is wrong, always
    at the most interior point. Where the segment was clicked for the same region before, nobody clicks again.
    """
    given = np.zeros_like(truth)
    wrong = truth == np.bincount(truth.ravel()).argmax()
    told = np.zeros((int(segments.max()) + 1, int(truth.max()) + 1), np.bool_)  # segments, regions
    for _ in range(_MOST_CLICKS):
        if not wrong.any():
            return
        click = interior_point(wrong)
        given[click] = truth[click]
        told[segments[click], truth[click]] = True
        answer = oracle_merge_tree(tree, given, granularity=granularity)
        yield answer
        wrong = (answer != truth) & ~told[segments, truth]


def interior_point(area: Bool[np.ndarray, "y x"]) -> tuple[int, int]:
    """Row and column of the pixel farthest from the border of the largest connected part; the first of several."""
    parts, _ = label(area)
    largest = int(np.bincount(parts[area]).argmax())
    box = find_objects(parts, largest)[largest - 1]
    depth = distance_transform_edt(np.pad(parts[box] == largest, 1))
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(row) - 1 + box[0].start, int(column) - 1 + box[1].start


def region_iou(truth: Int64[np.ndarray, "y x"], answer: Integer[np.ndarray, "y x"]) -> float:
    """The mean over the truth's regions of the IoU with what the answer gives their number; 0 for one without any."""
    table = contingency_table(truth, answer)
    table = np.pad(table, ((0, 0), (0, max(0, len(table) - table.shape[1]))))
    regions = np.flatnonzero(table.any(axis=1))
    right, given, wanted = table[regions, regions], table.sum(axis=0)[regions], table.sum(axis=1)[regions]
    return Counts(right, given - right, wanted - right).mean_iou


def feedback_scores(dataset: Dataset, segmenter: Segmenter) -> Iterator[dict[str, list[Feedback]]]:
    """For each image, in its own size, and each of `GRANULARITIES` what each of the image's annotations brings.

    Raises `SettingsError` for a data set with classes, whose truths are no annotations of single regions.
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
            name: [feedback(tree, truth, granularity) for truth in parts] for name, granularity in GRANULARITIES.items()
        }


def summarise_feedback(images: Sequence[dict[str, list[Feedback]]]) -> dict[str, Any]:
    """For each granularity the means over all annotations, ready for JSON.

    `regions` is how many an annotation has. One whose goal was not reached counts with 50 clicks, and in `capped`.
    """
    return {name: _summary([one for image in images for one in image[name]]) for name in images[0]}


def _summary(annotations: Sequence[Feedback]) -> dict[str, Any]:
    goals = [one.clicks_to_goal for one in annotations]
    counted = [_MOST_CLICKS if goal is None else goal for goal in goals]
    return {
        "annotations": len(annotations),
        "regions": float(np.mean([one.regions for one in annotations])),
        "miou_masks": float(np.mean([one.masks for one in annotations])),
        "miou_clicks": {n: float(np.mean([one.clicks[:n][-1] for one in annotations])) for n in _REPORTED},
        "clicks_mean": float(np.mean(counted)),
        "clicks_median": float(np.median(counted)),
        "capped": goals.count(None),
    }
