"""Names that are given are right: series of images as in `benchmarks/naming.py`."""

from itertools import islice

import pytest

from benchmarks.naming import Count, made_series, make_task, measure, photographs
from benchmarks.naming_scenes import SERIES
from tests.builders.bsds500 import ROOT, needs_photographs
from walkcut.segmentation.segmenter import load_segmenter


@pytest.mark.parametrize(
    ("series", "min_share"), [("position", 0.8), ("light", 0.8), ("strangers", 0.0), ("misleading", 0.0)]
)
def test_nine_in_ten_names_are_right(series: str, min_share: float) -> None:
    assert series in SERIES
    count = measure(made_series(load_segmenter("classical"), series, 11), 8, orders=2)
    assert count.right >= 0.9 * count.given
    assert count.named > 0
    assert count.right >= min_share * count.named


@needs_photographs
def test_nine_in_ten_names_of_photographs_are_right_if_any_is_given() -> None:
    segmenter = load_segmenter("classical")
    tasks = [
        make_task(segmenter, *image, index, is_complete=False)
        for index, image in enumerate(islice(photographs(ROOT), 14))
    ]
    count = measure(tasks, 8, orders=3)
    assert count.named > 0
    assert count.right >= 0.9 * count.given


def test_counts_add_up() -> None:
    assert Count(3, 2, 1) + Count(1, 1, 1) == Count(4, 3, 2)
