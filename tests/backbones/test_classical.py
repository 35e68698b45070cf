"""The backbone without weights: images with known contours, and formulas against their definitions."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from torch import Tensor

from walkcut.backbones import Backbone, FeatureKind, load_backbone
from walkcut.backbones.classical import (
    ClassicalBackbone,
    chi_square,
    colour_histogram,
    contour_strength,
    fisher_tensor,
    gaussian_filter,
    intervening_contour,
    offsets,
    texture_histogram,
    to_lab,
    window,
)

ALL: frozenset[FeatureKind] = frozenset({"attention_maps", "feature_map", "contour"})


def _two_halves(height: int = 48, width: int = 64) -> UInt8[Tensor, "y x 3"]:
    """Red on the left, green on the right."""
    image = torch.zeros(height, width, 3, dtype=torch.uint8)
    image[:, : width // 2, 0], image[:, width // 2 :, 1] = 200, 160
    return image


def _noise(height: int, width: int) -> UInt8[Tensor, "y x 3"]:
    return torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_it_is_a_backbone_whose_version_contains_its_settings() -> None:
    assert isinstance(load_backbone("classical"), Backbone)
    assert ClassicalBackbone().version != ClassicalBackbone(working_side=320).version


def test_extraction_is_one_span(stages: list[str]) -> None:
    ClassicalBackbone().extract(_noise(16, 16), ALL)
    assert stages == ["features", "/features"]


@pytest.mark.parametrize("size", [(16, 16), (16, 2000), (2000, 16), (17, 31), (500, 300)])
def test_any_size_gives_valid_features(size: tuple[int, int]) -> None:
    features = ClassicalBackbone().extract(_noise(*size), ALL)
    (step,) = features.attention_maps
    assert features.contour is not None
    assert features.feature_map is not None
    assert features.feature_map.shape[1:] == features.contour.shape
    assert min(features.contour.shape) >= 16
    assert max(features.contour.shape) <= min(256, max(size))
    assert 0 <= features.contour.min() <= features.contour.max() <= 1
    assert features.feature_map.min() >= 0
    torch.testing.assert_close(features.feature_map.sum(0), torch.full_like(features.contour, 2.0))
    assert math.prod(step.grid) == len(step.weights) <= 4096
    torch.testing.assert_close(step.weights.sum(1), torch.ones(len(step.weights)))


def test_only_requested_kinds_are_returned() -> None:
    features = ClassicalBackbone().extract(_two_halves(), frozenset({"contour"}))
    assert features.contour is not None
    assert features.feature_map is None
    assert features.attention_maps == ()


def test_the_same_image_gives_the_same_bits() -> None:
    first, second = (ClassicalBackbone().extract(_noise(60, 70), ALL) for _ in range(2))
    assert first.contour is not None
    assert second.contour is not None
    assert torch.equal(first.contour, second.contour)
    assert torch.equal(first.attention_maps[0].weights, second.attention_maps[0].weights)


def test_a_constant_image_has_no_contour() -> None:
    features = ClassicalBackbone().extract(torch.full((40, 30, 3), 90, dtype=torch.uint8), ALL)
    assert features.contour is not None
    assert features.contour.max() < 1e-3


def test_the_contour_runs_between_two_colours() -> None:
    contour = ClassicalBackbone().extract(_two_halves(), ALL).contour
    assert contour is not None
    assert set(contour.argmax(1).tolist()) <= {31, 32}
    assert contour[:, :12].max() < 0.1 * contour.max()


def test_the_walk_stays_on_its_side() -> None:
    (step,) = ClassicalBackbone().extract(_two_halves(), ALL).attention_maps
    left = (torch.arange(len(step.weights)) % step.grid[1]) < step.grid[1] // 2
    assert step.weights[left][:, ~left].sum(1).max() < 0.05
    assert step.weights.diagonal().median() < 0.1


def test_even_texture_does_not_stop_the_walk() -> None:
    histograms = torch.full((2, 20, 20), 0.5)
    calm, busy = (ClassicalBackbone()._walk(histograms, torch.full((20, 20), level)) for level in (0.0, 0.9))
    torch.testing.assert_close(busy.weights, calm.weights)


def test_lab_of_white_black_and_red() -> None:
    rgb = torch.tensor([[1.0, 0, 1], [1, 0, 0], [1, 0, 0]])[:, None]
    expected = torch.tensor([[100.0, 0, 53.24], [0, 0, 80.09], [0, 0, 67.20]])[:, None]
    torch.testing.assert_close(to_lab(rgb), expected, atol=0.05, rtol=0)


def test_close_colours_have_close_histograms_and_far_ones_do_not() -> None:
    lab = torch.tensor([[50.0, 51, 60, 50], [10, 10, 10, -60], [0, 0, 0, 50]])[:, None]
    histogram = colour_histogram(lab)[:, 0]
    near, further, far = chi_square(histogram[:, :1].expand(-1, 3).T, histogram[:, 1:].T).tolist()
    assert near < 0.05
    assert near < further < far
    assert far > 0.95


def test_flat_lightness_is_one_texture_and_stripes_another() -> None:
    stripes = 50 + 40 * torch.sin(torch.arange(40.0)).expand(40, -1)
    across, along, flat = (
        texture_histogram(lightness)[:, 20, 20] for lightness in (stripes, stripes.T, torch.full((40, 40), 50.0))
    )
    assert flat[-1] > 0.99
    assert chi_square(across, along) > 0.9


def test_windows_keep_constants_and_measure_steps() -> None:
    step = torch.zeros(41)
    step[20:] = 1
    torch.testing.assert_close(window(41, 2.0, 0).sum(1), torch.ones(41))
    torch.testing.assert_close(window(41, 2.0, 1).sum(1), torch.zeros(41), atol=1e-6, rtol=0)
    assert (window(41, 2.0, 1) @ step)[19:21].min() == pytest.approx(1, abs=0.02)


def test_windows_mirror_even_where_they_are_wider_than_the_image() -> None:
    values = torch.rand(5, generator=torch.Generator().manual_seed(0))
    mirrored = torch.cat([values, values.flip(0)]).repeat(20)
    torch.testing.assert_close(window(5, 9.0, 0) @ values, (window(200, 9.0, 0) @ mirrored)[100:105])


def test_the_tensor_gives_the_chi_square_distance_of_every_orientation() -> None:
    """Against the definition: halves of the window for one angle, compared by χ²."""
    histogram = torch.rand(4, 21, 21, generator=torch.Generator().manual_seed(0)).softmax(0)
    xx, xy, yy = fisher_tensor(histogram, 2.0)[:, 10, 10].tolist()
    mean = gaussian_filter(histogram, 2.0, (0, 0))[:, 10, 10]
    along_x, along_y = (gaussian_filter(histogram, 2.0, orders)[:, 10, 10] for orders in ((0, 1), (1, 0)))
    for angle in (0, 0.4, 1.1, 2.5):
        c, s = math.cos(angle), math.sin(angle)
        half = (c * along_x + s * along_y) / 2
        expected = chi_square(mean + half, mean - half).item()
        assert c * c * xx + 2 * c * s * xy + s * s * yy == pytest.approx(expected, rel=0.01)


def test_contours_are_found_at_any_orientation_alike() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    strengths = []
    for angle in (0, math.pi / 8, math.pi / 4):
        side = ((x - 31.5) * math.cos(angle) + (y - 31.5) * math.sin(angle)).sigmoid()
        histogram = torch.stack([side, 1 - side])
        strengths.append(contour_strength(histogram)[32, 32].item())
    assert max(strengths) - min(strengths) < 0.02


def test_offsets_name_each_pair_of_directions_once() -> None:
    assert offsets(1).tolist() == [[0, 1], [1, 0]]
    assert len(offsets(3)) == (28 / 2)


def test_a_wall_stands_between_patches_on_its_two_sides_only() -> None:
    contour = torch.zeros(12, 12)
    contour[:, 6] = 0.7
    barrier = intervening_contour(contour, (6, 6), 2)
    right_by_two = offsets(2).tolist().index([0, 2])
    np.testing.assert_allclose(barrier[right_by_two, 0].numpy(), [0, 0.7, 0.7, 0.7, 0, 0], atol=1e-6)
