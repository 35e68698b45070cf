"""The profile of a project: the granularity and the labels that it has learned from feedback."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
from jaxtyping import Bool, Int64

from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.learning.calibration import Calibration, calibrate
from walkcut.learning.feedback import AnnotationFeedback, AnnotationRef, LabelExample
from walkcut.learning.granularity_fit import CANDIDATE_GRANULARITIES
from walkcut.learning.prototypes import Examples, Prototypes, build_prototypes, fit_bandwidths

_MIN_TASKS = 2  # that a granularity is learned from, so that one odd image does not decide
_MIN_LABEL_TASKS = 3  # that a label is suggested from
_MAX_EXAMPLES = 3000
_MAX_HELD_OUT = 300  # segments that names are calibrated on
# Weights of a moving average over candidates: with few images, the best smoothed granularity generalises better
# (measured on BSDS500).
_SMOOTHING = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 25


@dataclass(frozen=True)
class ProjectProfile:
    """The granularity and labels learned from a project's feedback, each with the annotations that it is from.

    Label `i` of the prototypes and of the calibration is `labels[i]`; the one after them stands for what has no label.
    """

    granularity: Granularity | None = None
    labels: tuple[str, ...] = ()
    prototypes: Prototypes | None = None
    calibration: Calibration | None = None
    granularity_from: tuple[AnnotationRef, ...] = ()
    labels_from: Mapping[str, tuple[AnnotationRef, ...]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that change when predictions may; empty if nothing was learned."""
        if self.granularity is None and self.prototypes is None:
            return ""
        digest = hashlib.sha256(repr((str(self.granularity), self.labels)).encode())
        if self.prototypes is not None:
            examples = self.prototypes.examples
            for array in (examples.descriptors, examples.layouts, examples.labels, examples.images):
                digest.update(array.tobytes())
        return digest.hexdigest()[:8]

    @property
    def highest_confidences(self) -> dict[str, float]:
        """The highest confidence that a name with each label can have; 0 as long as too few tasks show it."""
        bounds = None if self.calibration is None else self.calibration.bounds
        best = [0.0] * len(self.labels) if bounds is None or not len(bounds) else bounds[-1].tolist()
        return dict(zip(self.labels, best, strict=False))


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
    prototypes, calibration = _fit_names(*_examples(valid, learned), len(learned)) if learned else (None, None)
    return ProjectProfile(
        granularity,
        learned,
        prototypes,
        calibration,
        tuple(item.reference for item in scored) if granularity is not None else (),
        {label: tuple(sources[label]) for label in learned},
    )


def suggest_labels(
    tree: CutTree, groups: Int64[np.ndarray, " k"], profile: ProjectProfile, threshold: float
) -> list[tuple[str | None, float]]:
    """Return for each segment its likeliest label and the confidence in [0, 1]; no label below the `threshold`.

    `groups` holds the segment of each leaf of the tree. The confidence estimates from held-out tasks which fraction of
    such names is right; without evidence it is 0, and there is no label.
    """
    if profile.prototypes is None or profile.calibration is None:
        return [(None, 0.0)] * (int(groups.max()) + 1)
    areas = tree.segment_areas(groups)
    unknown = np.zeros(len(areas), np.int64)
    segments = Examples(tree.part_descriptors(areas), tree.part_layouts(areas), unknown, unknown)
    scores = profile.prototypes.scores(segments)
    best = scores.argmax(1)
    confidences = profile.calibration.confidences(scores.max(1), best).tolist()
    return [
        (profile.labels[label] if 0 < confidence >= threshold else None, confidence)
        for label, confidence in zip(best, confidences, strict=True)
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


def _examples(feedback: Sequence[AnnotationFeedback], labels: Sequence[str]) -> tuple[Examples, Bool[np.ndarray, " m"]]:
    """Return the examples of these labels and of none, and which of them are segments."""
    index_of = {label: index for index, label in enumerate((*labels, ""))}
    tasks = {task: index for index, task in enumerate(dict.fromkeys(item.task_id for item in feedback))}
    rows: list[tuple[int, LabelExample]] = [
        (tasks[item.task_id], example) for item in feedback for example in item.examples if example.label in index_of
    ]
    examples = Examples(
        np.array([example.descriptor for _, example in rows], np.float32),
        np.array([(example.y, example.x, example.area_fraction) for _, example in rows], np.float64),
        np.array([index_of[example.label] for _, example in rows], np.int64),
        np.array([task for task, _ in rows], np.int64),
    )
    return examples, np.array([example.is_segment for _, example in rows])


def _fit_names(
    examples: Examples, is_segment: Bool[np.ndarray, " m"], label_count: int
) -> tuple[Prototypes, Calibration | None]:
    """Return prototypes, and the calibration of the names that those of other tasks give to each task's segments.

    In a long project every second, third … task counts, so that answers stay quick. Without segments there is no
    calibration.
    """
    used = examples.images % -(-len(examples.labels) // _MAX_EXAMPLES) == 0
    examples, is_segment = examples.subset(used), is_segment[used]
    prototypes = build_prototypes(examples, label_count + 1)
    rows = np.flatnonzero(is_segment)
    if not rows.size:
        return prototypes, None
    segments = examples.subset(rows[:: -(-rows.size // _MAX_HELD_OUT)])
    prototypes = fit_bandwidths(prototypes, segments)
    scores = prototypes.scores(segments, held_out=True)
    names = scores.argmax(1)
    tasks = [np.unique(examples.images[examples.labels == label]).size for label in range(label_count)]
    given = (np.array([*tasks, 0]) >= _MIN_LABEL_TASKS)[names]
    return prototypes, calibrate(
        scores.max(1)[given], names[given], segments.labels[given], segments.images[given], label_count + 1
    )
