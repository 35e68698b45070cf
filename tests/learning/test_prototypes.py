import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walkcut.learning.prototypes import Examples, Prototypes, build_prototypes, fit_bandwidths

LEFT, RIGHT, UP = np.eye(3, dtype=np.float32)
MIDDLE = (0.5, 0.5, 0.1)


def segments(*vectors: np.ndarray, layout: tuple[float, float, float] = MIDDLE) -> Examples:
    rows = np.array(vectors, np.float32)
    unknown = np.full(len(rows), -1)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return Examples(rows, np.array([layout] * len(rows)), unknown, unknown)


def examples(*rows: tuple[np.ndarray, int, int]) -> Examples:
    descriptors, labels, images = zip(*rows, strict=True)
    found = segments(*descriptors)
    return Examples(found.descriptors, found.layouts, np.array(labels), np.array(images))


def prototypes(*rows: tuple[np.ndarray, int, int]) -> Prototypes:
    return build_prototypes(examples(*rows), 1 + max(label for _, label, _ in rows))


def random_examples(seed: int, count: int) -> Examples:
    rng = np.random.default_rng(seed)
    labels = [0, 1, *rng.integers(0, 2, count).tolist()]
    return examples(*((rng.random(4), label, int(rng.integers(0, 5))) for label in labels))


def test_three_images_give_a_higher_score_than_one() -> None:
    once = prototypes((LEFT, 0, 1)).scores(segments(LEFT))
    thrice = prototypes(*((LEFT, 0, image) for image in range(3))).scores(segments(LEFT))
    assert 0.6 < once[0, 0] < 0.8 < thrice[0, 0] < 0.95


def test_a_descriptor_unlike_all_examples_is_unknown() -> None:
    learned = prototypes(
        *((descriptor, label, image) for image in range(5) for label, descriptor in enumerate((LEFT, RIGHT)))
    )
    assert learned.scores(segments(UP, -LEFT)).max() < 0.1


def test_between_two_labels_neither_score_is_high() -> None:
    learned = prototypes(
        *((descriptor, label, image) for image in range(5) for label, descriptor in enumerate((LEFT, RIGHT)))
    )
    scores = learned.scores(segments(LEFT + RIGHT))
    assert scores[0, 0] == pytest.approx(scores[0, 1])
    assert scores.max() < 0.5


def test_many_examples_from_one_image_have_one_vote() -> None:
    once = prototypes((LEFT, 0, 1), (RIGHT, 1, 2))
    often = prototypes(*((LEFT, 0, 1) for _ in range(20)), (RIGHT, 1, 2))
    query = segments(LEFT, LEFT + RIGHT, RIGHT)
    assert often.scores(query) == pytest.approx(once.scores(query))


def test_a_label_may_have_different_descriptors() -> None:
    learned = prototypes((LEFT, 0, 1), (UP, 0, 1), (RIGHT, 1, 1))
    assert learned.scores(segments(LEFT, UP, RIGHT)).argmax(1).tolist() == [0, 0, 1]


def test_similar_labels_are_told_apart() -> None:
    near = LEFT + 0.1 * RIGHT
    learned = prototypes(
        *((descriptor, label, image) for image in range(3) for label, descriptor in enumerate((LEFT, near)))
    )
    assert learned.scores(segments(LEFT)).max() > 0.75
    assert learned.scores(segments(LEFT + 0.5 * UP)).max() < 0.1


def test_examples_of_the_segments_own_image_do_not_vote_if_it_is_held_out() -> None:
    learned = prototypes((LEFT, 0, 1), (RIGHT, 1, 2))
    assert learned.scores(examples((LEFT, 0, 1)), held_out=True).max() < 0.1
    assert learned.scores(examples((LEFT, 0, 2)), held_out=True).argmax() == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_positions_and_areas_count_where_they_tell_labels_apart(axis: int) -> None:
    labels, images = np.arange(12) % 2, np.arange(12) // 2
    layouts = np.tile(MIDDLE, (12, 1))
    layouts[:, axis] = np.where(labels, 0.02, 0.8)
    rows = Examples(np.tile(LEFT, (12, 1)), layouts, labels, images)
    learned = fit_bandwidths(build_prototypes(rows, 2), rows)
    assert [bandwidth < np.inf for bandwidth in learned.bandwidths[1:]] == [index == axis for index in range(3)]
    first, second = (segments(LEFT, layout=tuple(layouts[label])) for label in (0, 1))
    assert learned.scores(first)[0, 0] > 0.8 < learned.scores(second)[0, 1]


def test_positions_do_not_count_where_they_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    labels, images = np.arange(40) % 2, np.arange(40) // 2
    rows = Examples(np.stack([LEFT, RIGHT])[labels], rng.uniform(0.1, 0.9, (40, 3)), labels, images)
    assert fit_bandwidths(build_prototypes(rows, 2), rows).bandwidths[1:] == (np.inf, np.inf, np.inf)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(0, 12))
def test_scores_add_up_to_at_most_one(seed: int, count: int) -> None:
    scores = build_prototypes(random_examples(seed, count), 2).scores(
        segments(*np.random.default_rng(seed).normal(size=(5, 4)))
    )
    assert scores.shape == (5, 2)
    assert scores.min() >= 0
    assert scores.sum(1).max() <= 1 + 1e-6


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(0, 12))
def test_the_order_of_examples_does_not_matter(seed: int, count: int) -> None:
    rows = random_examples(seed, count)
    shuffled = rows.subset(np.random.default_rng(seed).permutation(len(rows.labels)))
    query = segments(*np.random.default_rng(seed).random((5, 4)))
    assert build_prototypes(shuffled, 2).scores(query) == pytest.approx(
        build_prototypes(rows, 2).scores(query), abs=1e-5
    )
