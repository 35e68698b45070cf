"""How well the merging's tuning carries over: `python -m benchmarks.tuning --root BSDS500 [--split val]`."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from walkcut.backbones.classical import ClassicalBackbone
from walkcut.evaluation.contingency import coarsened, contingency_table
from walkcut.evaluation.datasets import Example, read_dataset
from walkcut.evaluation.metrics import OdsOis, covering, ods_ois
from walkcut.hierarchy.hierarchy import renumber
from walkcut.segmentation.algorithms.region_merging import MergeRule, merge_leaves, watershed_leaves
from walkcut.segmentation.algorithms.upsampling import joint_bilateral_upsample
from walkcut.segmentation.methods.inputs import contour_features

GRID: Mapping[str, Sequence[float]] = {
    "histogram": (0.3, 0.6, 0.8),
    "growth": (0.0, 0.05, 0.15),
    "smallest": (0.0015, 0.006),
}
# Evenly spaced in the separation's logarithm, and wide, since the grid's separations differ in size.
TAUS = np.exp(-(np.geomspace(0.25, 2.5, 40) ** 3))
_MOST_LEAVES = 256  # what is finer scores badly and takes long
HALVES = {"even": slice(0, None, 2), "odd": slice(1, None, 2)}


@dataclass(frozen=True)
class ImageRequest:
    """All that does not depend on the rule; `tables` are the overlaps of each truth with the leaves, in pixels."""

    leaves: Int64[np.ndarray, "y x"]
    contour: Float[Tensor, "y x"]
    features: Float[Tensor, "c y x"]
    tables: tuple[Int64[np.ndarray, "t k"], ...]

    @property
    def weight(self) -> int:
        """Pixels times truths, by which BSDS's program pools images."""
        return int(np.sum([table.sum() for table in self.tables]))


def prepared(example: Example) -> ImageRequest:
    """An image's evidence and leaves."""
    image, truths = example.read()
    pixels = torch.from_numpy(np.ascontiguousarray(image))
    contour, features = contour_features(ClassicalBackbone().extract(pixels, frozenset({"contour", "feature_map"})))
    leaves = watershed_leaves(contour)
    snapped = joint_bilateral_upsample(leaves, pixels)
    parts = [np.unique(truth, return_inverse=True)[1].reshape(truth.shape) for truth in truths]
    # Half precision, as a hundred images are kept.
    return ImageRequest(leaves, contour, features.half(), tuple(contingency_table(part, snapped) for part in parts))


def covering_scores(image: ImageRequest, rule: MergeRule) -> Float64[np.ndarray, " g"]:
    """The covering at each of `TAUS`."""
    hierarchy = merge_leaves(image.leaves, image.contour, image.features.float(), rule=rule)
    leaf_of, hierarchy = hierarchy.coarsened(min(hierarchy.leaf_count, _MOST_LEAVES))
    # The last leaves may have lost all their pixels when they were snapped.
    tables = [coarsened(table, leaf_of[: table.shape[1]]) for table in image.tables]
    groups = [renumber(hierarchy.cluster_of(hierarchy.costs > tau)) for tau in TAUS]
    return np.array(
        [np.mean([covering(coarsened(table, group[: table.shape[1]])) for table in tables]) for group in groups]
    )


def scores(images: Sequence[ImageRequest], half: str, rule: MergeRule) -> OdsOis:
    """Covering on the images of a half."""
    chosen = images[HALVES[half]]
    found = np.stack([covering_scores(image, rule) for image in chosen])
    return ods_ois(found, np.array([image.weight for image in chosen], np.float64))


def main() -> None:
    """Print what each half chooses, one parameter after the other, and how it fares on the other half."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--split", default="val")
    options = parser.parse_args()
    images = [prepared(example) for example in read_dataset("bsds500", options.root, options.split).examples]
    measured = cache(partial(scores, tuple(images)))
    for tuned, other in (("even", "odd"), ("odd", "even")):
        best = MergeRule()
        for name, values in GRID.items():
            rules = (best, *(replace(best, **{name: value}) for value in values))
            best = max(rules, key=lambda rule: measured(tuned, rule).ods)
        print(f"tuned on {tuned}: " + ", ".join(f"{name} {getattr(best, name):g}" for name in GRID))
        for half in (tuned, other):
            for name, rule in (("tuned", best), ("defaults", MergeRule())):
                found = measured(half, rule)
                print(f"  {half}, {name}: covering ODS {found.ods:.4f}, OIS {found.ois:.4f}")


if __name__ == "__main__":
    main()
