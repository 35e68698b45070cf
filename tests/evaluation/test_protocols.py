"""Each protocol against a reference: its steps one after the other, pixel by pixel."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Int64, UInt8
from torch.nn.functional import interpolate

from walkcut.evaluation.datasets import Dataset
from walkcut.evaluation.ground_truth import IGNORE
from walkcut.evaluation.metrics import matched_counts
from walkcut.evaluation.protocols import PROTOCOLS, CenterCrop, Protocol

Labels = Int64[np.ndarray, "y x"]

CLASSES = Dataset("made up", "val", (), ("sky", "sea", "sand", "ship"))
WITH_BACKGROUND = Dataset("made up", "val", (), (*"abcdefg", "background"))
PARTITIONS = Dataset("made up", "val", ())

# Each paper's protocol by its authors' program (for DWC, by the text): the margin, whether half of an odd rest is
# rounded to the even number, input size and score size, and whether void counts as background.
RULES = {
    "dwc": (0, False, 512, 512, False),
    "diffseg": (0, False, 512, 512, False),
    "diffcut": (1, True, 1024, 128, True),
}


def made_up(shape: tuple[int, int], labels: list[int], seed: int = 0) -> Labels:
    """Return a mosaic of 5 by 5 tiles of uneven sizes, so that no two matchings are equally good."""
    random = np.random.default_rng(seed)
    tiles = random.choice(labels, (5, 5))
    rows, columns = (np.searchsorted(np.sort(random.choice(side, 4, replace=False)), np.arange(side)) for side in shape)
    return tiles[np.ix_(rows, columns)].astype(np.int64)


def reference_crop_corner(shape: tuple[int, ...], margin: int, *, to_even: bool) -> tuple[int, int, int]:
    side = min(shape[0], shape[1]) - margin
    top, left = (shape[0] - side) / 2, (shape[1] - side) / 2
    if to_even:
        return side, round(top), round(left)
    return side, int(top), int(left)


def reference_truth(truth: Labels, name: str) -> Labels:
    margin, to_even, input_size, score_size, _ = RULES[name]
    side, top, left = reference_crop_corner(truth.shape, margin, to_even=to_even)
    square = np.empty((side, side), np.int64)
    for i in range(side):
        for j in range(side):
            square[i, j] = truth[top + i, left + j]
    rows = [int((i + 0.5) * side / input_size) for i in range(input_size)]
    result = np.empty((score_size, score_size), np.int64)
    for i in range(score_size):
        for j in range(score_size):
            result[i, j] = square[rows[int(i * input_size / score_size)], rows[int(j * input_size / score_size)]]
    return result


def reference_labels(labels: Labels, name: str) -> Labels:
    side = RULES[name][3]
    result = np.empty((side, side), np.int64)
    for i in range(side):
        for j in range(side):
            result[i, j] = labels[int((i + 0.5) * len(labels) / side), int((j + 0.5) * len(labels) / side)]
    return result


def reference_overlaps(truth: Labels, labels: Labels) -> Counter[tuple[int, int]]:
    """Count the pixels of each class in each segment."""
    return Counter(zip(truth.ravel().tolist(), labels.ravel().tolist(), strict=True))


def reference_matching(truth: Labels, labels: Labels, classes: list[int]) -> dict[int, int]:
    """Return the segment of each class in the image: the best of all assignments of different ones, or none."""
    overlaps = reference_overlaps(truth, labels)
    present = [number for number in classes if (truth == number).any()]
    segments = [*np.unique(labels).tolist(), *(-2 - number for number in present)]  # negative: none
    assignments = permutations(segments, len(present))
    best = max(
        assignments, key=lambda assignment: sum(overlaps[pair] for pair in zip(present, assignment, strict=True))
    )
    return dict(zip(present, best, strict=True))


def reference_background(truth: Labels, labels: Labels, background: int) -> Labels:
    """DiffCut: segments not matched to a foreground class in the image become one new segment."""
    kept = reference_matching(truth, labels, list(range(background))).values()
    return np.where(np.isin(labels, list(kept)), labels, labels.max() + 1)


def reference_scores(truth: Labels, labels: Labels, classes: int) -> tuple[float, float]:
    """Return accuracy, and mean IoU of the classes that are in the image or matched to an extra segment."""
    scored = truth != IGNORE
    truth, labels = truth[scored], labels[scored]
    overlaps, segments = reference_overlaps(truth, labels), reference_matching(truth, labels, list(range(classes)))
    right = {number: overlaps[number, segment] for number, segment in segments.items()}
    unions = {n: int((truth == n).sum() + (labels == segments[n]).sum() - right[n]) for n in right}
    extra = set(np.unique(labels).tolist()) - set(segments.values())
    ious = [right[n] / unions[n] for n in right] + [0.0] * min(len(extra), classes - len(right))
    return sum(right.values()) / len(truth), sum(ious) / len(ious)


def scores(protocol: Protocol, truth: Labels, labels: Labels, dataset: Dataset) -> tuple[float, float]:
    """Return accuracy and mean IoU by the protocol."""
    counts = matched_counts(protocol.table(protocol.crop_truth(truth), protocol.resize_labels(labels), dataset))
    return counts.accuracy, counts.mean_iou


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("shape", [(37, 50), (51, 37), (41, 40), (60, 65)])
def test_truths_are_scaled_as_step_by_step(name: str, shape: tuple[int, int]) -> None:
    truth = np.arange(shape[0] * shape[1]).reshape(shape)
    np.testing.assert_array_equal(PROTOCOLS[name].crop_truth(truth), reference_truth(truth, name))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("present", "segments"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([0, 1], [0, 1, 2, 3, 4, 5]),  # more segments than classes, and absent classes
        ([0, 2, 3], [0, 1]),
        ([0, 1, IGNORE], [0, 1, 2]),
        ([3], [7]),
    ],
    ids=["as many", "extra segments", "few segments", "ignored pixels", "one of each"],
)
def test_classes_are_scored_as_step_by_step(name: str, present: list[int], segments: list[int]) -> None:
    protocol, input_size = PROTOCOLS[name], RULES[name][2]
    truth, labels = made_up((37, 50), present), made_up((input_size, input_size), segments, seed=1)
    expected = reference_scores(reference_truth(truth, name), reference_labels(labels, name), len(CLASSES.classes))
    assert scores(protocol, truth, labels, CLASSES) == pytest.approx(expected)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("present", [[0, 1, 7], [0, 7, IGNORE], [0, 1, 2], [7], [IGNORE, 1]])
def test_a_background_is_merged_as_step_by_step(name: str, present: list[int]) -> None:
    protocol, (*_, input_size, _, void_is_background) = PROTOCOLS[name], RULES[name]
    truth, labels = made_up((37, 50), present), made_up((input_size, input_size), [0, 1, 2, 3, 4], seed=1)
    at_score = reference_truth(truth, name)
    if void_is_background:
        at_score[at_score == IGNORE] = 7
    merged = reference_background(at_score, reference_labels(labels, name), background=7)
    assert scores(protocol, truth, labels, WITH_BACKGROUND) == pytest.approx(reference_scores(at_score, merged, 8))


def test_the_whole_image_is_scored_in_its_own_size_without_help() -> None:
    truth, labels = made_up((37, 50), [0, 1, 7, IGNORE]), made_up((37, 50), [0, 1, 2, 3, 4], seed=1)
    expected = reference_scores(truth, labels, 8)
    assert scores(PROTOCOLS["native"], truth, labels, WITH_BACKGROUND) == pytest.approx(expected)


def test_void_is_background_only_where_there_is_one() -> None:
    truth = np.array([[IGNORE, IGNORE, 0]])
    labels = np.array([[0, 1, 2]])
    assert PROTOCOLS["diffcut"].table(truth, labels, CLASSES).sum() == 1
    assert PROTOCOLS["diffcut"].table(truth, labels, WITH_BACKGROUND).sum() == 3
    assert PROTOCOLS["diffseg"].table(truth, labels, WITH_BACKGROUND).sum() == 1


def test_the_background_of_a_cut_up_image_becomes_one_segment() -> None:
    truth = np.array([[0, 0, 7, 7, 7, 7]])
    labels = np.array([[0, 0, 1, 2, 3, 3]])
    table = PROTOCOLS["diffcut"].table(truth, labels, WITH_BACKGROUND)
    assert table[table.any(axis=1)][:, table.any(axis=0)].tolist() == [[2, 0], [0, 4]]
    assert matched_counts(table).mean_iou == 1
    assert matched_counts(PROTOCOLS["native"].table(truth, labels, WITH_BACKGROUND)).mean_iou < 1


def test_parts_of_a_partition_are_rows_whatever_their_numbers() -> None:
    truth = np.array([[7, 7, -1], [900, 900, 900]])
    labels = np.array([[0, 1, 1], [2, 2, 0]])
    assert PROTOCOLS["native"].table(truth, labels, PARTITIONS).tolist() == [[0, 1, 0], [1, 1, 0], [1, 0, 2]]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("shape", [(37, 50), (50, 37), (16, 16), (700, 601), (1100, 1205)])
def test_the_method_sees_the_scaled_square(name: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    margin, to_even, input_size, *_ = RULES[name]
    side, top, left = reference_crop_corner(shape, margin, to_even=to_even)
    crop = PROTOCOLS[name].crop_image(image)
    assert crop.shape == (input_size, input_size, 3)
    for row, column in [
        (0, 0),
        (input_size // 3, input_size // 2),
        (input_size - 1, 1),
        (input_size - 1, input_size - 1),
    ]:
        expected = reference_bilinear(image[top : top + side, left : left + side], row, column, input_size)
        np.testing.assert_allclose(crop[row, column], expected, atol=0.501)


def reference_bilinear(square: UInt8[np.ndarray, "s s 3"], row: int, column: int, side: int) -> np.ndarray:
    """Interpolate between the four nearest pixel centres."""
    y, x = (min(max((i + 0.5) * len(square) / side - 0.5, 0), len(square) - 1) for i in (row, column))
    top, left = int(y), int(x)
    bottom, right = min(top + 1, len(square) - 1), min(left + 1, len(square) - 1)
    upper = square[top, left] * (1 - (x - left)) + square[top, right] * (x - left)
    lower = square[bottom, left] * (1 - (x - left)) + square[bottom, right] * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


def test_without_a_crop_nothing_is_changed() -> None:
    image, labels = np.zeros((17, 19, 3), np.uint8), np.zeros((17, 19), np.int64)
    native = PROTOCOLS["native"]
    assert native.crop_image(image) is image
    assert native.crop_truth(labels) is labels
    assert native.resize_labels(labels) is labels


@given(side=st.sampled_from([16, 64, 128]), height=st.integers(2, 60), width=st.integers(2, 60))
def test_labels_are_scaled_as_by_pytorchs_nearest_exact(side: int, height: int, width: int) -> None:
    """Sides are powers of two, as in all protocols, for which PyTorch's fractions are exact."""
    labels = np.arange(height * width).reshape(height, width)
    expected = interpolate(torch.from_numpy(labels)[None, None].double(), (side, side), mode="nearest-exact")[0, 0]
    np.testing.assert_array_equal(Protocol("", CenterCrop(side, side)).resize_labels(labels), expected.numpy())


def test_diffcut_scores_the_first_pixel_of_each_block_of_the_truth() -> None:
    truth = np.zeros((1025, 1025), np.int64)
    truth[8:1024:8, 8:1024:8] = 1
    assert PROTOCOLS["diffcut"].crop_truth(truth)[1:, 1:].all()


def test_names_are_keys() -> None:
    assert {name: protocol.name for name, protocol in PROTOCOLS.items()} == {name: name for name in PROTOCOLS}
    assert set(PROTOCOLS) == {*RULES, "native"}
