"""Embeddings of features and of attention, by hand."""

import pytest
import torch

from walkcut.backbones.embedding import embed_attention, embed_features, principal_components, remove_position


def random_map(channels: int, height: int = 6, width: int = 9) -> torch.Tensor:
    return torch.randn(channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(6, 9), (1, 5), (5, 1), (1, 1)])
def test_features_linear_in_the_position_leave_nothing(size: tuple[int, int]) -> None:
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    features = torch.stack([3 + 2 * y - x, 7 * x, -5 + 0 * x]).float()
    torch.testing.assert_close(remove_position(features), torch.zeros(3, *size), atol=1e-4, rtol=0)


def test_what_is_not_linear_in_the_position_stays() -> None:
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    rest = remove_position(random_map(4))
    torch.testing.assert_close(remove_position(rest + y - 3 * x), rest, atol=1e-4, rtol=0)
    assert rest.square().mean() > 0.5


def test_directions_do_not_depend_on_the_length_of_features() -> None:
    features = random_map(4)
    embedding = embed_features(features * torch.rand(6, 9).add(0.5), (6, 9))
    torch.testing.assert_close(embedding, embed_features(features, (6, 9)))
    torch.testing.assert_close(embedding.norm(dim=0), torch.ones(6, 9))


def test_features_of_the_position_alone_have_no_direction() -> None:
    features = torch.arange(9.0).expand(4, 6, 9) / 7 + 1  # whose fit leaves rounding
    assert embed_features(features, (12, 18), without_position=True).norm(dim=0).max() < 0.1
    assert embed_features(features, (12, 18)).norm(dim=0).min() > 0.9


def test_a_fine_map_is_averaged_first() -> None:
    coarse = embed_features(random_map(4), (6, 9))
    fine = random_map(4).repeat_interleave(10, 1).repeat_interleave(10, 2)
    assert (embed_features(fine, (6, 9)) - coarse).norm(dim=0).median() < 0.4


def test_features_that_are_zero_have_no_direction() -> None:
    assert not embed_features(torch.zeros(4, 6, 9), (6, 9)).any()


def test_distances_within_the_first_components_stay() -> None:
    few = torch.cat([random_map(5), torch.zeros(95, 6, 9)])
    turn, _ = torch.linalg.qr(random_map(1, 100, 100)[0])
    turned = torch.einsum("ij,jyx->iyx", turn, few)
    components = principal_components(turned)
    assert components.shape == (32, 6, 9)
    distances, expected = (torch.cdist(maps.flatten(1).T, maps.flatten(1).T) for maps in (components, few))
    torch.testing.assert_close(distances, expected, atol=5e-3, rtol=0)


def test_short_vectors_are_not_changed() -> None:
    assert torch.equal(principal_components(random_map(32)), random_map(32))


def test_distances_of_attention_are_hellinger_distances() -> None:
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    embedding = embed_attention(weights, (1, 3), (1, 3))[:, 0]
    squared = torch.cdist(embedding.T, embedding.T).square() / 4
    torch.testing.assert_close(squared, torch.tensor([[0.0, 0, 1], [0, 0, 1], [1, 1, 0]]), atol=1e-5, rtol=0)


def test_attention_of_a_fine_grid_is_summed_over_areas() -> None:
    weights = torch.rand(64 * 32, 64 * 32, generator=torch.Generator().manual_seed(0))
    assert embed_attention(weights / weights.sum(1, keepdim=True), (64, 32), (100, 50)).shape == (32, 100, 50)
