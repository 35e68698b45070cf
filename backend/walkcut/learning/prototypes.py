"""What labels look like: a vote of the examples that annotators gave."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

# The constants are a compromise on grass, rock and sky in photographs, which lie 0.3 to 0.9 apart within a label.
_VOTES = 3  # images that count for a label: more make it surer, but not endlessly
_UNKNOWN = 0.4  # of a vote: one example alone, however alike, gives a confidence of 0.71
_OF_DISTANCE = 0.4  # the bandwidth as a part of the distance between labels
_NARROWEST, _WIDEST = 0.02, 0.4
_MOST_COMPARED = 500


@dataclass(frozen=True)
class Prototypes:
    """Examples of labels `0, 1, …`: unit vectors, each with its label and the number of the image that it is from.

    They are in the order of labels, then images. `bandwidth` is where an example's vote has dropped to 0.61.
    """

    descriptors: Float32[np.ndarray, "m c"]
    labels: Int64[np.ndarray, " m"]
    images: Int64[np.ndarray, " m"]
    bandwidth: float

    def confidences(self, descriptors: Float32[np.ndarray, "s c"]) -> Float64[np.ndarray, "s l"]:
        """How surely each segment is of each label; what is missing to 1 is that it looks like nothing learned.

        Nearest neighbours with weights by distance (Dudani 1976), Gaussian ones: each image has one vote for a
        label, by its nearest example, and three count. With a label's votes `v`, those of the strongest label `v*` and
        the `u` of the unknown, a confidence is `v² / Σ v² · v* / (v* + u)`: which label, times whether any.
        """
        votes = np.exp(-((distances(descriptors, self.descriptors) / self.bandwidth) ** 2) / 2)
        firsts = np.flatnonzero(np.diff(self.labels, prepend=-1) | np.diff(self.images, prepend=-1))
        per_image = np.maximum.reduceat(votes, firsts, axis=1)
        columns = [per_image[:, self.labels[firsts] == label] for label in range(int(self.labels.max()) + 1)]
        v = np.stack([np.sort(each, axis=1)[:, -_VOTES:].sum(1) for each in columns], axis=1)
        shares = v**2 / np.maximum((v**2).sum(1, keepdims=True), np.finfo(np.float64).tiny)
        upsampled_argmax = v.max(1, keepdims=True)
        return shares * upsampled_argmax / (upsampled_argmax + _UNKNOWN)


def build_prototypes(
    descriptors: Float32[np.ndarray, "m c"], labels: Int64[np.ndarray, " m"], images: Sequence[Hashable]
) -> Prototypes:
    """Prototypes of one example or more, each with its label, from 0 without gaps, and the image that it is from.

    The bandwidth follows the median distance between examples of different labels, so that labels which differ in
    little are told apart by that little, and nothing farther off passes for known.
    """
    number = {image: place for place, image in enumerate(dict.fromkeys(images))}
    numbers = np.array([number[image] for image in images], np.int64)
    order = np.lexsort((numbers, labels))
    descriptors, labels, numbers = descriptors[order], labels[order], numbers[order]
    sample = slice(None, None, -(-len(labels) // _MOST_COMPARED))
    apart = distances(descriptors[sample], descriptors[sample])[labels[sample, None] != labels[None, sample]]
    typical = float(np.median(apart)) if apart.size else np.inf
    return Prototypes(descriptors, labels, numbers, min(max(_OF_DISTANCE * typical, _NARROWEST), _WIDEST))


def distances(a: Float[np.ndarray, "m c"], b: Float[np.ndarray, "n c"]) -> Float64[np.ndarray, "m n"]:
    """Euclidean distances of unit vectors."""
    return np.sqrt(np.maximum(2 - 2 * (a.astype(np.float64) @ b.T.astype(np.float64)), 0))
