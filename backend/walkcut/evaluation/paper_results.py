"""Results reported by the papers, for comparison with a run's. All numbers are in percent."""

from dataclasses import dataclass


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


def _dwc(
    table: int, preset: str, miou: float, accuracy: float | None = None, f1: float | None = None, model: str = "sd14"
) -> PaperResult:
    return PaperResult(f"DWC table {table}", f"dwc-table{table}-{preset}", model, "coco-stuff-27", miou, accuracy, f1)


_BEST = "dwc-table3-manc-16-32-64"

PAPER_RESULTS: tuple[PaperResult, ...] = (
    _dwc(1, "dot-0.4", 44.0, 74.0, 58.4),
    _dwc(1, "dot-0.5", 43.1, 71.6, 56.7),
    _dwc(1, "dot-0.6", 32.1, 60.0, 45.2),
    _dwc(1, "cosine-0.4", 41.7, 72.4, 56.0),
    _dwc(1, "cosine-0.5", 42.2, 71.5, 56.0),
    _dwc(1, "cosine-0.6", 34.4, 62.9, 47.7),
    _dwc(2, "k1", 23.8, 45.9, 36.1),
    _dwc(2, "k2", 40.7, 67.0, 54.4),
    _dwc(2, "k3", 42.4, 71.2, 56.9),
    _dwc(2, "k4", 41.1, 70.7, 55.8),
    _dwc(2, "k5", 39.6, 70.0, 54.2),
    _dwc(3, "walk", 43.3, 72.2, 56.9),
    _dwc(3, "manc-8-16-32-64", 46.1, 74.7, 60.6),
    _dwc(3, "manc-16-32-64", 46.6, 74.1, 60.8),
    _dwc(3, "manc-32-64", 42.7, 70.1, 56.4),
    _dwc(3, "manc-64", 36.4, 63.9, 49.6),
    _dwc(3, "mincut-8-16-32-64", 23.8, 45.9, 36.1),
    _dwc(3, "mincut-16-32-64", 20.6, 42.0, 32.0),
    _dwc(3, "mincut-32-64", 17.0, 37.2, 27.6),
    _dwc(3, "mincut-64", 15.3, 36.1, 25.0),
    PaperResult("DWC table 3", "diffseg-table1", "sd14", "coco-stuff-27", 43.6, 72.5, 58.5),
    PaperResult("DWC table 3", "dwc-table5-diffcut-sd14", "sd14", "coco-stuff-27", 31.3, 59.6, 44.5),
    PaperResult("DWC table 4", _BEST, "sd14", "cityscapes-27", 22.0),
    PaperResult("DWC table 4", _BEST, "sd14", "ade20k-150", 41.2),
    PaperResult("DWC table 4", "dwc-table5-diffcut-sd14", "sd14", "cityscapes-27", 18.1),
    PaperResult("DWC table 4", "dwc-table5-diffcut-sd14", "sd14", "ade20k-150", 40.1),
    _dwc(5, "diffcut-ssd1b", 46.1, model="ssd1b"),
    _dwc(5, "dwc", 41.3, model="ssd1b"),
    _dwc(5, "dwc-pamr", 42.6, model="ssd1b"),
    _dwc(5, "diffcut-sd14", 31.3),
    _dwc(5, "diffcut-sd14-pamr", 45.2),
    _dwc(5, "dwc", 46.6),
    _dwc(5, "dwc-pamr", 47.1),
    PaperResult("DWC table 6", _BEST, "sd14", "coco-stuff-27", 38.0, 74.0, 73.3, "per image"),
    PaperResult("DWC table 6", _BEST, "sd14", "coco-stuff-27", 64.5, 83.6, 76.0, "per image, oracle-merged"),
    PaperResult("DWC table 6", "diffseg-table1", "sd14", "coco-stuff-27", 34.1, 72.6, 71.1, "per image"),
    PaperResult("DWC table 6", "diffseg-table1", "sd14", "coco-stuff-27", 60.6, 79.2, 73.0, "per image, oracle-merged"),
    _dwc(7, "step-25", 43.1),
    _dwc(7, "step-30", 45.7),
    _dwc(7, "step-35", 46.6),
    _dwc(7, "step-40", 46.6),
    _dwc(7, "step-45", 45.3),
    _dwc(7, "no-inversion", 46.6),
    PaperResult("DiffSeg table 1", "diffseg-table1-kmeans-c", "sd14", "coco-stuff-27", 33.7, 58.9),
    PaperResult("DiffSeg table 1", "diffseg-table1-kmeans-s", "sd14", "coco-stuff-27", 34.7, 62.6),
    PaperResult("DiffSeg table 1", "diffseg-table1-dbscan", "sd14", "coco-stuff-27", 27.2, 57.7),
    PaperResult("DiffSeg table 1", "diffseg-table1", "dino", "coco-stuff-27", 39.1, 68.2),
    PaperResult("DiffSeg table 1", "diffseg-table1-320", "sd14", "coco-stuff-27", 43.0, 72.5),
    PaperResult("DiffSeg table 1", "diffseg-table1", "sd14", "coco-stuff-27", 43.6, 72.5),
    PaperResult("DiffSeg table 2", "diffseg-table2-320", "sd14", "cityscapes-27", 15.2, 67.3),
    PaperResult("DiffSeg table 2", "diffseg-table2", "sd14", "cityscapes-27", 21.2, 76.0),
    *(
        PaperResult("DiffCut table 1", preset, model, dataset, miou)
        for preset, model, scores in (
            ("diffcut-table1", "ssd1b", (65.2, 56.5, 34.1, 49.1, 30.6, 44.3)),
            ("diffcut-table1-diffseg", "sd14", (49.8, 48.8, 23.2, 44.2, 16.8, 37.7)),
            ("diffcut-table1-maskcut", "dino", (53.8, 43.4, 30.1, 41.7, 18.7, 35.7)),
        )
        for dataset, miou in zip(
            ("voc", "context", "coco-object", "coco-stuff-27", "cityscapes-27", "ade20k-150"), scores, strict=True
        )
    ),
)


def paper_results(preset: str, model: str, dataset: str) -> tuple[PaperResult, ...]:
    """Return the papers' results for a preset, a model and a data set.

    >>> [result.miou for result in paper_results("dwc-table5-dwc", "ssd1b", "coco-stuff-27")]
    [41.3]
    """
    key = (preset, model, dataset)
    return tuple(row for row in PAPER_RESULTS if (row.preset, row.model, row.dataset) == key)
