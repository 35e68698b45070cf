from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tests.builders.ground_truth import damage, save_grey, save_labels, save_people
from walkcut.errors import ImageDecodeError
from walkcut.evaluation.ground_truth import HumanSegmentation, LabelImage, human_segmentations


def test_a_palettes_indices_are_read_and_not_its_colours(tmp_path: Path) -> None:
    save_labels(tmp_path / "a.png", np.array([[0, 1, 2]], np.uint8), palette=[9, 9, 9, 200, 0, 0, 0, 200, 0])
    assert LabelImage(tmp_path / "a.png").read().tolist() == [[0, 1, 2]]


def test_numbers_of_16_bits_are_read_whole(tmp_path: Path) -> None:
    save_labels(tmp_path / "a.png", np.array([[0, 300, 65535]], np.uint16))
    assert LabelImage(tmp_path / "a.png").read().tolist() == [[0, 300, 65535]]


@pytest.mark.parametrize(
    ("bits", "row", "expected"), [(1, 0b10100000, [1, 0]), (2, 0b11010000, [3, 1]), (4, 0xE3, [14, 3])]
)
def test_greys_of_few_bits_are_not_stretched(bits: int, row: int, expected: list[int], tmp_path: Path) -> None:
    save_grey(tmp_path / "a.png", [bytes([row])], width=2, bits=bits)
    assert LabelImage(tmp_path / "a.png").read().tolist() == [expected]


def test_numbers_become_classes(tmp_path: Path) -> None:
    save_labels(tmp_path / "a.png", np.array([[7, 3, 255]], np.uint8))
    assert LabelImage(tmp_path / "a.png", {3: 1, 7: 0, 255: -1, 9: 4}).read().tolist() == [[0, 1, -1]]


@pytest.mark.parametrize("number", [4, 200])
def test_a_number_without_a_class_is_refused(number: int, tmp_path: Path) -> None:
    save_labels(tmp_path / "a.png", np.array([[3, number]], np.uint8))
    with pytest.raises(ImageDecodeError, match=f"a.png holds {number}, which is not a label of this data set"):
        LabelImage(tmp_path / "a.png", {3: 1, 7: 0}).read()


def test_colours_are_no_labels(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ImageDecodeError, match=r"a.png holds colours \(RGB\): save it with one channel"):
        LabelImage(tmp_path / "a.png").read()


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_png_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageDecodeError, match=r"ground truth .*a.png cannot be read"):
        LabelImage(tmp_path / "a.png").read()


def test_every_person_has_a_partition(tmp_path: Path) -> None:
    partitions = [np.array([[1, 2], [2, 2]]), np.array([[1, 1], [1, 700]])]
    save_people(tmp_path / "a.mat", partitions)
    truths = human_segmentations(tmp_path / "a.mat")
    assert [truth.read().tolist() for truth in truths] == [labels.tolist() for labels in partitions]


@pytest.mark.parametrize("content", [b"", bytes(200), b"MATLAB 5.0 MAT-file".ljust(300)])
def test_what_is_no_matlab_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ImageDecodeError, match=r"ground truth .*a.mat cannot be read"):
        human_segmentations(tmp_path / "a.mat")


def test_a_file_without_people_is_named(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"something": np.eye(3)})
    with pytest.raises(ImageDecodeError, match=r"ground truth .*a.mat cannot be read \('groundTruth'\)"):
        human_segmentations(tmp_path / "a.mat")


def test_a_cut_off_file_of_people_is_named(tmp_path: Path) -> None:
    save_people(tmp_path / "a.mat", [np.eye(9, dtype=np.int64)])
    damage(tmp_path / "a.mat")
    with pytest.raises(ImageDecodeError, match=r"ground truth .*a.mat cannot be read"):
        HumanSegmentation(tmp_path / "a.mat", 0).read()


def test_changed_bytes_in_a_file_of_people_are_named(tmp_path: Path) -> None:
    save_people(tmp_path / "a.mat", [np.eye(9, dtype=np.int64)])
    data = bytearray((tmp_path / "a.mat").read_bytes())
    data[150:200] = bytes(50)
    (tmp_path / "a.mat").write_bytes(data)
    with pytest.raises(ImageDecodeError, match=r"ground truth .*a.mat cannot be read"):
        HumanSegmentation(tmp_path / "a.mat", 0).read()
