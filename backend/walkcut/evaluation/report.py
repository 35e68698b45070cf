"""The report of an evaluation: one self-contained HTML file with scores, plots and images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

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


_COLUMNS: Final = {  # labels and keys in a summary, by group
    "Covering": {"ODS": "covering_ods", "OIS": "covering_ois"},
    "Rand index": {"ODS": "rand_ods", "OIS": "rand_ois"},
    "Variation of inf.": {"ODS": "variation_ods", "OIS": "variation_ois"},
    "Boundary F": {"ODS": "boundary_f_ods", "OIS": "boundary_f_ois"},
    "Mean IoU": {"Hungarian": "miou_hungarian", "merged": "miou_oracle"},
    "": {"Accuracy": "accuracy", "F1": "f1", "Seconds": "seconds_per_image"},
}
_LOWER_IS_BETTER: Final = frozenset({"variation_ods", "variation_ois", "seconds_per_image"})


@dataclass(frozen=True)
class Table:
    """Groups with their numbers of columns, the columns' labels, and rows of cells.

    A cell is a text, whether it is the best of its column, and the 95 % interval or nothing.
    """

    groups: tuple[tuple[str, int], ...]
    labels: tuple[str, ...]
    rows: tuple[tuple[tuple[str, bool, str], ...], ...]


def score_table(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """Return the measured scores, a row for each summary; the best of a column with several values is marked."""
    measured = {key for summary in summaries for key in summary}
    columns = [
        (group, label, key) for group, keys in _COLUMNS.items() for label, key in keys.items() if key in measured
    ]
    groups = Counter(group for group, _, _ in columns)
    cells = [_cells(key, summaries) for _, _, key in columns]
    return Table(tuple(groups.items()), tuple(label for _, label, _ in columns), tuple(zip(*cells, strict=True)))


def _cells(key: str, summaries: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool, str]]:
    texts = [f"{summary[key]:.3f}" if key in summary else "–" for summary in summaries]
    values = [float(text) for text in texts if text != "–"]
    best = f"{min(values) if key in _LOWER_IS_BETTER else max(values):.3f}"
    intervals = [_interval(key, summary) for summary in summaries]
    return [(text, text == best and len(values) > 1, interval) for text, interval in zip(texts, intervals, strict=True)]


def _interval(key: str, summary: Mapping[str, Any]) -> str:
    return "{:.3f}–{:.3f}".format(*summary["intervals"][key]) if key in summary["intervals"] else ""


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
