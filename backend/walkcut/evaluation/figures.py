"""Figures of a report: images with their segmentations and ground truth, and from coarse to fine."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Real, UInt8
from PIL import Image

from walkcut.evaluation.datasets import Example
from walkcut.evaluation.metrics import LabelMap, background_groups, coarsened, primary_classes
from walkcut.evaluation.runner import EvaluationRun, ImageResult, Score
from walkcut.segmentation.visualization import draw_overlay

_SIDE = 400  # pixels of a figure's longer side
_QUALITY = 80  # of its JPEG
_SHADE = 4  # divides the colours of pixels that are not scored
_MAX_PER_RANK = 3  # images
_MAX_STEPS = 6  # of a granularity ladder


@dataclass(frozen=True)
class Figure:
    """An image as a data URL, and its caption."""

    url: str
    caption: str


@dataclass(frozen=True)
class ImageFigures:
    """An image's rank, its score at the reported setting, and its figures.

    `figures` are the image, the prediction, the oracle-merged prediction and the first truth; `ladder` is the
    prediction from coarse to fine, empty for a system with one setting.
    """

    rank: str
    name: str
    seconds: float
    score: Score
    figures: tuple[Figure, ...]
    ladder: tuple[Figure, ...]


def image_figures(run: EvaluationRun, results: Sequence[ImageResult], setting: str) -> list[ImageFigures]:
    """Segment and draw the images of best, median and worst covering at a setting, given the results of all images."""
    column = run.system.settings.index(setting)
    ranks = ranked(np.array([result.scores[column].covering for result in results]))
    return [_draw(run, run.dataset.examples[index], results[index], column, rank) for rank, index in ranks]


def ranked(covering: Real[np.ndarray, " i"]) -> list[tuple[str, int]]:
    """Return rank and index of the best, the median and the worst images, from best to worst and none twice."""
    order = np.argsort(-covering, kind="stable")
    count = int(np.clip(len(order) // 3, 1, _MAX_PER_RANK))
    # With one or two images, a later rank replaces an earlier one of the same start.
    ranks = {(len(order) - count) // 2: "median", 0: "best", len(order) - count: "worst"}
    return [(rank, int(index)) for start, rank in sorted(ranks.items()) for index in order[start : start + count]]


def ladder_columns(segments: Sequence[int]) -> list[int]:
    """Return the columns of at most six settings, from few segments to many by about equal factors.

    A setting with one segment is left out, unless all have one.
    """
    logarithms = np.log([max(count, 1) for count in segments])
    minimum = logarithms[logarithms > 0].min(initial=logarithms.max())
    steps = np.linspace(minimum, logarithms.max(), _MAX_STEPS)
    nearest = np.abs(logarithms - steps[:, None]).argmin(axis=1)
    return list(dict.fromkeys(nearest.tolist()))


def _draw(run: EvaluationRun, example: Example, result: ImageResult, column: int, rank: str) -> ImageFigures:
    image, truths = example.read()
    crop, truth = run.protocol.crop_image(image), run.protocol.crop_truth(truths[0])
    predictions = [run.protocol.resize_labels(labels) for labels in run.segment(crop, truth)]
    prediction = predictions[column]
    merged = oracle_merged_labels(run, prediction, truth)
    thumbnail = Image.fromarray(crop)
    thumbnail.thumbnail((_SIDE, _SIDE))
    pixels = np.asarray(thumbnail)
    figures = (
        Figure(_jpeg(pixels), "image"),
        Figure(_overlay(pixels, prediction), f"prediction: {_segments(len(np.unique(prediction)))}"),
        Figure(_overlay(pixels, merged), f"oracle-merged: {_segments(len(np.unique(merged)))}"),
        Figure(_overlay(pixels, truth, ignore=run.dataset.ignore), _truth_caption(run, truth, len(truths))),
    )
    steps = ladder_columns([score.segments for score in result.scores]) if len(predictions) > 1 else []
    ladder = tuple(Figure(_overlay(pixels, predictions[step]), _step_caption(run, result, step)) for step in steps)
    return ImageFigures(rank, example.name, result.seconds, result.scores[column], figures, ladder)


def oracle_merged_labels(run: EvaluationRun, labels: LabelMap, truth: LabelMap) -> LabelMap:
    """Return each pixel's primary class, after the protocol's background merge: as `metrics.oracle_merged` merges."""
    protocol, background = run.protocol, run.dataset.background
    table = replace(protocol, merges_background=False).table(truth, labels, run.dataset)
    if background is not None and protocol.merges_background:
        groups = background_groups(table, background)
        table, labels = coarsened(table, groups), groups[labels]
    return primary_classes(table)[labels]


def _overlay(image: UInt8[np.ndarray, "y x 3"], labels: LabelMap, *, ignore: int | None = None) -> str:
    """Draw labels of any size over the image, darkened where they are `ignore`."""
    height, width = image.shape[:2]
    scaled = np.asarray(Image.fromarray(labels.astype(np.int32)).resize((width, height), Image.Resampling.NEAREST))
    overlay = draw_overlay(image, np.unique(scaled, return_inverse=True)[1].reshape(scaled.shape))
    overlay[scaled == ignore] = image[scaled == ignore] // _SHADE
    return _jpeg(overlay)


def _jpeg(pixels: UInt8[np.ndarray, "y x 3"]) -> str:
    """Encode an image as a data URL."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _truth_caption(run: EvaluationRun, truth: LabelMap, people: int) -> str:
    if run.dataset.partitions:
        return f"truth, first of {people}: {_segments(len(np.unique(truth)))}"
    present = np.setdiff1d(truth, run.dataset.ignore)
    ignored = "; dark: not scored" if (truth == run.dataset.ignore).any() else ""
    return f"truth: {', '.join(run.dataset.classes[label] for label in present)}{ignored}"


def _step_caption(run: EvaluationRun, result: ImageResult, column: int) -> str:
    setting, score = run.system.settings[column], result.scores[column]
    at = "" if setting == str(score.segments) else f" at {setting}"
    return f"{_segments(score.segments)}{at}, covering {score.covering:.2f}"


def _segments(count: int) -> str:
    return "1 segment" if count == 1 else f"{count} segments"
