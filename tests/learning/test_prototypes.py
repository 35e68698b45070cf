import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walkcut.learning.prototypes import Prototypes, build_prototypes

LEFT, RIGHT, UP = np.eye(3, dtype=np.float32)


def unit(*vectors: np.ndarray) -> np.ndarray:
    rows = np.array(vectors, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def prototypes(*examples: tuple[np.ndarray, int, int]) -> Prototypes:
    descriptors, labels, images = zip(*examples, strict=True)
    return build_prototypes(unit(*descriptors), np.array(labels), images)


def random_prototypes(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([[0, 1], rng.integers(0, 2, count)])
    return unit(*rng.random((count + 2, 4))), labels, rng.integers(0, 5, count + 2).tolist()


def test_one_example_gives_a_moderate_confidence_and_three_a_higher_one() -> None:
    once = prototypes((LEFT, 0, 1)).confidences(unit(LEFT))
    thrice = prototypes(*((LEFT, 0, image) for image in range(3))).confidences(unit(LEFT))
    assert 0.6 < once[0, 0] < 0.8 < thrice[0, 0] < 0.95


def test_a_descriptor_unlike_all_examples_is_unknown() -> None:
    learned = prototypes(
        *((descriptor, label, image) for image in range(5) for label, descriptor in enumerate((LEFT, RIGHT)))
    )
    assert learned.confidences(unit(UP, -LEFT)).max() < 0.1


def test_between_two_labels_neither_confidence_is_high() -> None:
    learned = prototypes(
        *((descriptor, label, image) for image in range(5) for label, descriptor in enumerate((LEFT, RIGHT)))
    )
    confidences = learned.confidences(unit(LEFT + RIGHT))
    assert confidences[0, 0] == pytest.approx(confidences[0, 1])
    assert confidences.max() < 0.5


def test_many_examples_from_one_image_have_one_vote() -> None:
    once = prototypes((LEFT, 0, 1), (RIGHT, 1, 2))
    often = prototypes(*((LEFT, 0, 1) for _ in range(20)), (RIGHT, 1, 2))
    query = unit(LEFT, LEFT + RIGHT, RIGHT)
    assert often.confidences(query) == pytest.approx(once.confidences(query))


def test_a_label_may_have_different_descriptors() -> None:
    learned = prototypes((LEFT, 0, 1), (UP, 0, 1), (RIGHT, 1, 1))
    assert learned.confidences(unit(LEFT, UP, RIGHT)).argmax(1).tolist() == [0, 0, 1]


def test_similar_labels_are_told_apart() -> None:
    near = LEFT + 0.1 * RIGHT
    learned = prototypes(
        *((descriptor, label, image) for image in range(3) for label, descriptor in enumerate((LEFT, near)))
    )
    assert learned.confidences(unit(LEFT)).max() > 0.75
    assert learned.confidences(unit(LEFT + 0.5 * UP)).max() < 0.1


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(0, 12))
def test_confidences_add_up_to_at_most_one(seed: int, count: int) -> None:
    confidences = build_prototypes(*random_prototypes(seed, count)).confidences(
        unit(*np.random.default_rng(seed).normal(size=(5, 4)))
    )
    assert confidences.shape == (5, 2)
    assert confidences.min() >= 0
    assert confidences.sum(1).max() <= 1


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(0, 12))
def test_the_order_of_examples_does_not_matter(seed: int, count: int) -> None:
    descriptors, labels, images = random_prototypes(seed, count)
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = build_prototypes(descriptors[order], labels[order], [images[index] for index in order])
    query = unit(*np.random.default_rng(seed).random((5, 4)))
    assert shuffled.confidences(query) == pytest.approx(
        build_prototypes(descriptors, labels, images).confidences(query)
    )
