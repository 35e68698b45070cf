"""The papers' results, and the presets that reproduce them."""

import pytest

from walkcut.evaluation.datasets import DATASETS
from walkcut.evaluation.paper_results import PAPER_RESULTS, PaperResult, paper_results
from walkcut.models import MODELS
from walkcut.segmentation.presets import find_preset


@pytest.mark.parametrize("row", PAPER_RESULTS, ids=lambda row: f"{row.source} {row.preset} {row.model} {row.dataset}")
def test_every_row_can_be_run(row: PaperResult) -> None:
    assert find_preset(row.preset).name == row.preset
    assert row.model in MODELS
    assert row.dataset in DATASETS
    assert all(0 < score < 100 for score in (row.miou, row.accuracy, row.f1) if score is not None)


def test_rows_are_found_by_preset_model_and_data_set() -> None:
    (row,) = paper_results("dwc-table5-dwc-pamr", "ssd1b", "coco-stuff-27")
    assert (row.source, row.miou) == ("DWC table 5", 42.6)
    assert paper_results("merge", "classical", "bsds500") == ()
