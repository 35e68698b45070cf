"""Prototypes of labels: the descriptors of annotated regions, which vote on the labels of new segments."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

# Tuned on photographs of grass, rock and sky, where descriptors of one label are 0.3 to 0.9 apart.
_MAX_VOTES = 3  # images that count for a label, which bounds the confidence
_UNKNOWN_VOTES = 0.4  # one example alone, even an identical one, gives a confidence of 0.71
_BANDWIDTH = 0.4  # as a fraction of the distance between labels
_MIN_BANDWIDTH, _MAX_BANDWIDTH = 0.02, 0.4
_MAX_COMPARED = 500


@dataclass(frozen=True)
class Prototypes:
    """Examples of labels `0, 1, …`: unit vectors, each with its label and the index of its image.

    They are sorted by label, then image. At a distance of `bandwidth` an example's vote has dropped to 0.61.
    """

    descriptors: Float32[np.ndarray, "m c"]
    labels: Int64[np.ndarray, " m"]
    images: Int64[np.ndarray, " m"]
    bandwidth: float

    def confidences(self, descriptors: Float32[np.ndarray, "s c"]) -> Float64[np.ndarray, "s l"]:
        """Return the confidence in each label for each segment, in [0, 1]; the sum is at most 1.

        Nearest neighbours with weights by distance (Dudani 1976), here Gaussian: each image has one vote for a label,
        by its nearest example, and three count. With a label's votes `v`, those of the strongest label `v*` and the
        `u` of the unknown, a confidence is `v² / Σ v² · v* / (v* + u)`: which label, times whether any. The remainder
        to 1 is the confidence that the label is unknown.
        """
        votes = np.exp(-((distances(descriptors, self.descriptors) / self.bandwidth) ** 2) / 2)
        firsts = np.flatnonzero(np.diff(self.labels, prepend=-1) | np.diff(self.images, prepend=-1))
        per_image = np.maximum.reduceat(votes, firsts, axis=1)
        per_label = [per_image[:, self.labels[firsts] == label] for label in range(int(self.labels.max()) + 1)]
        v = np.stack([np.sort(image_votes, axis=1)[:, -_MAX_VOTES:].sum(1) for image_votes in per_label], axis=1)
        fractions = v**2 / np.maximum((v**2).sum(1, keepdims=True), np.finfo(np.float64).tiny)
        strongest = v.max(1, keepdims=True)
        return fractions * strongest / (strongest + _UNKNOWN_VOTES)


def build_prototypes(
    descriptors: Float32[np.ndarray, "m c"], labels: Int64[np.ndarray, " m"], images: Sequence[Hashable]
) -> Prototypes:
    """Build prototypes from at least one example, with the label (from 0, without gaps) and the image of each.

    The bandwidth follows the median distance between examples of different labels, so that similar labels are told
    apart, and segments that are farther away count as unknown.
    """
    index_of = {image: index for index, image in enumerate(dict.fromkeys(images))}
    indices = np.array([index_of[image] for image in images], np.int64)
    order = np.lexsort((indices, labels))
    descriptors, labels, indices = descriptors[order], labels[order], indices[order]
    sample = slice(None, None, -(-len(labels) // _MAX_COMPARED))
    between = distances(descriptors[sample], descriptors[sample])[labels[sample, None] != labels[None, sample]]
    typical = float(np.median(between)) if between.size else np.inf
    return Prototypes(descriptors, labels, indices, min(max(_BANDWIDTH * typical, _MIN_BANDWIDTH), _MAX_BANDWIDTH))


def distances(a: Float[np.ndarray, "m c"], b: Float[np.ndarray, "n c"]) -> Float64[np.ndarray, "m n"]:
    """Return the Euclidean distances of unit vectors."""
    return np.sqrt(np.maximum(2 - 2 * (a.astype(np.float64) @ b.T.astype(np.float64)), 0))
