"""An evaluation as one HTML file that needs nothing beside it: scores, plots and images."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from typing import Any, Final, Literal

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from walkcut.evaluation.figures import panels
from walkcut.evaluation.paper_results import Published
from walkcut.evaluation.runner import ImageResult, Run


@dataclass(frozen=True)
class Outcome:
    """A run with what came of it; `summary` is `summarise`'s."""

    run: Run
    results: tuple[ImageResult, ...]
    summary: Mapping[str, Any]


def report_page(outcomes: Sequence[Outcome], published: Sequence[Published], facts: Mapping[str, str]) -> str:
    """The page: the first outcome is the one that is reported, the others are its peers on the same images.

    `published` are the papers' figures for the first, and `facts` stand in the page's head, by their names.
    """
    first = outcomes[0]
    summaries = [outcome.summary for outcome in outcomes]
    shown = panels(first.run, first.results, first.summary["ods_setting"])
    page = Environment(
        loader=PackageLoader("walkcut.evaluation", "data"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html")
    return page.render(
        first=first.summary,
        facts=facts,
        summaries=summaries,
        table=score_table(summaries),
        published=[(row, *_both(row, first.summary)) for row in published],
        plots=[score_plot(title, measure, summaries) for title, measure in _PLOTTED],
        series_styles=series_styles(len(summaries)),
        box=_BOX,
        panels=[(rank, list(group)) for rank, group in groupby(shown, key=lambda panel: panel.rank)],
        ladders=[next(group) for _, group in groupby(shown, key=lambda panel: panel.rank)],
    )


_COLOURS: Final = 6  # the page's stylesheet has a lighter and a darker one of each
_SHAPES: Final = ("round", "square")


def series_styles(count: int) -> list[str]:
    """What tells candidates apart: a colour, and round marks on whole lines or square ones on dashed lines.

    Names of the stylesheet's classes; the first twelve differ, then they come again.
    """
    return [f"c{number % _COLOURS} {_SHAPES[number // _COLOURS % len(_SHAPES)]}" for number in range(count)]


@dataclass(frozen=True)
class _Column:
    """A score in the table: where it stands in a summary, and which values are good."""

    group: str
    label: str
    key: str
    best: Literal["most", "least"] = "most"


_COLUMNS: Final = (
    _Column("Covering", "ODS", "covering_ods"),
    _Column("Covering", "OIS", "covering_ois"),
    _Column("Rand index", "ODS", "rand_ods"),
    _Column("Rand index", "OIS", "rand_ois"),
    _Column("Variation of inf.", "ODS", "variation_ods", "least"),
    _Column("Variation of inf.", "OIS", "variation_ois", "least"),
    _Column("Boundary F", "ODS", "boundary_f_ods"),
    _Column("Boundary F", "OIS", "boundary_f_ois"),
    _Column("Mean IoU", "Hungarian", "miou_hungarian"),
    _Column("Mean IoU", "merged", "miou_oracle"),
    _Column("", "Accuracy", "accuracy"),
    _Column("", "F1", "f1"),
    _Column("", "Seconds", "seconds_per_image", "least"),
)


@dataclass(frozen=True)
class Table:
    """Groups with their numbers of columns, the columns' labels, and rows of texts that are best or not."""

    groups: tuple[tuple[str, int], ...]
    labels: tuple[str, ...]
    rows: tuple[tuple[tuple[str, bool], ...], ...]


def score_table(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """The scores that were measured, a row for each summary; what looks best in a column of several is marked."""
    columns = [column for column in _COLUMNS if any(column.key in summary for summary in summaries)]
    groups = tuple((name, len(list(group))) for name, group in groupby(columns, key=lambda column: column.group))
    by_column = [_cells(column, summaries) for column in columns]
    return Table(groups, tuple(column.label for column in columns), tuple(zip(*by_column, strict=True)))


def _cells(column: _Column, summaries: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    texts = [f"{summary[column.key]:.3f}" if column.key in summary else "–" for summary in summaries]
    values = [float(text) for text in texts if text != "–"]
    best = f"{max(values) if column.best == 'most' else min(values):.3f}"
    return [(text, text == best and len(values) > 1) for text in texts]


_MEASURED: Final = {
    "global": ("miou_hungarian", "accuracy", "f1"),
    "per image": ("miou", "accuracy", "f1"),
    "per image, oracle-merged": ("miou_oracle", "accuracy_oracle", "f1_oracle"),
}


def _both(row: Published, summary: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Mean IoU, accuracy and F1 in percent: the paper's, and this run's averaged in the same way."""
    scores = summary if row.averaging == "global" else summary["per_image"]
    paper = ["–" if value is None else f"{value:.1f}" for value in (row.miou, row.accuracy, row.f1)]
    return paper, [f"{100 * scores[key]:.1f}" for key in _MEASURED[row.averaging]]


@dataclass(frozen=True)
class _Box:
    """The plotting area within an SVG of `width` by `height` units; to its right stand the lines' names."""

    width: int = 452
    height: int = 270
    left: int = 36
    right: int = 320
    top: int = 10
    bottom: int = 232


_BOX: Final = _Box()
_LABEL_HEIGHT: Final = 15.0
_GROUP: Final = 10.0  # of the plot's units, for settings with about as many segments
_MOST_TICKS: Final = 9
_TICKS: Final = [step * 10**power for power in range(8) for step in (1, 2, 5)]
_PLOTTED: Final = (
    ("Covering", "covering"),
    ("Mean IoU, Hungarian matching", "miou"),
    ("Mean IoU, oracle-merged", "miou_oracle"),
)


@dataclass(frozen=True)
class Point:
    """A setting in a plot: where, what it is, and whether it is the one of the best covering."""

    x: float
    y: float
    title: str
    best: bool


@dataclass(frozen=True)
class Line:
    """A candidate in a plot: all its settings, those that the line joins, and the height of its name at the side."""

    name: str
    points: tuple[Point, ...]
    joined: tuple[Point, ...]
    label_y: float


@dataclass(frozen=True)
class Plot:
    """A score against the number of segments; ticks are places and texts."""

    title: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class _Scale:
    """Values from `low` to `high` in places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def score_plot(title: str, measure: str, summaries: Sequence[Mapping[str, Any]]) -> Plot:
    """A measure at every setting of every summary, the numbers of segments by their logarithms."""
    rows = [row for summary in summaries for row in summary["settings"]]
    counts = _decades([row["segments"] for row in rows])
    tenths = [row[measure] * 10 for row in rows]
    low = min(int(min(tenths)), 9)
    high = max(ceil(max(tenths)), low + 1)
    x = _Scale(np.log(counts[0]), np.log(counts[-1]), _BOX.left, _BOX.right)
    y = _Scale(low / 10, high / 10, _BOX.bottom, _BOX.top)
    points = [_points(summary, measure, x, y) for summary in summaries]
    joined = [_joined(line) for line in points]
    labels = spread_labels([line[-1].y for line in joined], _LABEL_HEIGHT, _BOX.bottom)
    names = [summary["candidate"] for summary in summaries]
    return Plot(
        title,
        tuple((x(np.log(count)), f"{count}") for count in counts if len(counts) <= _MOST_TICKS or f"{count}"[0] == "1"),
        tuple((y(tenth / 10), f"{tenth / 10:.1f}") for tenth in range(low, high + 1)),
        tuple(Line(*each) for each in zip(names, points, joined, labels, strict=True)),
    )


def _decades(segments: Sequence[float]) -> list[int]:
    """1, 2, 5, 10, …: from the last that is below all of them, or the least of them, to the first that is above all."""
    return _TICKS[bisect_right(_TICKS, min(segments)) - 1 : bisect_right(_TICKS, max(segments)) + 1]


def _points(summary: Mapping[str, Any], measure: str, x: _Scale, y: _Scale) -> tuple[Point, ...]:
    """A candidate's settings, from few segments to many."""
    return tuple(
        Point(
            x(np.log(row["segments"])),
            y(row[measure]),
            f"{row['setting']}: {row['segments']:.1f} segments, {row[measure]:.3f}",
            row["setting"] == summary["ods_setting"],
        )
        for row in sorted(summary["settings"], key=lambda row: row["segments"])
    )


def _joined(points: Sequence[Point]) -> tuple[Point, ...]:
    """The highest of the points that are about as far to the right, for each such group."""
    highest = {int(point.x // _GROUP): point for point in sorted(points, key=lambda point: -point.y)}
    return tuple(highest[group] for group in sorted(highest))


def spread_labels(heights: Sequence[float], distance: float, bottom: float) -> list[float]:
    """The heights, in their order, lowered until they are a distance apart and raised until none is below `bottom`."""
    order = np.argsort(heights, kind="stable")
    steps = distance * np.arange(len(order))
    lowered = np.maximum.accumulate(np.asarray(heights, float)[order] - steps) + steps
    placed = np.empty(len(order))
    placed[order] = np.minimum(lowered, bottom - steps[::-1])
    return placed.tolist()
