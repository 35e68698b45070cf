import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from walkcut.errors import SegmentationError
from walkcut.segmentation import diffcut
from walkcut.segmentation.diffcut import power_affinity
from walkcut.segmentation.graph import ncut_cost
from walkcut.segmentation.hierarchy import renumber


def scene(seed: int, *, noise: float = 0.3) -> Tensor:
    """Features (8, 10, 6) of three parts that differ in direction, not in length."""
    generator = torch.Generator().manual_seed(seed)
    part = torch.zeros(8, 10, dtype=torch.long)
    part[:, 4:], part[5:] = 1, 2
    features = torch.eye(6)[part] + noise * torch.rand(8, 10, 6, generator=generator)
    return features * (0.5 + torch.rand(8, 10, 1, generator=generator))


def cut_literally(A: Tensor, tau: float) -> list[Tensor]:
    """The paper's recursion with a full decomposition, and every threshold tried by itself; members of each segment."""

    def recurse(nodes: Tensor) -> list[Tensor]:
        W = A[nodes][:, nodes]
        if len(nodes) < 2:
            return [nodes]
        scale = W.sum(1).rsqrt()
        vector = scale * torch.linalg.eigh(torch.eye(len(nodes)) - scale[:, None] * W * scale).eigenvectors[:, 1]
        values = torch.linspace(0.99 * float(vector.min()), 0.99 * float(vector.max()), 100)
        cost, side = min(((ncut_cost(W, vector > value), vector > value) for value in values), key=lambda pair: pair[0])
        return recurse(nodes[side]) + recurse(nodes[~side]) if cost <= tau else [nodes]

    return recurse(torch.arange(len(A)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tau", [0.3, 0.5, 0.9])
def test_the_fast_form_is_the_papers(seed: int, tau: float) -> None:
    features = scene(seed)
    unit = normalize(features.flatten(0, 1), dim=1)
    segments = cut_literally(power_affinity(unit, 10), tau)
    means = torch.stack([unit[nodes].mean(0) for nodes in segments])
    pixels = interpolate(unit.T.unflatten(1, (8, 10))[None], size=(20, 30), mode="bilinear")[0]
    truth = torch.einsum("chw,sc->shw", pixels, means).argmax(0).numpy()
    labels = diffcut(features, threshold=tau, size=(20, 30)).numpy()
    assert (renumber(labels) == renumber(truth)).mean() > 0.99


def test_three_parts_are_three_segments() -> None:
    labels = diffcut(scene(0), size=(8, 10))
    assert labels.dtype == torch.int64
    assert len(labels.unique()) == 3
    assert labels[0, 0] != labels[0, 9] != labels[7, 5]


def test_a_higher_threshold_never_gives_fewer_segments() -> None:
    counts = [len(diffcut(scene(1, noise=1.0), threshold=tau, size=(8, 10)).unique()) for tau in (0.0, 0.5, 0.8, 1.0)]
    assert counts == sorted(counts)
    assert counts[0] == 1


def test_the_affinity_by_hand() -> None:
    unit = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    np.testing.assert_allclose(power_affinity(unit, 2), torch.tensor([[1, 0, 0.36], [0, 1, 0.64], [0.36, 0.64, 1]]))


def test_features_that_are_all_alike_are_one_segment() -> None:
    assert diffcut(torch.ones(3, 4, 5), size=(4, 4)).tolist() == [[0] * 4] * 4


def test_an_exponent_that_is_not_positive_is_refused() -> None:
    with pytest.raises(SegmentationError, match="positive, not 0"):
        diffcut(scene(0), exponent=0, size=(4, 4))
