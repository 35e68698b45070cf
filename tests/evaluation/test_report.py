"""The report: one file that holds all it needs."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.truth_files import save_image, save_labels
from tests.evaluation.test_runner import ONE, PIXELS, QUARTERS, Answering, dataset
from walkcut.evaluation.datasets import Dataset
from walkcut.evaluation.paper_results import Published
from walkcut.evaluation.protocols import PROTOCOLS
from walkcut.evaluation.report import Outcome, report_page, score_plot, score_table, series_styles, spread_labels
from walkcut.evaluation.runner import Run
from walkcut.evaluation.summary import summarise

HOSTILE = "<script>alert('&\"')</script>"


class Page(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(" ".join(data.split()))

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)


def outcome(images: Dataset, system: Answering) -> Outcome:
    run = Run(system, images, PROTOCOLS["native"], frozenset({"0"}) if images.partitions else frozenset())
    results = tuple(run.results())
    return Outcome(run, results, summarise(run, results))


def page(root: Path, systems: Sequence[Answering], published: Sequence[Published] = (), **options: bool) -> str:
    """The report on three images of quarters; the truth of the second is one part."""
    images = dataset(root, **options)
    save_labels(root / "labels" / "1.png", ONE.astype(np.uint8))
    return report_page([outcome(images, each) for each in systems], published, {"Command": "walkcut evaluate"})


def test_the_report_needs_no_other_file(tmp_path: Path) -> None:
    text = page(tmp_path, [Answering()])
    found = Page(text)
    sources = [value for _, attributes in found.tags for name, value in attributes.items() if name in {"src", "href"}]
    assert len(sources) == 3 * 4 + 3 * 2
    assert all(source and source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not {tag for tag, _ in found.tags} & {"script", "link", "iframe", "object", "embed", "base"}
    assert not re.search(r"https?:|url\(|@import|srcset", re.sub(r'src="[^"]*"', "", text))


def test_what_was_run_stands_at_the_top(tmp_path: Path) -> None:
    texts = Page(page(tmp_path, [Answering(version="4f")])).texts
    assert {"answering, version 4f", "folder val: 3 images, protocol native", "Command", "walkcut evaluate"} <= {*texts}


def test_every_candidate_is_in_the_table_and_in_every_plot(tmp_path: Path) -> None:
    texts = Page(page(tmp_path, [Answering(), Answering(name="other"), Answering(name="third")])).texts
    assert [texts.count(name) for name in ("other", "third")] == [1 + 3, 1 + 3]


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "<img src=x onerror=1>.png")
    save_labels(tmp_path / "labels" / "<img src=x onerror=1>.png", PIXELS.astype(np.uint16))
    found = Page(page(tmp_path, [Answering(name=HOSTILE)], [Published(HOSTILE, "r", "m", "d", 1.0)]))
    assert HOSTILE in found.texts
    assert any("<img src=x onerror=1>" in text for text in found.texts)
    assert "script" not in {tag for tag, _ in found.tags}
    assert not any("onerror" in attributes for _, attributes in found.tags)


def test_the_worst_image_has_a_panel(tmp_path: Path) -> None:
    texts = Page(page(tmp_path, [Answering()])).texts
    assert texts[texts.index("worst") + 1] == ": 1"


def test_the_plots_hold_a_point_for_every_setting(tmp_path: Path) -> None:
    systems = [Answering(), Answering((ONE, QUARTERS), name="other")]
    found = Page(page(tmp_path, systems))
    assert found.count("rect") == 3 * (3 + 2 + 2), "one beside each name too"
    assert found.count("polyline") == 3 * 2


def test_twelve_candidates_have_marks_of_their_own_alike_in_table_and_plots(tmp_path: Path) -> None:
    found = Page(page(tmp_path, [Answering((QUARTERS,), name=str(number)) for number in range(12)]))
    classes = [(tag, (attributes.get("class") or "").split()) for tag, attributes in found.tags]
    table = [" ".join(names[1:]) for tag, names in classes if tag == "span" and names[:1] == ["swatch"]]
    plots = [" ".join(names) for tag, names in classes if tag == "g"]
    assert len(set(table)) == 12
    assert plots == table[::-1] * 3
    assert series_styles(13)[12] == series_styles(13)[0]


@pytest.mark.parametrize("classes", [False, True])
def test_one_setting_is_enough(tmp_path: Path, classes: bool) -> None:
    found = Page(page(tmp_path, [Answering((QUARTERS,))], classes=classes))
    assert found.count("rect") == 3 * (1 + 1)
    assert "From coarse to fine" not in found.texts
    assert ("Boundary F" in found.texts) is not classes


def test_the_papers_figures_stand_beside_those_of_the_run(tmp_path: Path) -> None:
    rows = [
        Published("DWC table 3", "r", "m", "d", 46.6, 74.1),
        Published("DWC table 6", "r", "m", "d", 64.5, 83.6, 76.0, "per image, oracle-merged"),
    ]
    cells = Page(page(tmp_path, [Answering((QUARTERS,))], rows, classes=True)).texts
    one, two = (cells.index(row.source) for row in rows)
    joined = [text for text in cells[one : two + 15] if text]
    # The second image is all sky, of which a quarter is found; the others go to classes that it does not have.
    assert joined[:8] == ["DWC table 3", "global", "46.6", "74.1", "–", "62.5", "75.0", "76.7"]
    assert joined[8:16] == [
        "DWC table 6",
        "per image, oracle-merged",
        "64.5",
        "83.6",
        "76.0",
        "100.0",
        "100.0",
        "100.0",
    ]


def test_the_best_of_a_column_is_marked() -> None:
    measured = {"covering_ods": 0.5, "variation_ods": 1.0, "f1": 0.30004}
    table = score_table(
        [measured | {"rand_ods": 0.7}, measured | {"covering_ods": 0.6, "variation_ods": 2.0, "f1": 0.3}]
    )
    assert table.groups == (("Covering", 1), ("Rand index", 1), ("Variation of inf.", 1), ("", 1))
    assert table.labels == ("ODS", "ODS", "ODS", "F1")
    assert table.rows == (
        (("0.500", False), ("0.700", False), ("1.000", True), ("0.300", True)),
        (("0.600", True), ("–", False), ("2.000", False), ("0.300", True)),
    )


def row(setting: str, segments: float, covering: float) -> dict:
    return {"setting": setting, "segments": segments, "covering": covering}


def test_a_plot_runs_over_decades_and_tenths() -> None:
    rows = [row("b", 40, 0.55), row("a", 2, 0.3), row("worse", 41, 0.41)]
    plot = score_plot("Covering", "covering", [{"candidate": "c", "ods_setting": "b", "settings": rows}])
    assert [text for _, text in plot.x_ticks] == ["2", "5", "10", "20", "50"]
    assert [text for _, text in plot.y_ticks] == ["0.3", "0.4", "0.5", "0.6"]
    (line,) = plot.lines
    assert [(point.title, point.best) for point in line.points] == [
        ("a: 2.0 segments, 0.300", False), ("b: 40.0 segments, 0.550", True), ("worse: 41.0 segments, 0.410", False),
    ]  # fmt: skip
    assert (line.points[0].x, line.points[0].y) == (plot.x_ticks[0][0], plot.y_ticks[0][0])
    assert line.joined == line.points[:2]


@given(st.lists(st.tuples(st.floats(1, 1e5), st.floats(0, 1)), min_size=1, max_size=8))
def test_points_stay_within_the_ticks(places: list[tuple[float, float]]) -> None:
    rows = [row(str(number), *place) for number, place in enumerate(places)]
    plot = score_plot("Covering", "covering", [{"candidate": "c", "ods_setting": "0", "settings": rows}])
    y_places = [place for place, _ in plot.y_ticks]
    assert all(36 <= point.x <= 320 for point in plot.lines[0].points)
    assert all(min(y_places) <= point.y <= max(y_places) for point in plot.lines[0].points)
    assert {"0", "1"} >= {text.split(".")[0] for _, text in plot.y_ticks}
    assert float(plot.y_ticks[-1][1]) <= 1


@given(st.lists(st.floats(0, 200), min_size=1, max_size=8))
def test_names_are_kept_apart_and_within_the_plot(heights: list[float]) -> None:
    placed = spread_labels(heights, 15, 232)
    assert (np.diff(sorted(placed)) >= 15 - 1e-9).all()
    assert max(placed) <= 232
    assert np.argsort(placed, kind="stable").tolist() == np.argsort(heights, kind="stable").tolist()


def test_names_that_are_apart_stay() -> None:
    assert spread_labels([100, 20, 50], 15, 232) == [100, 20, 50]
    assert spread_labels([230, 230], 15, 232) == [217, 232]
