"""Cross-validation of the merge rule's tuning: `python -m benchmarks.tuning --root BSDS500 [--split val]`."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from walkcut.backbones.classical import ClassicalBackbone
from walkcut.evaluation.datasets import Example, read_dataset
from walkcut.evaluation.metrics import OdsOis, coarsened, contingency_table, covering, ods_ois
from walkcut.hierarchy.hierarchy import renumber
from walkcut.hierarchy.merge_rule import MergeRule
from walkcut.segmentation.algorithms.border_refinement import refine_borders
from walkcut.segmentation.algorithms.region_merging import merge_leaves, watershed_leaves
from walkcut.segmentation.methods.inputs import contour_features

GRID: Mapping[str, Sequence[Any]] = {
    "histogram": (0.3, 0.6, 0.8),
    "growth": (0.0, 0.05, 0.15),
    "smallest": (0.0015, 0.006),
}
# tau = exp(-s³) with s evenly spaced on a logarithmic scale; wide, since the scale of costs differs between rules.
TAUS = np.exp(-(np.geomspace(0.25, 2.5, 40) ** 3))
_MAX_LEAVES = 256  # finer partitions score badly and take long
HALVES = {"even": slice(0, None, 2), "odd": slice(1, None, 2)}


@dataclass(frozen=True)
class TuningImage:
    """Everything that does not depend on the rule; `tables` are each truth's overlaps with the leaves, in pixels."""

    leaves: Int64[np.ndarray, "y x"]
    contour: Float[Tensor, "y x"]
    features: Float[Tensor, "c y x"]
    tables: tuple[Int64[np.ndarray, "t k"], ...]

    @property
    def weight(self) -> int:
        """Pixels times truths, by which BSDS's program pools images."""
        return int(np.sum([table.sum() for table in self.tables]))


def prepare(example: Example) -> TuningImage:
    """Return an image's features, leaves and overlaps."""
    image, truths = example.read()
    pixels = torch.from_numpy(np.ascontiguousarray(image))
    extracted = ClassicalBackbone().extract(pixels, frozenset({"contour", "feature_map"}))
    contour, features = contour_features(extracted)
    leaves = watershed_leaves(contour)
    upsampled = refine_borders(leaves, pixels, reach=extracted.contour_error)
    parts = [np.unique(truth, return_inverse=True)[1].reshape(truth.shape) for truth in truths]
    # Half precision, since a hundred images are kept.
    return TuningImage(leaves, contour, features.half(), tuple(contingency_table(part, upsampled) for part in parts))


def covering_scores(image: TuningImage, rule: MergeRule) -> Float64[np.ndarray, " g"]:
    """Return the covering at each of `TAUS`."""
    hierarchy = merge_leaves(image.leaves, image.contour, image.features.float(), rule=rule)
    leaf_of, hierarchy = hierarchy.coarsened(min(hierarchy.leaf_count, _MAX_LEAVES))
    # The last leaves may have lost all their pixels in the upsampling.
    tables = [coarsened(table, leaf_of[: table.shape[1]]) for table in image.tables]
    groups = [renumber(hierarchy.cluster_of(hierarchy.costs > tau)) for tau in TAUS]
    return np.array(
        [np.mean([covering(coarsened(table, group[: table.shape[1]])) for table in tables]) for group in groups]
    )


def scores(images: Sequence[TuningImage], half: str, rule: MergeRule) -> OdsOis:
    """Return ODS and OIS of the covering on one half of the images."""
    selected = images[HALVES[half]]
    covering_table = np.stack([covering_scores(image, rule) for image in selected])
    return ods_ois(covering_table, np.array([image.weight for image in selected], np.float64))


def main() -> None:
    """Tune on each half, one parameter after the other, and print the scores on both halves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--split", default="val")
    options = parser.parse_args()
    images = [prepare(example) for example in read_dataset("bsds500", options.root, options.split).examples]
    measured = cache(partial(scores, tuple(images)))
    for tuned, held_out in (("even", "odd"), ("odd", "even")):
        best = MergeRule()
        for name, values in GRID.items():
            rules = (best, *(replace(best, **{name: value}) for value in values))
            best = max(rules, key=lambda rule: measured(tuned, rule).ods)
        print(f"tuned on {tuned}: " + ", ".join(f"{name} {getattr(best, name):g}" for name in GRID))
        for half in (tuned, held_out):
            for name, rule in (("tuned", best), ("defaults", MergeRule())):
                result = measured(half, rule)
                print(f"  {half}, {name}: covering ODS {result.ods:.4f}, OIS {result.ois:.4f}")


if __name__ == "__main__":
    main()
