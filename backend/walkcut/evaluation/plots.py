"""Plots of an evaluation: scores against numbers of segments, as SVG in the colours of the report's stylesheet."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from walkcut.errors import require_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of the light page. In the SVG each becomes the stylesheet's variable, which has another value in dark mode.
_VARIABLES: Final = {
    "#ffffff": "var(--paper)",
    "#5c6570": "var(--soft)",
    "#d9dde2": "var(--rule)",
    "#0b62a8": "var(--c0)",
    "#c8500a": "var(--c1)",
    "#1d7d36": "var(--c2)",
    "#a3296f": "var(--c3)",
    "#8a6a00": "var(--c4)",
    "#44505c": "var(--c5)",
}
_PAPER, _SOFT, _RULE, *_SERIES = _VARIABLES
_SHAPES: Final = (("round", "o", "-"), ("square", "s", "--"))  # the stylesheet's class, marker and line
_SIMILAR_OCTAVES: Final = 0.25  # between similar numbers of segments, for the line through the best settings
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "walkcut",  # the same identifiers each time
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _SOFT,
    "ytick.labelcolor": _SOFT,
}


@dataclass(frozen=True)
class SeriesStyle:
    """The look of a system in plots, and the stylesheet's classes for the same look in the table."""

    colour: str
    marker: str
    line: str
    css: str


def series_style(index: int) -> SeriesStyle:
    """Return a system's style: the first twelve differ, then they repeat.

    >>> series_style(7).css
    'c1 square'
    """
    colour = index % len(_SERIES)
    name, marker, line = _SHAPES[index // len(_SERIES) % len(_SHAPES)]
    return SeriesStyle(_SERIES[colour], marker, line, f"c{colour} {name}")


def score_plot(measure: str, summaries: Sequence[Mapping[str, Any]]) -> str:
    """Return the plot of a measure at all settings as an SVG element. Raises `SettingsError` without matplotlib."""
    with require_extra("evaluation"):
        from matplotlib import rc_context  # noqa: PLC0415 - an extra
    file = io.StringIO()
    with rc_context(_STYLE):
        score_figure(measure, summaries).savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    markup = file.getvalue()
    for colour, variable in _VARIABLES.items():
        markup = markup.replace(colour, variable)
    return markup[markup.index("<svg") :]


def score_figure(measure: str, summaries: Sequence[Mapping[str, Any]]) -> "Figure":
    """Plot a measure against the average number of segments, which has a logarithmic axis."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    from matplotlib.ticker import LogLocator, NullLocator  # noqa: PLC0415

    figure = Figure(figsize=(5.4, 3.3), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="segments")
    for index, summary in reversed([*enumerate(summaries)]):  # the first on top
        _plot_series(axes, measure, summary, series_style(index))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(length=3)
    return figure


def _plot_series(axes: "Axes", measure: str, summary: Mapping[str, Any], style: SeriesStyle) -> None:
    """Plot all settings, a line through the best ones, and the setting of the best covering as a hollow marker."""
    rows = summary["settings"]
    segments, scores = np.array([(row["segments"], row[measure]) for row in rows], float).T
    best = [row["setting"] for row in rows].index(summary["ods_setting"])
    upper = upper_envelope(segments, scores)
    axes.plot(segments, scores, style.marker, color=style.colour, markersize=2.5)
    axes.plot(segments[upper], scores[upper], style.line, color=style.colour, linewidth=1.4)
    axes.plot(segments[best], scores[best], style.marker, color=style.colour, markersize=6, mfc=_PAPER, mew=1.5)


def upper_envelope(segments: np.ndarray, scores: np.ndarray) -> list[int]:
    """Return the indices of the settings with no better one at a similar number of segments, from few to many.

    >>> upper_envelope(np.array([40, 2, 41]), np.array([0.55, 0.3, 0.41]))
    [1, 0]
    """
    octaves = np.log2(segments)
    similar = np.abs(np.subtract.outer(octaves, octaves)) < _SIMILAR_OCTAVES
    best = np.flatnonzero(scores >= np.where(similar, scores, -np.inf).max(axis=1))
    return best[np.argsort(segments[best], kind="stable")].tolist()
