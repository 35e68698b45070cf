import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.builders.bsds500 import ROOT, needs_photographs
from tests.builders.label_config import make_image_tag, make_task_image
from walkcut.errors import SegmentationError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Level, Segments, Threshold, parse_granularity
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.labelstudio.config import parse_image_tags
from walkcut.labelstudio.predictions import Region
from walkcut.labelstudio.tasks import Submission, Task
from walkcut.learning.feedback import AnnotatedImage, AnnotationFeedback, LabelExample, extract_feedback
from walkcut.learning.granularity_fit import CANDIDATE_GRANULARITIES
from walkcut.learning.profile import ProjectProfile, fit_profile, suggest_labels
from walkcut.segmentation.segmenter import load_segmenter

LABELS = ("First", "Second")
IMAGE = make_task_image(make_image_tag("$image", ("Region",), labels=("Region", *LABELS)))
# An image of one row with leaves 0-3, of which 0 and 1 join at 0.9, 2 and 3 at 0.5, and all at 0.1.
ROW = CutTree(
    np.array([[0, 1, 1, 2, 3]], np.uint16),
    Hierarchy(np.array([[0, 1], [2, 3], [4, 5]]), np.array([0.9, 0.5, 0.1]), np.array([False, False, True])),
    {Level.COARSE: 1, Level.MEDIUM: 2, Level.FINE: 3},
    descriptors=np.array([[1, 0], [1, 0], [0, 1], [1, 1]], np.float16),
)
FIRST_THREE, ALL = np.array([[True, True, True, False, False]]), np.ones((1, 5), bool)


def feedback_of(
    tree: CutTree, regions: Sequence[tuple[str, np.ndarray]], *, task_id: int = 1, annotation_id: int = 1
) -> AnnotationFeedback:
    """Return the feedback of an annotation of one image."""
    return feedback_of_images([annotated(tree, regions)], task_id=task_id, annotation_id=annotation_id)


def annotated(tree: CutTree, regions: Sequence[tuple[str, np.ndarray]]) -> AnnotatedImage:
    return AnnotatedImage(IMAGE, tree, [Region(mask, label, modified=True) for label, mask in regions])


def feedback_of_images(
    images: Sequence[AnnotatedImage], *, task_id: int = 1, annotation_id: int = 1
) -> AnnotationFeedback:
    submission = Submission(Task(task_id, {}), annotation_id, "2026-01-01T00:00:00Z", [])
    return extract_feedback(images, submission, project_id="7", segmenter_version="v")


def fitting(*best: Granularity, task_id: int, annotation_id: int = 1, by: float = 0.3) -> AnnotationFeedback:
    """Return feedback that some granularities fit best."""
    scores = {str(granularity): 0.5 + by * (granularity in best) for granularity in CANDIDATE_GRANULARITIES}
    return AnnotationFeedback("7", annotation_id, task_id, "", "v", scores, ())


def showing(label: str, descriptor: Sequence[float], task_id: int) -> AnnotationFeedback:
    """Return feedback with one example."""
    return AnnotationFeedback("7", 1, task_id, "", "v", {}, (LabelExample(label, tuple(descriptor), 0.5, 0.5, 0.5),))


def annotated_tasks(count: int, *regions: tuple[str, np.ndarray]) -> list[AnnotationFeedback]:
    """Return the feedback of tasks with the same image and annotation."""
    return [feedback_of(ROW, regions or [("First", FIRST_THREE)], task_id=task) for task in range(count)]


def names_of(feedback: Sequence[AnnotationFeedback], threshold: float = 0.9) -> list[str | None]:
    """Return the labels that are suggested for the row's two segments."""
    learned = fit_profile(feedback, "v", LABELS)
    return [label for label, _ in suggest_labels(ROW, ROW.segment_of(Segments(2)), learned, threshold)]


def test_a_region_is_an_example_and_gives_covering_scores() -> None:
    feedback = feedback_of(ROW, [("First", FIRST_THREE)])
    assert feedback.examples[0] == LabelExample("First", (1, 0), 0.5, 0.3, 0.6)
    assert feedback.covering_scores["tau=0.08"] == pytest.approx(0.6)
    assert feedback.covering_scores["tau=0.12"] == 1
    assert feedback.covering_scores["tau=0.92"] == pytest.approx(2 / 3)


def test_the_segments_in_a_region_are_examples_too() -> None:
    whole, first, second = feedback_of(ROW, [("First", ALL)]).examples
    assert [example.area_fraction for example in (whole, first, second)] == [1, 0.6, 0.4]
    assert [example.is_segment for example in (whole, first, second)] == [False, True, True]
    assert [(example.y, example.x) for example in (whole, first, second)] == [(0.5, 0.5), (0.5, 0.3), (0.5, 0.8)]
    assert np.square(whole.descriptor) == pytest.approx([4 / 6, 2 / 6], abs=1e-3)
    assert np.square(first.descriptor) == pytest.approx([1, 0])
    assert np.square(second.descriptor) == pytest.approx([1 / 3, 2 / 3], abs=1e-3)


def test_a_label_that_walkcut_gave_is_no_example() -> None:
    image = annotated(ROW, [("First", FIRST_THREE)])
    guessed = replace(image, regions=[replace(region, modified=False) for region in image.regions])
    feedback = feedback_of_images([guessed])
    assert feedback.examples == ()
    assert feedback.covering_scores == feedback_of_images([image]).covering_scores


def test_segments_that_no_named_region_touches_are_examples_of_no_label() -> None:
    feedback = feedback_of(ROW, [("First", FIRST_THREE), ("Region", ~FIRST_THREE)])
    assert [(example.label, example.is_segment) for example in feedback.examples] == [
        ("First", False),
        ("First", True),
        ("", True),
    ]
    assert feedback.labels == {"First"}


def test_a_segment_that_a_stroke_touches_is_an_example_of_neither() -> None:
    stroke = np.array([[True, False, False, False, False]])
    assert [(example.label, example.is_segment) for example in feedback_of(ROW, [("First", stroke)]).examples] == [
        ("First", False),
        ("", True),
    ]


def test_names_that_walkcut_gave_are_counted_with_those_that_were_kept() -> None:
    def item(given: object, label: str) -> dict[str, object]:
        value = {"format": "rle", "rle": [], "brushlabels": [label]}
        return {"from_name": "brush", "to_name": "image", "type": "brushlabels", "meta": given, "value": value}

    pairs = [("First", "First"), ("First", "Second"), ("Region", "First"), (None, "First"), (["odd"], "First")]
    result = [item({"walkcut": {"label": given}}, label) for given, label in pairs]
    result += [item(None, "First"), item({"walkcut": "odd"}, "First")]
    submission = Submission(Task(1, {}), 1, "", result)
    feedback = extract_feedback([annotated(ROW, [])], submission, project_id="7", segmenter_version="v")
    assert (feedback.names_given, feedback.names_kept) == (2, 1)


def test_the_images_of_a_task_give_all_examples_and_their_mean_scores() -> None:
    images = [annotated(ROW, [("First", FIRST_THREE)]), annotated(ROW, [("Second", ALL)]), annotated(ROW, [])]
    both, first, second = (feedback_of_images(some) for some in (images, images[:1], images[1:2]))
    assert both.examples == first.examples + second.examples
    for name, score in both.covering_scores.items():
        assert score == (first.covering_scores[name] + second.covering_scores[name]) / 2


def test_a_generic_label_gives_covering_scores_alone() -> None:
    generic = feedback_of(ROW, [("Region", FIRST_THREE)])
    assert generic.examples == ()
    assert generic.covering_scores == feedback_of(ROW, [("First", FIRST_THREE)]).covering_scores


def test_the_first_of_several_classes_is_learned_like_the_others() -> None:
    labels = '<Label value="Sky"/><Label value="Tree"/>'
    (image_tag,) = parse_image_tags(
        f'<View><Image name="im" value="$photo"/><BrushLabels name="b" toName="im">{labels}</BrushLabels></View>'
    )
    image = annotated(ROW, [("Sky", FIRST_THREE), ("", ALL)])
    assert feedback_of_images([replace(image, task_image=make_task_image(image_tag))]).labels == {"Sky"}


def test_an_empty_annotation_teaches_nothing() -> None:
    for regions in ([], [("First", np.zeros((1, 5), bool))]):
        feedback = feedback_of(ROW, regions)
        assert not feedback.covering_scores
        assert not feedback.examples
        assert fit_profile([feedback, replace(feedback, task_id=2)], "v", LABELS) == ProjectProfile()


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(SegmentationError, match="does not fit"):
        feedback_of(ROW, [("First", np.ones((2, 2), bool))])


def test_feedback_is_read_back_unchanged() -> None:
    feedback = feedback_of(ROW, [("First", FIRST_THREE)])
    assert AnnotationFeedback.from_json(json.loads(json.dumps(feedback.to_json()))) == feedback


def test_the_best_granularity_is_learned_from_two_tasks_on() -> None:
    feedback = [
        fitting(Threshold(0.4), task_id=1),
        fitting(Threshold(0.4), task_id=2),
        fitting(Threshold(0.8), task_id=3),
    ]
    learned = fit_profile(feedback, "v", LABELS)
    assert learned.granularity == Threshold(0.4)
    assert parse_granularity(str(learned.granularity)) == learned.granularity
    assert learned.granularity_from == ((1, 1), (2, 1), (3, 1))
    assert fit_profile(feedback[:1], "v", LABELS) == ProjectProfile()


def test_of_equally_good_granularities_the_coarser_is_learned() -> None:
    feedback = [fitting(Threshold(0.8), task_id=1), fitting(Threshold(0.4), task_id=2)]
    assert fit_profile(feedback, "v", LABELS).granularity == Threshold(0.4)


def test_a_broad_maximum_is_learned_before_a_narrow_one() -> None:
    broad = fitting(*CANDIDATE_GRANULARITIES[2:7], task_id=1, by=0.2)
    feedback = [broad, replace(broad, task_id=2), fitting(Threshold(0.8), task_id=3, by=0.45)]
    assert fit_profile(feedback, "v", LABELS).granularity == CANDIDATE_GRANULARITIES[4]


def test_a_task_counts_once_however_often_it_was_annotated() -> None:
    odd = [fitting(Threshold(0.8), task_id=1, annotation_id=number) for number in range(5)]
    usual = [fitting(Threshold(0.4), task_id=task) for task in (2, 3)]
    assert fit_profile([*odd, *usual], "v", LABELS).granularity == Threshold(0.4)


def test_feedback_of_another_version_and_deleted_labels_do_not_count() -> None:
    feedback = [
        showing("First", (1, 0), 1),
        showing("Deleted", (0, 1), 2),
        replace(showing("First", (0, 1), 3), segmenter_version="w"),
    ]
    learned = fit_profile([*feedback, replace(fitting(Threshold(0.4), task_id=4), segmenter_version="w")], "v", LABELS)
    assert learned.labels == ("First",)
    assert learned.labels_from == {"First": ((1, 1),)}
    assert learned.prototypes is not None
    assert len(learned.prototypes.examples.labels) == 1


def test_the_digest_changes_with_what_was_learned_and_with_nothing_else() -> None:
    feedback = [showing("First", (1, 0), 1), showing("Second", (0, 1), 2), fitting(Threshold(0.4), task_id=3)]
    more = fitting(Threshold(0.4), task_id=4)
    digests = [
        fit_profile([], "v", LABELS).digest,
        fit_profile(feedback, "v", LABELS).digest,
        fit_profile(feedback, "v", LABELS[:1]).digest,
        fit_profile([*feedback, more], "v", LABELS).digest,
        fit_profile([*feedback, fitting(Threshold(0.8), task_id=4, by=0.4)], "v", LABELS).digest,
        fit_profile([*feedback, showing("First", (0.6, 0.8), 5)], "v", LABELS).digest,
        fit_profile([replace(feedback[0], task_id=2), *feedback[1:]], "v", ["First"]).digest,
    ]
    assert digests[0] == ""
    assert [len(digest) for digest in digests[1:]] == [8] * 6
    assert len(set(digests[:6])) == 6
    assert digests[6] == digests[2], "the task does not matter"
    shuffled = fit_profile([more, *reversed(feedback)], "v", LABELS[::-1])
    assert shuffled.digest == digests[3]
    assert fit_profile([*feedback, more, fitting(Threshold(0.4), task_id=6)], "v", LABELS).digest == digests[3]


@pytest.mark.parametrize("other", [showing("First", (0.6, 0.8), 1), showing("Second", (1, 0), 1)])
def test_another_descriptor_or_another_label_is_another_digest(other: AnnotationFeedback) -> None:
    assert fit_profile([showing("First", (1, 0), 1)], "v", LABELS).digest != fit_profile([other], "v", LABELS).digest


def test_annotations_of_one_task_are_of_one_image() -> None:
    once = [feedback_of(ROW, [("First", FIRST_THREE)], annotation_id=n, task_id=n // 2) for n in range(20)]
    assert names_of(once) == ["First", None]
    assert names_of(once[:10]) == [None, None], "five tasks with two annotations each"


def test_without_examples_nothing_is_suggested() -> None:
    assert suggest_labels(ROW, ROW.segment_of(Segments(2)), ProjectProfile(), 0.5) == [(None, 0), (None, 0)]


def test_a_label_is_suggested_once_enough_held_out_names_were_right() -> None:
    assert [names_of(annotated_tasks(count))[0] for count in (1, 2, 8, 9)] == [None, None, None, "First"]
    assert [names_of(annotated_tasks(count), 0.5)[0] for count in (1, 2, 3)] == [None, None, "First"], "of three tasks"
    (_, confidence), (unnamed, low) = suggest_labels(
        ROW, ROW.segment_of(Segments(2)), fit_profile(annotated_tasks(9), "v", LABELS), 0.95
    )
    assert (confidence, unnamed, low) == (0.9, None, 0)
    assert names_of(annotated_tasks(9), 0.95) == [None, None]


def test_without_evidence_no_threshold_is_low_enough() -> None:
    assert names_of(annotated_tasks(2), 0.0) == [None, None]
    assert fit_profile(annotated_tasks(2), "v", LABELS).highest_confidences == {"First": 0}
    assert fit_profile(annotated_tasks(9), "v", LABELS).highest_confidences == {"First": 0.9}


def test_a_label_whose_segments_are_often_not_named_is_not_suggested() -> None:
    unnamed = [feedback_of(ROW, [("Second", ~FIRST_THREE)], task_id=20 + task) for task in range(6)]
    assert names_of(annotated_tasks(9), 0.9) == ["First", None]
    assert names_of([*annotated_tasks(9), *unnamed], 0.9)[0] is None


def scene(number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return an image of a red disc and a striped box on grainy ground, with their masks; all vary with the number."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:96, :128]
    image = np.array([[150, 140, 110], [120, 140, 160], [90, 120, 80]])[number % 3] + rng.normal(0, 18, (96, 128, 1))
    disc = np.hypot(x - rng.uniform(26, 38), y - rng.uniform(34, 62)) < rng.uniform(18, 24)
    left, top, side = rng.integers(70, 82), rng.integers(15, 40), rng.integers(30, 40)
    box = (abs(x - left - side / 2) < side / 2) & (abs(y - top - side / 2) < side / 2)
    image[disc] = np.array([205, 60, 50]) + rng.uniform(-12, 12, 3) + rng.normal(0, 6, (disc.sum(), 1))
    image[box] = np.where(x // 4 % 2, 220, 60)[box, None] + rng.uniform(-10, 10)
    return image.clip(0, 255).astype(np.uint8), {"First": disc, "Second": box}


# Photograph, left and top of windows of 128 by 64 pixels.
GRASS = [("253055", 30, 255), ("361010", 10, 180), ("291000", 40, 250), ("65033", 20, 255)]
GRASS += [("253055", 330, 255), ("361010", 10, 245), ("291000", 230, 250), ("65033", 330, 255)]
ROCK = [("123074", 210, 240), ("41069", 150, 257), ("105025", 260, 240), ("304074", 20, 400)]
ROCK += [("41069", 320, 257), ("304074", 170, 400), ("123074", 340, 240), ("105025", 340, 190)]


def grass_and_rock(number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return a window of grass above one of rock, with their masks; no window is used twice."""
    windows = []
    for name, left, top in (GRASS[number], ROCK[number]):
        with Image.open(ROOT / "images" / "val" / f"{name}.jpg") as photograph:
            windows.append(np.array(photograph.convert("RGB"))[top : top + 64, left : left + 128])
    above = np.arange(128)[:, None].repeat(128, 1) < 64
    return np.concatenate(windows), {"First": above, "Second": ~above}


@pytest.mark.parametrize(
    ("make_example", "count"), [(scene, 8), pytest.param(grass_and_rock, 5, marks=needs_photographs)]
)
def test_a_few_annotated_images_label_the_next_ones(
    make_example: Callable[[int], tuple[np.ndarray, dict[str, np.ndarray]]], count: int
) -> None:
    segmenter = load_segmenter("classical")
    images = [make_example(number) for number in range(count + 3)]
    trees = [segmenter.segment(image) for image, _ in images]
    feedback = [feedback_of(trees[task], [*images[task][1].items()], task_id=task) for task in range(count)]
    learned = fit_profile(feedback, "v", LABELS)
    assert learned.granularity is not None
    right, wrong, unannotated = [], [], []
    for tree, (_, masks) in zip(trees[count:], images[count:], strict=True):
        groups = tree.segment_of(learned.granularity)
        names = np.array([label or "" for label, _ in suggest_labels(tree, groups, learned, 0.9)])[groups[tree.leaves]]
        annotated = np.any([*masks.values()], axis=0)
        truth = np.select([*masks.values()], [*masks], "")
        right.append((names == truth)[annotated].mean())
        wrong.append(((names != truth) & (names != ""))[annotated].mean())
        unannotated.append((names != "")[~annotated].mean() if not annotated.all() else 0)
    assert min(right) > 0.8
    assert max(wrong) < 0.05
    assert max(unannotated) < 0.05, "no label is forced on regions that look like neither"
