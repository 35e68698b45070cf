"""What the papers report, to be set beside a run's own figures. All numbers in percent."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A row of a paper's table: with which preset, model and data set it was got, and what it says.

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
) -> Published:
    return Published(f"DWC table {table}", f"dwc-table{table}-{preset}", model, "coco-stuff-27", miou, accuracy, f1)


_BEST = "dwc-table3-manc-16-32-64"

PUBLISHED: tuple[Published, ...] = (
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
    Published("DWC table 3", "diffseg-table1", "sd14", "coco-stuff-27", 43.6, 72.5, 58.5),
    Published("DWC table 3", "dwc-table5-diffcut-sd14", "sd14", "coco-stuff-27", 31.3, 59.6, 44.5),
    Published("DWC table 4", _BEST, "sd14", "cityscapes-27", 22.0),
    Published("DWC table 4", _BEST, "sd14", "ade20k-150", 41.2),
    Published("DWC table 4", "dwc-table5-diffcut-sd14", "sd14", "cityscapes-27", 18.1),
    Published("DWC table 4", "dwc-table5-diffcut-sd14", "sd14", "ade20k-150", 40.1),
    _dwc(5, "diffcut-ssd1b", 46.1, model="ssd1b"),
    _dwc(5, "dwc", 41.3, model="ssd1b"),
    _dwc(5, "dwc-pamr", 42.6, model="ssd1b"),
    _dwc(5, "diffcut-sd14", 31.3),
    _dwc(5, "diffcut-sd14-pamr", 45.2),
    _dwc(5, "dwc", 46.6),
    _dwc(5, "dwc-pamr", 47.1),
    Published("DWC table 6", _BEST, "sd14", "coco-stuff-27", 38.0, 74.0, 73.3, "per image"),
    Published("DWC table 6", _BEST, "sd14", "coco-stuff-27", 64.5, 83.6, 76.0, "per image, oracle-merged"),
    Published("DWC table 6", "diffseg-table1", "sd14", "coco-stuff-27", 34.1, 72.6, 71.1, "per image"),
    Published("DWC table 6", "diffseg-table1", "sd14", "coco-stuff-27", 60.6, 79.2, 73.0, "per image, oracle-merged"),
    _dwc(7, "step-25", 43.1),
    _dwc(7, "step-30", 45.7),
    _dwc(7, "step-35", 46.6),
    _dwc(7, "step-40", 46.6),
    _dwc(7, "step-45", 45.3),
    _dwc(7, "no-inversion", 46.6),
    Published("DiffSeg table 1", "diffseg-table1-kmeans-c", "sd14", "coco-stuff-27", 33.7, 58.9),
    Published("DiffSeg table 1", "diffseg-table1-kmeans-s", "sd14", "coco-stuff-27", 34.7, 62.6),
    Published("DiffSeg table 1", "diffseg-table1-dbscan", "sd14", "coco-stuff-27", 27.2, 57.7),
    Published("DiffSeg table 1", "diffseg-table1", "dino", "coco-stuff-27", 39.1, 68.2),
    Published("DiffSeg table 1", "diffseg-table1-320", "sd14", "coco-stuff-27", 43.0, 72.5),
    Published("DiffSeg table 1", "diffseg-table1", "sd14", "coco-stuff-27", 43.6, 72.5),
    Published("DiffSeg table 2", "diffseg-table2-320", "sd14", "cityscapes-27", 15.2, 67.3),
    Published("DiffSeg table 2", "diffseg-table2", "sd14", "cityscapes-27", 21.2, 76.0),
    *(
        Published("DiffCut table 1", preset, model, dataset, miou)
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


def published_rows(preset: str, model: str, dataset: str) -> tuple[Published, ...]:
    """What the papers report for this."""
    wanted = (preset, model, dataset)
    return tuple(row for row in PUBLISHED if (row.preset, row.model, row.dataset) == wanted)
