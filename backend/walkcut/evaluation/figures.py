"""Images for a report: what a candidate made of them beside what a person did, and from coarse to fine."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Integer, Real, UInt8
from PIL import Image

from walkcut.evaluation.contingency import coarsened
from walkcut.evaluation.datasets import Example
from walkcut.evaluation.metrics import background_groups, primary_classes
from walkcut.evaluation.runner import ImageResult, Run
from walkcut.evaluation.scoring import Score
from walkcut.segmentation.visualization import draw_overlay

_SIDE = 400  # pixels of a figure's longer side
_QUALITY = 80  # of its JPEG
_SHADE = 4  # by which pixels that are not scored are darker
_EACH = 3  # images of a rank
_STEPS = 6  # of a granularity ladder


@dataclass(frozen=True)
class Figure:
    """A drawn image as a data URL, and what stands below it."""

    url: str
    caption: str


@dataclass(frozen=True)
class Panel:
    """An image, how it ranks, its scores at the setting of the panel, and its figures.

    `figures` are the image, the prediction, the oracle-merged prediction and the first truth; `ladder` is the
    prediction from coarse to fine, empty for a candidate with one setting.
    """

    rank: str
    name: str
    seconds: float
    score: Score
    figures: tuple[Figure, ...]
    ladder: tuple[Figure, ...]


def panels(run: Run, results: Sequence[ImageResult], setting: str) -> list[Panel]:
    """The images of best, median and worst covering at a setting, segmented once more; all of `results` in order."""
    column = run.system.settings.index(setting)
    ranks = ranked(np.array([result.scores[column].covering for result in results]))
    return [_panel(run, run.dataset.examples[at], results[at], column, rank) for rank, at in ranks]


def ranked(covering: Real[np.ndarray, " i"]) -> list[tuple[str, int]]:
    """Rank and index of the best, the median and the worst images, from the best to the worst and none twice."""
    order = np.argsort(-covering, kind="stable")
    each = int(np.clip(len(order) // 3, 1, _EACH))
    # Of one or two images, a later rank takes an earlier one's.
    ranks = {(len(order) - each) // 2: "median", 0: "best", len(order) - each: "worst"}
    return [(rank, int(at)) for start, rank in sorted(ranks.items()) for at in order[start : start + each]]


def ladder_columns(segments: Sequence[int]) -> list[int]:
    """Columns of at most six settings, from few segments to many by about equal factors.

    One segment is no step, unless there is nothing else.
    """
    logarithms = np.log([max(count, 1) for count in segments])
    least = logarithms[logarithms > 0].min(initial=logarithms.max())
    wanted = np.linspace(least, logarithms.max(), _STEPS)
    nearest = np.abs(logarithms - wanted[:, None]).argmin(axis=1)
    return list(dict.fromkeys(nearest.tolist()))


def _panel(run: Run, example: Example, result: ImageResult, column: int, rank: str) -> Panel:
    image, truths = example.read()
    view, truth = run.protocol.view(image), run.protocol.truth(truths[0])
    answers = [run.protocol.scored(labels) for labels in run.segment(view, truth)]
    merged = oracle_merged_labels(run, answers[column], truth)
    thumbnail = Image.fromarray(view)
    thumbnail.thumbnail((_SIDE, _SIDE))
    seen = np.asarray(thumbnail)
    figures = (
        Figure(_jpeg(seen), "image"),
        Figure(_drawn(seen, answers[column]), f"prediction: {_counted(answers[column])}"),
        Figure(_drawn(seen, merged), f"oracle-merged: {_counted(merged)}"),
        Figure(_drawn(seen, truth, ignore=run.dataset.ignore), _truth_caption(run, truth, len(truths))),
    )
    steps = ladder_columns([score.segments for score in result.scores]) if len(answers) > 1 else []
    ladder = tuple(Figure(_drawn(seen, answers[step]), _step_caption(run, result, step)) for step in steps)
    return Panel(rank, example.name, result.seconds, result.scores[column], figures, ladder)


def oracle_merged_labels(
    run: Run, labels: Integer[np.ndarray, "y x"], truth: Integer[np.ndarray, "y x"]
) -> Integer[np.ndarray, "y x"]:
    """Each pixel's primary class: the segments after `metrics.oracle_merged`, and the protocol's background merge."""
    protocol, background = run.protocol, run.dataset.background
    table = replace(protocol, merges_background=False).table(truth, labels, run.dataset)
    if background is not None and protocol.merges_background:
        groups = background_groups(table, background)
        table, labels = coarsened(table, groups), groups[labels]
    return primary_classes(table)[labels]


def _drawn(image: UInt8[np.ndarray, "y x 3"], labels: Integer[np.ndarray, "h w"], *, ignore: int | None = None) -> str:
    """Labels of any size over the image, which is dark where they are to be ignored."""
    height, width = image.shape[:2]
    scaled = np.asarray(Image.fromarray(labels.astype(np.int32)).resize((width, height), Image.Resampling.NEAREST))
    drawn = draw_overlay(image, np.unique(scaled, return_inverse=True)[1].reshape(scaled.shape))
    drawn[scaled == ignore] = image[scaled == ignore] // _SHADE
    return _jpeg(drawn)


def _jpeg(pixels: UInt8[np.ndarray, "y x 3"]) -> str:
    """An image as a data URL."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _truth_caption(run: Run, truth: Integer[np.ndarray, "y x"], people: int) -> str:
    if run.dataset.partitions:
        return f"truth, first of {people}: {_counted(truth)}"
    present = np.setdiff1d(truth, run.dataset.ignore)
    ignored = "; dark: not scored" if (truth == run.dataset.ignore).any() else ""
    return f"truth: {', '.join(run.dataset.classes[label] for label in present)}{ignored}"


def _step_caption(run: Run, result: ImageResult, column: int) -> str:
    setting, score = run.system.settings[column], result.scores[column]
    at = "" if setting == str(score.segments) else f" at {setting}"
    return f"{_segments(score.segments)}{at}, covering {score.covering:.2f}"


def _counted(labels: Integer[np.ndarray, "y x"]) -> str:
    return _segments(len(np.unique(labels)))


def _segments(count: int) -> str:
    return "1 segment" if count == 1 else f"{count} segments"
