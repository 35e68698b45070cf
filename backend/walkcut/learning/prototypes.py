"""Prototypes of labels: examples of annotated images, which vote on the labels of new segments."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

# Tuned on photographs of grass, rock and sky, where descriptors of one label are 0.3 to 0.9 apart.
_MAX_VOTES = 3  # images that count for a label, which bounds the score
_UNKNOWN_VOTES = 0.4  # of what no example shows
_BANDWIDTH = 0.4  # of descriptors, as a fraction of the distance between labels
_MIN_BANDWIDTH, _MAX_BANDWIDTH = 0.02, 0.4
_MAX_COMPARED = 500
# Bandwidths that the height, the left-right position and the logarithm of the area may have.
_LAYOUT_BANDWIDTHS = ((np.inf, 0.3, 0.15), (np.inf, 0.3, 0.15), (np.inf, 1.2, 0.6))
_MIN_LIKELIHOOD = 1e-3  # so that one odd segment does not decide


@dataclass(frozen=True)
class Examples:
    """Segments with descriptors (unit vectors), layouts (y, x and area fraction), labels from 0, and images from 0."""

    descriptors: Float32[np.ndarray, "m c"]
    layouts: Float[np.ndarray, "m 3"]
    labels: Int64[np.ndarray, " m"]
    images: Int64[np.ndarray, " m"]

    def subset(self, rows: np.ndarray | slice) -> "Examples":
        """Return the examples in these rows."""
        return Examples(self.descriptors[rows], self.layouts[rows], self.labels[rows], self.images[rows])

    @cached_property
    def coordinates(self) -> Float32[np.ndarray, "m 3"]:
        """The layouts with the logarithm of the area."""
        return np.column_stack([self.layouts[:, :2], np.log(self.layouts[:, 2])]).astype(np.float32)


@dataclass(frozen=True)
class Prototypes:
    """Examples of labels `0 … label_count - 1`, sorted by label, then image.

    The bandwidths are of the descriptors, y, x and the logarithm of the area. At one bandwidth's distance in one of
    them, an example's vote has dropped to 0.61.
    """

    examples: Examples
    label_count: int
    bandwidths: tuple[float, ...]

    def scores(self, segments: Examples, *, held_out: bool = False) -> Float64[np.ndarray, "s l"]:
        """Return the score of each label for each segment, in [0, 1]; the sum is at most 1.

        Nearest neighbours with weights by distance (Dudani 1976), here Gaussian: each image has one vote for a label,
        by its nearest example, and three count. With a label's votes `v`, those of the strongest label `v*` and the
        `u` of the unknown, a score is `v² / Σ v² · v* / (v* + u)`: which label, times whether any. With `held_out` the
        examples of a segment's own image do not vote. The labels of `segments` are not used.
        """
        return self.weighted_scores(segments, self.differences(segments), held_out=held_out)

    def weighted_scores(
        self, segments: Examples, differences: list[Float32[np.ndarray, "s m"]], *, held_out: bool
    ) -> Float64[np.ndarray, "s l"]:
        """Return the scores of segments with these `differences`; see `scores`."""
        squared = sum((d / np.float32(h)) ** 2 for d, h in zip(differences, self.bandwidths, strict=True) if h < np.inf)
        votes = np.exp(-np.asarray(squared) / 2)
        if held_out:
            votes[segments.images[:, None] == self.examples.images] = 0
        labels, images = self.examples.labels, self.examples.images
        firsts = np.flatnonzero(np.diff(labels, prepend=-1) | np.diff(images, prepend=-1))
        per_image, label_of = np.maximum.reduceat(votes, firsts, axis=1), labels[firsts]
        v = np.stack(
            [_sum_of_largest(per_image[:, label_of == label]) for label in range(self.label_count)], 1, dtype=np.float64
        )
        fractions = v**2 / np.maximum((v**2).sum(1, keepdims=True), np.finfo(np.float64).tiny)
        strongest = v.max(1, keepdims=True)
        return np.asarray(fractions * strongest / (strongest + _UNKNOWN_VOTES))

    def differences(self, segments: Examples) -> list[Float32[np.ndarray, "s m"]]:
        """Return the distances of descriptors, and the differences of y, x and the logarithm of the area."""
        ours, theirs = segments.coordinates, self.examples.coordinates
        layouts = [ours[:, axis, None] - theirs[:, axis] for axis in range(ours.shape[1])]
        return [distances(segments.descriptors, self.examples.descriptors), *layouts]


def build_prototypes(examples: Examples, label_count: int) -> Prototypes:
    """Build prototypes from at least one example; how an image is numbered does not matter.

    The bandwidth of descriptors follows the median distance between examples of different labels, so that similar
    labels are told apart, and segments that are farther away count as unknown. Positions and areas do not count until
    `fit_bandwidths`.
    """
    examples = examples.subset(np.lexsort((examples.images, examples.labels)))
    sample = examples.subset(slice(None, None, -(-len(examples.labels) // _MAX_COMPARED)))
    between = distances(sample.descriptors, sample.descriptors)[sample.labels[:, None] != sample.labels]
    typical = float(np.median(between)) if between.size else np.inf
    bandwidth = min(max(_BANDWIDTH * typical, _MIN_BANDWIDTH), _MAX_BANDWIDTH)
    return Prototypes(examples, label_count, (bandwidth, np.inf, np.inf, np.inf))


def fit_bandwidths(prototypes: Prototypes, segments: Examples) -> Prototypes:
    """Return prototypes with the bandwidths of positions and areas under which held-out segments are likeliest.

    Leave-one-out likelihood (Habbema et al. 1974, Duin 1976), one bandwidth after the other; of equals the widest.
    """
    differences = prototypes.differences(segments)

    def likelihood(candidate: Prototypes) -> float:
        scores = candidate.weighted_scores(segments, differences, held_out=True)
        own = scores[np.arange(len(segments.labels)), segments.labels]
        return round(float(np.log(np.maximum(own, _MIN_LIKELIHOOD)).mean()), 6)

    for axis, candidates in enumerate(_LAYOUT_BANDWIDTHS, 1):
        bandwidths = prototypes.bandwidths
        options = [replace(prototypes, bandwidths=(*bandwidths[:axis], h, *bandwidths[axis + 1 :])) for h in candidates]
        prototypes = max(options, key=likelihood)
    return prototypes


def distances(a: Float[np.ndarray, "m c"], b: Float[np.ndarray, "n c"]) -> Float32[np.ndarray, "m n"]:
    """Return the Euclidean distances of unit vectors."""
    return np.sqrt(np.maximum(2 - 2 * (a.astype(np.float32) @ b.T.astype(np.float32)), 0))


def _sum_of_largest(votes: Float32[np.ndarray, "s i"]) -> Float32[np.ndarray, " s"]:
    """Return the sum of the largest votes, 0 without any."""
    return np.asarray(
        (votes if votes.shape[1] <= _MAX_VOTES else np.partition(votes, -_MAX_VOTES)[:, -_MAX_VOTES:]).sum(1)
    )
