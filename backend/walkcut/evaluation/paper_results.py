"""Results reported by the papers, for comparison with a run's: the rows of `data/paper_results.csv`, in percent."""

from dataclasses import dataclass
from typing import Final

from walkcut.evaluation.datasets import read_table


@dataclass(frozen=True)
class PaperResult:
    """A row of a paper's table, with the preset, model and data set that reproduce it.

    Scores are accumulated over images unless `averaging` says otherwise (DWC supplement, table 6).
    """

    source: str
    preset: str
    model: str
    dataset: str
    miou: float
    accuracy: float | None = None
    f1: float | None = None
    averaging: str = "global"


PAPER_RESULTS: Final = tuple(
    PaperResult(
        **{name: row[name] for name in ("source", "preset", "model", "dataset", "averaging")},
        miou=float(row["miou"]),
        accuracy=float(row["accuracy"]) if row["accuracy"] else None,
        f1=float(row["f1"]) if row["f1"] else None,
    )
    for row in read_table("paper_results")
)


def paper_results(preset: str, model: str, dataset: str) -> tuple[PaperResult, ...]:
    """Return the papers' results for a preset, a model and a data set.

    >>> [result.miou for result in paper_results("dwc-table5-dwc", "ssd1b", "coco-stuff-27")]
    [41.3]
    """
    key = (preset, model, dataset)
    return tuple(row for row in PAPER_RESULTS if (row.preset, row.model, row.dataset) == key)
