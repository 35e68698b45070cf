"""The profile of a project: the granularity and the labels that it has learned from feedback."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
from jaxtyping import Int64

from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.learning.feedback import AnnotationFeedback, AnnotationRef
from walkcut.learning.granularity_fit import CANDIDATE_GRANULARITIES
from walkcut.learning.prototypes import Prototypes, build_prototypes

_MIN_TASKS = 2  # that a granularity is learned from, so that one odd image does not decide
# Weights of a moving average over candidates: with few images, the best smoothed granularity generalises better
# (measured on BSDS500).
_SMOOTHING = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 25


@dataclass(frozen=True)
class ProjectProfile:
    """The granularity and labels learned from a project's feedback, each with the annotations that it is from.

    Label `i` of the prototypes is `labels[i]`.
    """

    granularity: Granularity | None = None
    labels: tuple[str, ...] = ()
    prototypes: Prototypes | None = None
    granularity_from: tuple[AnnotationRef, ...] = ()
    labels_from: Mapping[str, tuple[AnnotationRef, ...]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that change when predictions may; empty if nothing was learned."""
        if self.granularity is None and self.prototypes is None:
            return ""
        digest = hashlib.sha256(repr((str(self.granularity), self.labels)).encode())
        if self.prototypes is not None:
            for array in (self.prototypes.descriptors, self.prototypes.labels, self.prototypes.images):
                digest.update(array.tobytes())
        return digest.hexdigest()[:8]


def fit_profile(
    feedback: Iterable[AnnotationFeedback], segmenter_version: str, labels: Collection[str]
) -> ProjectProfile:
    """Fit a project's profile to the feedback on this segmenter's trees, for the labels that the project still has.

    The order of feedback and labels does not matter.
    """
    valid = sorted(
        (item for item in feedback if item.segmenter_version == segmenter_version), key=attrgetter("reference")
    )
    scored = [item for item in valid if item.covering_scores.keys() >= set(map(str, CANDIDATE_GRANULARITIES))]
    granularity = _best_granularity(scored)
    sources: defaultdict[str, list[AnnotationRef]] = defaultdict(list)
    for item in valid:
        for label in item.labels & set(labels):
            sources[label].append(item.reference)
    learned = tuple(sorted(sources))
    return ProjectProfile(
        granularity,
        learned,
        _prototypes(valid, learned),
        tuple(item.reference for item in scored) if granularity is not None else (),
        {label: tuple(sources[label]) for label in learned},
    )


def suggest_labels(
    tree: CutTree, groups: Int64[np.ndarray, " k"], profile: ProjectProfile, threshold: float
) -> list[tuple[str | None, float]]:
    """Return for each segment its likeliest label and the confidence in [0, 1]; no label below the `threshold`.

    `groups` holds the segment of each leaf of the tree.
    """
    if profile.prototypes is None:
        return [(None, 0.0)] * (int(groups.max()) + 1)
    confidences = profile.prototypes.confidences(tree.segment_descriptors(groups))
    return [
        (profile.labels[best] if confidence >= threshold else None, float(confidence))
        for best, confidence in zip(confidences.argmax(1), confidences.max(1), strict=True)
    ]


def _best_granularity(feedback: Sequence[AnnotationFeedback]) -> Granularity | None:
    """Return the granularity with the best smoothed mean covering, the coarsest of equals; `None` for too few tasks.

    A task counts once, with the mean of its annotations. Beyond both ends the covering counts as 0.
    """
    scores: defaultdict[int, list[list[float]]] = defaultdict(list)
    for item in feedback:
        scores[item.task_id].append([item.covering_scores[str(candidate)] for candidate in CANDIDATE_GRANULARITIES])
    if len(scores) < _MIN_TASKS:
        return None
    mean = np.mean([np.mean(annotations, axis=0) for annotations in scores.values()], axis=0)
    smooth = np.convolve(mean, _SMOOTHING, "same")
    return CANDIDATE_GRANULARITIES[int(smooth.round(9).argmax())]  # equal sums may differ by rounding


def _prototypes(feedback: Sequence[AnnotationFeedback], labels: Sequence[str]) -> Prototypes | None:
    examples = [(item.task_id, example) for item in feedback for example in item.examples if example.label in labels]
    if not examples:
        return None
    return build_prototypes(
        np.array([example.descriptor for _, example in examples], np.float32),
        np.array([labels.index(example.label) for _, example in examples], np.int64),
        [task_id for task_id, _ in examples],
    )
