import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from walkcut.errors import SegmentationError
from walkcut.segmentation import pamr


def refine_by_hand(image: Tensor, masks: Tensor, dilations: list[int]) -> Tensor:
    """One iteration, pixel by pixel, by the formulas of Araslanov & Roth (Eq. 4-6)."""
    _, height, width = image.shape
    refined = torch.zeros_like(masks)
    for y in range(height):
        for x in range(width):
            window = [
                (min(max(y + d * down, 0), height - 1), min(max(x + d * right, 0), width - 1))
                for d in dilations
                for down in (-1, 0, 1)
                for right in (-1, 0, 1)
            ]
            colours = torch.stack([image[:, row, column] for row, column in window])
            deviation = colours.std(0)
            neighbours = [pixel for index, pixel in enumerate(window) if index % 9 != 4]
            weights = torch.stack(
                [-((image[:, y, x] - image[:, r, c]).abs() / (1e-8 + 0.1 * deviation)).mean() for r, c in neighbours]
            ).softmax(0)
            refined[:, y, x] = sum(w * masks[:, r, c] for w, (r, c) in zip(weights, neighbours, strict=True))
    return refined


@pytest.mark.parametrize("dilations", [[1], [1, 2], [3]])
def test_one_iteration_is_the_papers(dilations: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    image, masks = torch.rand(3, 5, 6, generator=generator), torch.rand(2, 5, 6, generator=generator)
    refined = pamr(image, masks, iterations=1, dilations=dilations)
    torch.testing.assert_close(refined, refine_by_hand(image, masks, dilations), atol=1e-5, rtol=0)


def test_iterations_follow_one_another() -> None:
    image, masks = torch.rand(3, 9, 8, generator=torch.Generator().manual_seed(1)), torch.eye(9, 8)[None]
    once = pamr(image, masks, iterations=1)
    torch.testing.assert_close(pamr(image, masks, iterations=2), pamr(image, once, iterations=1))


@settings(max_examples=20)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 100))
def test_masks_of_a_pixel_still_sum_to_one(height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(3, height, width, generator=generator)
    masks = torch.rand(4, height, width, generator=generator).softmax(0)
    torch.testing.assert_close(pamr(image, masks).sum(0), torch.ones(height, width))


def test_a_mask_snaps_to_the_edge_of_the_image() -> None:
    image = torch.zeros(3, 16, 16)
    image[:, :, 8:] = 1
    mask = torch.zeros(1, 16, 16)
    mask[:, :, 10:] = 1
    refined = pamr(image, torch.cat([1 - mask, mask]), iterations=30, dilations=(1, 2)).argmax(0)
    assert refined[8].tolist() == [0] * 8 + [1] * 8


def test_smaller_masks_are_resized_to_the_image() -> None:
    assert pamr(torch.rand(3, 8, 6), torch.rand(2, 4, 3)).shape == (2, 8, 6)


@pytest.mark.parametrize(("iterations", "dilations"), [(0, [1]), (1, []), (1, [0])])
def test_settings_without_effect_are_refused(iterations: int, dilations: list[int]) -> None:
    with pytest.raises(SegmentationError, match="needs at least 1 iteration and dilations of at least 1 pixel"):
        pamr(torch.rand(3, 4, 4), torch.rand(1, 4, 4), iterations=iterations, dilations=dilations)
