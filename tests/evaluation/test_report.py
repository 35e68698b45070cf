"""The report: one self-contained file."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests.builders.evaluation import ONE, PIXELS, QUARTERS, FixedSystem, quarter_dataset
from tests.builders.ground_truth import save_image, save_labels
from walkcut.evaluation.datasets import Dataset
from walkcut.evaluation.paper_results import PaperResult
from walkcut.evaluation.plots import series_style
from walkcut.evaluation.protocols import PROTOCOLS
from walkcut.evaluation.report import SystemOutcome, report_page, score_table
from walkcut.evaluation.runner import EvaluationRun
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


def outcome(images: Dataset, system: FixedSystem) -> SystemOutcome:
    run = EvaluationRun(system, images, PROTOCOLS["native"], frozenset({"0"}) if images.partitions else frozenset())
    results = tuple(run.results())
    return SystemOutcome(run, results, summarise(run, results))


def page(root: Path, systems: Sequence[FixedSystem], papers: Sequence[PaperResult] = (), **options: bool) -> str:
    """Return the report on three images of quarters; the truth of the second is one part."""
    images = quarter_dataset(root, **options)
    save_labels(root / "labels" / "1.png", ONE.astype(np.uint8))
    return report_page([outcome(images, system) for system in systems], papers, {"Command": "walkcut evaluate"})


def test_the_report_needs_no_other_file(tmp_path: Path) -> None:
    text = page(tmp_path, [FixedSystem()])
    found = Page(text)
    sources = [value for _, attributes in found.tags for name, value in attributes.items() if name in {"src", "href"}]
    assert len(sources) == 3 * 4 + 3 * 2
    assert all(source and source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not {tag for tag, _ in found.tags} & {"script", "link", "iframe", "object", "embed", "base"}
    local = re.sub(r'src="[^"]*"|xmlns(:xlink)?="[^"]*"|url\(#', "", text)
    assert not re.search(r"https?:|url\(|@import|srcset", local)


def test_the_run_is_described_at_the_top(tmp_path: Path) -> None:
    texts = Page(page(tmp_path, [FixedSystem(version="4f")])).texts
    assert {"fixed, version 4f", "folder val: 3 images, protocol native", "Command", "walkcut evaluate"} <= {*texts}


def test_all_systems_are_in_the_table_and_the_legend(tmp_path: Path) -> None:
    texts = Page(page(tmp_path, [FixedSystem(), FixedSystem(name="other"), FixedSystem(name="third")])).texts
    assert [texts.count(name) for name in ("other", "third")] == [1 + 1, 1 + 1]


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "<img src=x onerror=1>.png")
    save_labels(tmp_path / "labels" / "<img src=x onerror=1>.png", PIXELS.astype(np.uint16))
    found = Page(page(tmp_path, [FixedSystem(name=HOSTILE)], [PaperResult(HOSTILE, "r", "m", "d", 1.0)]))
    assert HOSTILE in found.texts
    assert any("<img src=x onerror=1>" in text for text in found.texts)
    assert "script" not in {tag for tag, _ in found.tags}
    assert not any("onerror" in attributes for _, attributes in found.tags)


def test_the_worst_image_is_drawn(tmp_path: Path) -> None:
    texts = Page(page(tmp_path, [FixedSystem()])).texts
    assert texts[texts.index("worst") + 1] == ": 1"


def test_systems_look_alike_in_table_and_legend(tmp_path: Path) -> None:
    text = page(tmp_path, [FixedSystem((QUARTERS,), name=str(index)) for index in range(12)])
    classes = [(attributes.get("class") or "").split() for tag, attributes in Page(text).tags if tag == "span"]
    styles = [" ".join(names[1:]) for names in classes if names[:1] == ["swatch"]]
    assert styles == [series_style(index).css for index in range(12)] * 2
    assert all(f"--c{colour}" in text and f"var(--c{colour})" in text for colour in range(6))


@pytest.mark.parametrize("classes", [False, True])
def test_one_setting_is_enough(tmp_path: Path, classes: bool) -> None:
    found = Page(page(tmp_path, [FixedSystem((QUARTERS,))], classes=classes))
    assert found.count("svg") == 3
    assert "From coarse to fine" not in found.texts
    assert ("Boundary F" in found.texts) is not classes


def test_the_papers_results_are_compared_with_the_run(tmp_path: Path) -> None:
    rows = [
        PaperResult("DWC table 3", "r", "m", "d", 46.6, 74.1),
        PaperResult("DWC table 6", "r", "m", "d", 64.5, 83.6, 76.0, "per image, oracle-merged"),
    ]
    cells = Page(page(tmp_path, [FixedSystem((QUARTERS,))], rows, classes=True)).texts
    first, second = (cells.index(row.source) for row in rows)
    joined = [text for text in cells[first : second + 15] if text]
    # The second image is all sky, of which a quarter is found; the rest is matched to absent classes.
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
    measured = {"covering_ods": 0.5, "variation_ods": 1.0, "f1": 0.30004, "intervals": {"covering_ods": (0.4, 0.61)}}
    table = score_table(
        [
            measured | {"rand_ods": 0.7},
            measured | {"covering_ods": 0.6, "variation_ods": 2.0, "f1": 0.3, "intervals": {}},
        ]
    )
    assert table.groups == (("Covering", 1), ("Rand index", 1), ("Variation of inf.", 1), ("", 1))
    assert table.labels == ("ODS", "ODS", "ODS", "F1")
    assert table.rows == (
        (("0.500", False, "0.400–0.610"), ("0.700", False, ""), ("1.000", True, ""), ("0.300", True, "")),
        (("0.600", True, ""), ("–", False, ""), ("2.000", False, ""), ("0.300", True, "")),
    )
