"""Each protocol against a plain reference: its steps one after the other, pixel by pixel."""

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
from walkcut.evaluation.protocols import PROTOCOLS, Protocol, Square

Labels = Int64[np.ndarray, "y x"]

CLASSES = Dataset("made up", "val", (), ("sky", "sea", "sand", "ship"))
WITH_BACKGROUND = Dataset("made up", "val", (), (*"abcdefg", "background"))
PARTITIONS = Dataset("made up", "val", ())

# Of each paper's protocol as its authors' program (or, for DWC, the text) has it: what the crop's side lacks, whether
# half an odd margin is rounded to the even number, sides seen and scored, and whether void counts as background.
RULES = {
    "dwc": (0, False, 512, 512, False),
    "diffseg": (0, False, 512, 512, False),
    "diffcut": (1, True, 1024, 128, True),
}


def made_up(shape: tuple[int, int], labels: list[int], seed: int = 0) -> Labels:
    """A mosaic of 5 by 5 stones of uneven sizes, so that no two matchings are equally good."""
    random = np.random.default_rng(seed)
    stones = random.choice(labels, (5, 5))
    rows, columns = (np.searchsorted(np.sort(random.choice(side, 4, replace=False)), np.arange(side)) for side in shape)
    return stones[np.ix_(rows, columns)].astype(np.int64)


def plain_crop_corner(shape: tuple[int, ...], trim: int, *, to_even: bool) -> tuple[int, int, int]:
    side = min(shape[0], shape[1]) - trim
    top, left = (shape[0] - side) / 2, (shape[1] - side) / 2
    if to_even:
        return side, round(top), round(left)
    return side, int(top), int(left)


def plain_truth(truth: Labels, name: str) -> Labels:
    trim, to_even, seen, scored, _ = RULES[name]
    side, top, left = plain_crop_corner(truth.shape, trim, to_even=to_even)
    square = np.empty((side, side), np.int64)
    for i in range(side):
        for j in range(side):
            square[i, j] = truth[top + i, left + j]
    at_seen = [int((i + 0.5) * side / seen) for i in range(seen)]
    result = np.empty((scored, scored), np.int64)
    for i in range(scored):
        for j in range(scored):
            result[i, j] = square[at_seen[int(i * seen / scored)], at_seen[int(j * seen / scored)]]
    return result


def plain_scored(labels: Labels, name: str) -> Labels:
    side = RULES[name][3]
    result = np.empty((side, side), np.int64)
    for i in range(side):
        for j in range(side):
            result[i, j] = labels[int((i + 0.5) * len(labels) / side), int((j + 0.5) * len(labels) / side)]
    return result


def plain_overlaps(truth: Labels, labels: Labels) -> Counter[tuple[int, int]]:
    """The number of pixels of each class in each segment."""
    return Counter(zip(truth.ravel().tolist(), labels.ravel().tolist(), strict=True))


def plain_matching(truth: Labels, labels: Labels, classes: list[int]) -> dict[int, int]:
    """The segment of each class in the image: the best of all ways to give them different ones, or none."""
    overlaps = plain_overlaps(truth, labels)
    present = [number for number in classes if (truth == number).any()]
    segments = [*np.unique(labels).tolist(), *(-2 - number for number in present)]  # negative: none
    ways = permutations(segments, len(present))
    best = max(ways, key=lambda way: sum(overlaps[pair] for pair in zip(present, way, strict=True)))
    return dict(zip(present, best, strict=True))


def plain_background(truth: Labels, labels: Labels, background: int) -> Labels:
    """DiffCut: segments that are not the one of a foreground class in the image become one new segment."""
    kept = plain_matching(truth, labels, list(range(background))).values()
    return np.where(np.isin(labels, list(kept)), labels, labels.max() + 1)


def plain_numbers(truth: Labels, labels: Labels, classes: int) -> tuple[float, float]:
    """Accuracy, and mean IoU of the classes that are in the image or are given a segment left over."""
    scored = truth != IGNORE
    truth, labels = truth[scored], labels[scored]
    overlaps, segments = plain_overlaps(truth, labels), plain_matching(truth, labels, list(range(classes)))
    right = {number: overlaps[number, segment] for number, segment in segments.items()}
    unions = {n: int((truth == n).sum() + (labels == segments[n]).sum() - right[n]) for n in right}
    left_over = set(np.unique(labels).tolist()) - set(segments.values())
    scores = [right[n] / unions[n] for n in right] + [0.0] * min(len(left_over), classes - len(right))
    return sum(right.values()) / len(truth), sum(scores) / len(scores)


def numbers(protocol: Protocol, truth: Labels, labels: Labels, dataset: Dataset) -> tuple[float, float]:
    """Accuracy and mean IoU, by the protocol."""
    counts = matched_counts(protocol.table(protocol.truth(truth), protocol.scored(labels), dataset))
    return counts.accuracy, counts.mean_iou


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("shape", [(37, 50), (51, 37), (41, 40), (60, 65)])
def test_truths_are_scaled_as_step_by_step(name: str, shape: tuple[int, int]) -> None:
    truth = np.arange(shape[0] * shape[1]).reshape(shape)
    np.testing.assert_array_equal(PROTOCOLS[name].truth(truth), plain_truth(truth, name))


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
    protocol, seen = PROTOCOLS[name], RULES[name][2]
    truth, labels = made_up((37, 50), present), made_up((seen, seen), segments, seed=1)
    expected = plain_numbers(plain_truth(truth, name), plain_scored(labels, name), len(CLASSES.classes))
    assert numbers(protocol, truth, labels, CLASSES) == pytest.approx(expected)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("present", [[0, 1, 7], [0, 7, IGNORE], [0, 1, 2], [7], [IGNORE, 1]])
def test_a_background_is_merged_as_step_by_step(name: str, present: list[int]) -> None:
    protocol, (*_, seen, _, void_is_background) = PROTOCOLS[name], RULES[name]
    truth, labels = made_up((37, 50), present), made_up((seen, seen), [0, 1, 2, 3, 4], seed=1)
    at_score = plain_truth(truth, name)
    if void_is_background:
        at_score[at_score == IGNORE] = 7
    merged = plain_background(at_score, plain_scored(labels, name), background=7)
    assert numbers(protocol, truth, labels, WITH_BACKGROUND) == pytest.approx(plain_numbers(at_score, merged, 8))


def test_the_whole_image_is_scored_in_its_own_size_without_help() -> None:
    truth, labels = made_up((37, 50), [0, 1, 7, IGNORE]), made_up((37, 50), [0, 1, 2, 3, 4], seed=1)
    expected = plain_numbers(truth, labels, 8)
    assert numbers(PROTOCOLS["native"], truth, labels, WITH_BACKGROUND) == pytest.approx(expected)


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
    trim, to_even, seen, *_ = RULES[name]
    side, top, left = plain_crop_corner(shape, trim, to_even=to_even)
    view = PROTOCOLS[name].view(image)
    assert view.shape == (seen, seen, 3)
    for row, column in [(0, 0), (seen // 3, seen // 2), (seen - 1, 1), (seen - 1, seen - 1)]:
        expected = plain_bilinear(image[top : top + side, left : left + side], row, column, seen)
        np.testing.assert_allclose(view[row, column], expected, atol=0.501)


def plain_bilinear(square: UInt8[np.ndarray, "s s 3"], row: int, column: int, side: int) -> np.ndarray:
    """Between the four nearest pixel centres."""
    y, x = (min(max((i + 0.5) * len(square) / side - 0.5, 0), len(square) - 1) for i in (row, column))
    top, left = int(y), int(x)
    bottom, right = min(top + 1, len(square) - 1), min(left + 1, len(square) - 1)
    upper = square[top, left] * (1 - (x - left)) + square[top, right] * (x - left)
    lower = square[bottom, left] * (1 - (x - left)) + square[bottom, right] * (x - left)
    return upper * (1 - (y - top)) + lower * (y - top)


def test_without_a_square_nothing_is_changed() -> None:
    image, labels = np.zeros((17, 19, 3), np.uint8), np.zeros((17, 19), np.int64)
    native = PROTOCOLS["native"]
    assert native.view(image) is image
    assert native.truth(labels) is labels
    assert native.scored(labels) is labels


@given(side=st.sampled_from([16, 64, 128]), height=st.integers(2, 60), width=st.integers(2, 60))
def test_labels_are_scaled_as_by_pytorchs_nearest_exact(side: int, height: int, width: int) -> None:
    """To sides that are powers of two, as all are: then PyTorch's fractions are exact."""
    labels = np.arange(height * width).reshape(height, width)
    expected = interpolate(torch.from_numpy(labels)[None, None].double(), (side, side), mode="nearest-exact")[0, 0]
    np.testing.assert_array_equal(Protocol("", Square(side, side)).scored(labels), expected.numpy())


def test_diffcut_scores_the_first_pixel_of_each_block_of_the_truth() -> None:
    truth = np.zeros((1025, 1025), np.int64)
    truth[8:1024:8, 8:1024:8] = 1
    assert PROTOCOLS["diffcut"].truth(truth)[1:, 1:].all()


def test_names_are_keys() -> None:
    assert {name: protocol.name for name, protocol in PROTOCOLS.items()} == {name: name for name in PROTOCOLS}
    assert set(PROTOCOLS) == {*RULES, "native"}
