"""The report of an evaluation: one self-contained HTML file with scores, plots and images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Literal

from walkcut.errors import require_extra
from walkcut.evaluation.figures import image_figures
from walkcut.evaluation.paper_results import PaperResult
from walkcut.evaluation.plots import score_plot, series_style
from walkcut.evaluation.runner import EvaluationRun, ImageResult

_PLOTTED: Final = (
    ("Covering", "covering"),
    ("Mean IoU, Hungarian matching", "miou"),
    ("Mean IoU, oracle-merged", "miou_oracle"),
)


@dataclass(frozen=True)
class SystemOutcome:
    """A run, its results, and their summary by `summarise`."""

    run: EvaluationRun
    results: tuple[ImageResult, ...]
    summary: Mapping[str, Any]


def report_page(outcomes: Sequence[SystemOutcome], papers: Sequence[PaperResult], facts: Mapping[str, str]) -> str:
    """Return the page: the first outcome is the one reported, the others are its baselines on the same images.

    `papers` are the papers' results for the first, and `facts` the lines of the page's head, by their names. Raises
    `SettingsError` without matplotlib or jinja2.
    """
    with require_extra("evaluation"):
        from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - an extra
        from markupsafe import Markup  # noqa: PLC0415
    first = outcomes[0]
    summaries = [outcome.summary for outcome in outcomes]
    images = image_figures(first.run, first.results, first.summary["ods_setting"])
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
        paper_results=[(row, *_compare(row, first.summary)) for row in papers],
        plots=[(title, Markup(score_plot(measure, summaries))) for title, measure in _PLOTTED],  # noqa: S704 - SVG
        series_styles=[series_style(index).css for index in range(len(summaries))],
        ranks=[(rank, list(group)) for rank, group in groupby(images, key=lambda image: image.rank)],
    )


@dataclass(frozen=True)
class _Column:
    """A score in the table: its key in a summary, and whether the maximum or the minimum is best."""

    group: str
    label: str
    key: str
    best: Literal["max", "min"] = "max"


_COLUMNS: Final = (
    _Column("Covering", "ODS", "covering_ods"),
    _Column("Covering", "OIS", "covering_ois"),
    _Column("Rand index", "ODS", "rand_ods"),
    _Column("Rand index", "OIS", "rand_ois"),
    _Column("Variation of inf.", "ODS", "variation_ods", "min"),
    _Column("Variation of inf.", "OIS", "variation_ois", "min"),
    _Column("Boundary F", "ODS", "boundary_f_ods"),
    _Column("Boundary F", "OIS", "boundary_f_ois"),
    _Column("Mean IoU", "Hungarian", "miou_hungarian"),
    _Column("Mean IoU", "merged", "miou_oracle"),
    _Column("", "Accuracy", "accuracy"),
    _Column("", "F1", "f1"),
    _Column("", "Seconds", "seconds_per_image", "min"),
)


@dataclass(frozen=True)
class Table:
    """Groups with their numbers of columns, the columns' labels, and rows of cells: a text, and whether it is best."""

    groups: tuple[tuple[str, int], ...]
    labels: tuple[str, ...]
    rows: tuple[tuple[tuple[str, bool], ...], ...]


def score_table(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """Return the measured scores, a row for each summary; the best of a column with several values is marked."""
    columns = [column for column in _COLUMNS if any(column.key in summary for summary in summaries)]
    groups = tuple((name, len(list(group))) for name, group in groupby(columns, key=lambda column: column.group))
    by_column = [_cells(column, summaries) for column in columns]
    return Table(groups, tuple(column.label for column in columns), tuple(zip(*by_column, strict=True)))


def _cells(column: _Column, summaries: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool]]:
    texts = [f"{summary[column.key]:.3f}" if column.key in summary else "–" for summary in summaries]
    values = [float(text) for text in texts if text != "–"]
    best = f"{max(values) if column.best == 'max' else min(values):.3f}"
    return [(text, text == best and len(values) > 1) for text in texts]


_MEASURED: Final = {
    "global": ("miou_hungarian", "accuracy", "f1"),
    "per image": ("miou", "accuracy", "f1"),
    "per image, oracle-merged": ("miou_oracle", "accuracy_oracle", "f1_oracle"),
}


def _compare(row: PaperResult, summary: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return mean IoU, accuracy and F1 in percent: the paper's, and this run's averaged in the same way."""
    scores = summary if row.averaging == "global" else summary["per_image"]
    paper = ["–" if value is None else f"{value:.1f}" for value in (row.miou, row.accuracy, row.f1)]
    return paper, [f"{100 * scores[key]:.1f}" for key in _MEASURED[row.averaging]]
