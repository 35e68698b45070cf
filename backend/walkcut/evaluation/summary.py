"""Summary of a run: each measure at each setting, the best setting for all images, and the best for each image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from walkcut.evaluation.boundaries import boundary_ods_ois
from walkcut.evaluation.metrics import Counts, OdsOis, ods_ois
from walkcut.evaluation.runner import EvaluationRun, ImageResult
from walkcut.evaluation.scoring import MEASURES


def summarise(run: EvaluationRun, results: Sequence[ImageResult]) -> dict[str, Any]:
    """Return the scores of a run, ready for JSON.

    Covering is pooled over images and people as in BSDS's program; all other measures are averaged over images.
    `accuracy`, `f1`, `miou_hungarian` and `miou_oracle` are those at the setting of the best covering: accumulated over
    images if the data set has classes, as in the papers' main tables, else averaged. `per_image` holds the averages at
    that setting, `settings` those at every setting.
    """
    weights = np.array([result.weight for result in results], np.float64)
    covering = ods_ois(_matrix(results, "covering"), weights)
    variation = ods_ois(-_matrix(results, "variation"))
    rand = ods_ois(_matrix(results, "rand"))
    rows = [_setting(results, column, name, weights) for column, name in enumerate(run.system.settings)]
    at_best = rows[covering.granularity]
    return {
        **run.run_settings,
        "settings": rows,
        "images": len(results),
        "seconds_per_image": float(np.mean([result.seconds for result in results])),
        "ods_setting": at_best["setting"],
        "covering_ods": covering.ods,
        "covering_ois": covering.ois,
        "rand_ods": rand.ods,
        "rand_ois": rand.ois,
        "variation_ods": -variation.ods,
        "variation_ois": -variation.ois,
        **_boundary(results),
        **_totals(results, covering),
        "per_image": {name: at_best[name] for name in MEASURES},
    }


def at_segments(summary: Mapping[str, Any], segments: float) -> dict[str, float]:
    """Return each measure at an average number of segments, interpolated between a system's settings.

    Only thresholds are used if there are any, since numbers of segments are another path through the same trees.
    Beyond the finest or coarsest setting its values are returned.
    """
    rows = [row for row in summary["settings"] if row["setting"].startswith("tau=")] or summary["settings"]
    rows = sorted(rows, key=lambda row: row["segments"])
    steps = np.log([row["segments"] for row in rows])
    return {
        measure: float(np.interp(np.log(segments), steps, [row[measure] for row in rows]))
        for measure in ("covering", "miou", "miou_oracle")
    }


def _setting(results: Sequence[ImageResult], column: int, name: str, weights: np.ndarray) -> dict[str, Any]:
    """Return the averages over images at one setting."""
    scores = [result.scores[column] for result in results]
    row: dict[str, Any] = {"setting": name, "segments": float(np.mean([score.segments for score in scores]))}
    row |= {measure: float(np.mean([getattr(score, measure) for score in scores])) for measure in MEASURES}
    row["covering"] = float(np.average([score.covering for score in scores], weights=weights))
    return row


def _totals(results: Sequence[ImageResult], best: OdsOis) -> dict[str, float]:
    """Return accuracy, F1 and mean IoU at the best setting: accumulated if there are classes, else averaged."""
    scores = [result.scores[best.granularity] for result in results]
    matched = [score.counts for score in scores if score.counts is not None]
    merged = [score.counts_oracle for score in scores if score.counts_oracle is not None]
    if matched:
        sums = [sum(counts, Counts.zeros(len(counts[0].tp))) for counts in (matched, merged)]
        values = [getattr(counts, name) for counts in sums for name in ("accuracy", "f1", "mean_iou")]
    else:
        values = [float(np.mean([getattr(score, measure) for score in scores])) for measure in MEASURES[-6:]]
    names = ("accuracy", "f1", "miou_hungarian", *MEASURES[-3:])
    return dict(zip(names, values, strict=True))


def _boundary(results: Sequence[ImageResult]) -> dict[str, float]:
    """Return ODS and OIS of the boundary F, if it was measured."""
    counts = [[score.boundary for score in result.scores if score.boundary is not None] for result in results]
    if not counts[0]:
        return {}
    boundary = boundary_ods_ois(counts)
    return {"boundary_f_ods": boundary.ods, "boundary_f_ois": boundary.ois}


def _matrix(results: Sequence[ImageResult], measure: str) -> np.ndarray:
    """Return the measure of each image (rows) at each setting (columns)."""
    return np.array([[getattr(score, measure) for score in result.scores] for result in results])
