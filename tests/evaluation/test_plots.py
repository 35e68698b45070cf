"""Plots: the points and lines that are drawn, in the colours of the stylesheet."""

import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import same_color

from walkcut.errors import SettingsError
from walkcut.evaluation.plots import score_figure, score_plot, series_style, upper_envelope


def row(setting: str, segments: float, covering: float) -> dict:
    return {"setting": setting, "segments": segments, "covering": covering}


ROWS = [row("b", 40, 0.55), row("a", 2, 0.3), row("worse", 41, 0.41)]


def summary(name: str = "system", rows: list[dict] = ROWS, best: str = "b") -> dict:
    return {"system": name, "ods_setting": best, "settings": rows}


def test_all_settings_are_points_and_the_best_ones_a_line() -> None:
    (axes,) = score_figure("covering", [summary()]).axes
    points, line, best = axes.lines
    assert np.asarray(points.get_xydata()).tolist() == [[40, 0.55], [2, 0.3], [41, 0.41]]
    assert np.asarray(line.get_xydata()).tolist() == [[2, 0.3], [40, 0.55]]
    assert np.asarray(best.get_xydata()).tolist() == [[40, 0.55]]
    assert axes.get_xscale() == "log"


def test_the_legend_names_all_systems_in_order_and_colour() -> None:
    (axes,) = score_figure("covering", [summary(name) for name in ("first", "_second", "$x$")]).axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["first", "_second", "$x$"]
    assert all(
        same_color(text.get_color(), series_style(index).colour) for index, text in enumerate(legend.get_texts())
    )


def test_long_names_are_shortened_in_the_middle() -> None:
    (axes,) = score_figure("covering", [summary("a-very-long-preset-name-of-a-paper")]).axes
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == "a-very-long…e-of-a-paper"


def test_colours_are_the_stylesheets_variables() -> None:
    svg = score_plot("covering", [summary(str(index)) for index in range(6)])
    assert svg.startswith("<svg")
    assert not re.search(r"(fill|stroke): #", svg)
    assert {f"var(--c{index})" for index in range(6)} < {*re.findall(r"var\(--\w+\)", svg)}


def test_names_are_text() -> None:
    svg = score_plot("covering", [summary("<b>&$x$")])
    assert "&lt;b&gt;&amp;$x$" in svg
    assert "<b>" not in svg


def test_a_plot_is_the_same_each_time() -> None:
    assert score_plot("covering", [summary()]) == score_plot("covering", [summary()])


def test_a_single_setting_is_enough() -> None:
    assert "<svg" in score_plot("covering", [summary(rows=[row("a", 1, 1.0)], best="a")])


def test_twelve_styles_differ() -> None:
    assert len({series_style(index) for index in range(12)}) == 12
    assert series_style(12) == series_style(0)


@given(st.lists(st.tuples(st.floats(1, 1e5), st.floats(0, 1)), min_size=1, max_size=8))
def test_the_envelope_holds_the_best_setting_and_goes_from_few_segments_to_many(
    points: list[tuple[float, float]],
) -> None:
    segments, scores = np.array(points).T
    indices = upper_envelope(segments, scores)
    assert scores[indices].max() == scores.max()
    assert (np.diff(segments[indices]) > 0).all()


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SettingsError, match=r"matplotlib is not installed: pip install 'walkcut\[evaluation\]'"):
        score_plot("covering", [summary()])
