"""Summary of a run: each measure at each setting, the best setting for all images, and the best for each image."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from walkcut.evaluation.boundaries import BoundaryCounts, boundary_ods_ois
from walkcut.evaluation.intervals import bootstrap_intervals
from walkcut.evaluation.metrics import ods_ois
from walkcut.evaluation.runner import MEASURES, EvaluationRun, ImageResult


def summarise(run: EvaluationRun, results: Sequence[ImageResult]) -> dict[str, Any]:
    """Return the scores of a run, ready for JSON.

    Covering is pooled over images and people as in BSDS's program; all other measures are averaged over images.
    `accuracy`, `f1`, `miou_hungarian` and `miou_oracle` are those at the setting of the best covering: accumulated over
    images if the data set has classes, as in the papers' main tables, else averaged. `per_image` holds the averages at
    that setting, `settings` those at every setting, and `intervals` the 95 % intervals of covering and boundary F.
    """
    weights = np.array([result.weight for result in results], np.float64)
    matrices = {  # of images (rows) at settings (columns)
        measure: np.array([[getattr(score, measure) for score in result.scores] for result in results])
        for measure in ("segments", *MEASURES)
    }
    rows = [
        {"setting": name}
        | {measure: float(np.mean(matrix[:, column])) for measure, matrix in matrices.items()}
        | {"covering": float(np.average(matrices["covering"][:, column], weights=weights))}
        for column, name in enumerate(run.system.settings)
    ]
    covering, variation = ods_ois(matrices["covering"], weights), ods_ois(-matrices["variation"])
    rand = ods_ois(matrices["rand"])
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
        "intervals": _intervals(results, matrices["covering"], weights),
        **_totals(results, covering.granularity, at_best),
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


def _totals(results: Sequence[ImageResult], column: int, averages: Mapping[str, Any]) -> dict[str, float]:
    """Return accuracy, F1 and mean IoU at a setting: accumulated if there are classes, else averaged."""
    names = ("accuracy", "f1", "miou_hungarian", *MEASURES[-3:])
    scores = [result.scores[column] for result in results]
    if scores[0].counts is None:
        return {name: averages[measure] for name, measure in zip(names, MEASURES[-6:], strict=True)}
    sums = [reduce(add, (getattr(score, counts) for score in scores)) for counts in ("counts", "counts_oracle")]
    return dict(zip(names, (value for counts in sums for value in counts.scores), strict=True))


def _boundary(results: Sequence[ImageResult]) -> dict[str, float]:
    """Return ODS and OIS of the boundary F, if it was measured."""
    counts = _boundary_counts(results)
    if not counts[0]:
        return {}
    boundary = boundary_ods_ois(counts)
    return {"boundary_f_ods": boundary.ods, "boundary_f_ois": boundary.ois}


def _boundary_counts(results: Sequence[ImageResult]) -> list[list[BoundaryCounts]]:
    return [[score.boundary for score in result.scores if score.boundary is not None] for result in results]


def _intervals(
    results: Sequence[ImageResult], covering: Float64[np.ndarray, "i g"], weights: Float64[np.ndarray, " i"]
) -> dict[str, tuple[float, float]]:
    """Return the 95 % intervals of ODS and OIS of the covering and, if it was measured, of the boundary F."""
    counts = _boundary_counts(results)

    def best(drawn: Int64[np.ndarray, " n"]) -> list[float]:
        bests = [ods_ois(covering[drawn], weights[drawn])]
        if counts[0]:
            bests.append(boundary_ods_ois([counts[image] for image in drawn]))
        return [score for best in bests for score in (best.ods, best.ois)]

    names = ("covering_ods", "covering_ois", "boundary_f_ods", "boundary_f_ois")
    return dict(zip(names, bootstrap_intervals(best, len(results)), strict=False))
