import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import normalize

from walkcut.errors import SegmentationError, SettingsError
from walkcut.segmentation.algorithms.clustering import (
    _fiedler_vector,
    dbscan,
    density_clusters,
    kmeans,
    kmeans_clusters,
    maskcut,
    salient_object,
    tokencut,
)
from walkcut.segmentation.algorithms.ncut import cosine_affinity

seeds = st.integers(0, 1000)


def painted(image: list[str], noise: float = 0.0) -> Tensor:
    """Features of an image in letters: a direction for each letter, and a little noise that is the same each time."""
    letters = sorted(set("".join(image)))
    features = torch.tensor([[[float(letter == axis) for axis in letters] for letter in row] for row in image])
    return features + noise * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))


def cloud(points: int, seed: int) -> Tensor:
    return torch.rand(points, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_letter(labels: Tensor, image: list[str]) -> dict[str, set[int]]:
    """The labels that each letter of the image got."""
    got: dict[str, set[int]] = {}
    for row, letters in zip(labels.tolist(), image, strict=True):
        for label, letter in zip(row, letters, strict=True):
            got.setdefault(letter, set()).add(label)
    return got


def salient_by_the_papers(features: Tensor, threshold: float, *, central: bool) -> Tensor:
    """TokenCut's object, and MaskCut's where `central`, with the full generalised eigendecomposition."""
    unit = normalize(features.double().flatten(0, 1), dim=1).numpy()
    A = np.where(unit @ unit.T > threshold, 1, 1e-5)
    D = np.diag(A.sum(1))
    vector = scipy.linalg.eigh(D - A, D, subset_by_index=[1, 1])[1][:, 0]
    vector = vector * np.sign(vector[np.abs(vector).argmax()])
    side = (vector > vector.mean()).reshape(features.shape[:2])
    if central and sum(side[y, x] for y in (0, -1) for x in (0, -1)) >= 3:
        side, vector = ~side, -vector
    pieces, _ = ndimage.label(side)
    return torch.from_numpy(pieces == pieces.ravel()[np.flatnonzero(vector > vector.max() - 1e-7)[0]])


def maskcut_by_the_papers(features: Tensor, threshold: float, objects: int) -> Tensor:
    """MaskCut with the full decomposition: objects are sought where none was found, and the earlier are on top."""
    nothing = torch.zeros(features.shape[:2], dtype=torch.bool)
    found: list[Tensor] = []
    for _ in range(objects):
        free = ~torch.stack([nothing, *found]).any(0)
        mask = salient_by_the_papers(features * free[..., None], threshold, central=True)
        if found:
            again = bool((mask & found[-1]).sum() > 0.5 * (mask | found[-1]).sum())
            mask = nothing if again or mask.sum() <= 0.01 * mask.numel() else mask
        found.append(mask)
    labels = nothing.long()
    for number in range(objects, 0, -1):
        labels[found[number - 1]] = number
    return labels


IMAGE = [
    "........",
    ".aaa..b.",
    ".aaa..b.",
    ".aaa....",
    "........",
]


def test_kmeans_from_given_centres_by_hand() -> None:
    points = torch.tensor([[0.0], [1.0], [9.0], [11.0]])
    assert kmeans_clusters(points, 2, init=torch.tensor([[0.0], [1.0]])).tolist() == [0, 0, 1, 1]


def test_a_centre_without_points_moves_to_the_farthest_point() -> None:
    points = torch.tensor([[0.0], [1.0], [4.0]])
    assert kmeans_clusters(points, 2, init=torch.tensor([[0.5], [70.0]])).tolist() == [0, 0, 1]


@given(st.integers(5, 30), st.integers(1, 5), seeds)
def test_kmeans_ends_where_each_point_is_nearest_to_the_mean_of_its_cluster(points: int, k: int, seed: int) -> None:
    X = cloud(points, seed)
    cluster = kmeans_clusters(X, k, seed=seed)
    means = torch.stack([X[cluster == index].mean(0) for index in cluster.unique()])
    own = (X - means[cluster.unique(return_inverse=True)[1]]).norm(dim=1)
    torch.testing.assert_close(torch.cdist(X, means).min(1).values, own)


@pytest.mark.parametrize("method", [kmeans, partial(dbscan, radius=1.0)])
def test_without_scikit_learn_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, method: Callable[..., Tensor]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(SettingsError, match=r"sklearn.cluster is not installed: pip install 'walkcut\[evaluation\]'"):
        method(torch.ones(2, 3, 4), size=(2, 3))


def test_kmeans_finds_what_differs() -> None:
    labels = kmeans(painted(IMAGE, 0.05), clusters=3, size=(5, 8))
    assert sorted(map(sorted, by_letter(labels, IMAGE).values())) == [[0], [1], [2]]


@given(st.integers(1, 6), seeds)
def test_kmeans_gives_at_most_the_requested_clusters_and_the_same_each_time(clusters: int, seed: int) -> None:
    features = cloud(12, seed).unflatten(0, (3, 4))
    first, second = (kmeans(features, clusters=clusters, size=(6, 9), seed=seed) for _ in range(2))
    assert first.shape == (6, 9)
    assert int(first.max()) < clusters
    torch.testing.assert_close(first, second)


def test_kmeans_of_equal_patches_is_one_cluster() -> None:
    assert kmeans(torch.ones(2, 3, 4), clusters=3, size=(4, 6)).unique().tolist() == [0]


def test_density_clusters_by_hand() -> None:
    line = torch.tensor([[0.0], [1.0], [2.0], [3.5], [10.0], [11.0], [12.0], [20.0]])
    assert density_clusters(line, radius=1.5, neighbours=3).tolist() == [0, 0, 0, 0, 1, 1, 1, -1]


@given(st.integers(1, 40), st.floats(0.05, 0.5), st.integers(1, 6), seeds)
def test_density_clusters_are_chains_of_cores(points: int, radius: float, neighbours: int, seed: int) -> None:
    X = cloud(points, seed)
    near = [[j for j in range(points) if float((X[i] - X[j]).norm()) <= radius] for i in range(points)]
    cores = {i for i in range(points) if len(near[i]) >= neighbours}
    cluster = density_clusters(X, radius=radius, neighbours=neighbours).tolist()
    for start in cores:
        reached, left = {start}, [start]
        while left:
            fresh = set(near[left.pop()]) & cores - reached
            reached |= fresh
            left += fresh
        assert {core for core in cores if cluster[core] == cluster[start]} == reached
    for i in set(range(points)) - cores:
        assert cluster[i] in ({cluster[core] for core in cores & set(near[i])} or {-1})


def test_distances_far_from_the_origin_are_exact() -> None:
    X = 1000 + cloud(40, 0).float()
    near, exact = (density_clusters(kind, radius=0.15, neighbours=3) for kind in (X, X.double()))
    torch.testing.assert_close(near, exact)


def test_dbscan_finds_what_differs_and_leaves_no_noise() -> None:
    odd = [".......c", *IMAGE[1:]]
    labels = by_letter(dbscan(painted(odd), radius=0.5, neighbours=2, size=(5, 8)), odd)
    assert sorted(map(sorted, (labels[letter] for letter in ".ab"))) == [[0], [1], [2]]
    assert labels["c"] <= {0, 1, 2}


def test_dbscan_of_nothing_but_noise_is_one_segment() -> None:
    assert dbscan(painted(["abc"]), radius=0.1, neighbours=2, size=(2, 6)).unique().tolist() == [0]


def test_tokencut_finds_the_salient_object() -> None:
    image = ["......", ".aa...", ".aa...", "......"]
    assert by_letter(tokencut(painted(image, 0.05), size=(4, 6)), image) == {".": {0}, "a": {1}}


def test_tokencut_takes_one_connected_object() -> None:
    image = [".......", ".aaa.a.", ".aaa.a.", "......."]
    labels = tokencut(painted(image, 0.02), size=(4, 7))
    assert ndimage.label(labels.numpy())[1] == 1


def test_masks_are_enlarged_patch_by_patch() -> None:
    small = tokencut(painted(IMAGE, 0.05), size=(5, 8))
    large = tokencut(painted(IMAGE, 0.05), size=(15, 16))
    torch.testing.assert_close(large, small.repeat_interleave(3, 0).repeat_interleave(2, 1))


@pytest.mark.parametrize("central", [False, True])
@given(seed=seeds)
def test_the_salient_object_is_that_of_the_full_decomposition(seed: int, *, central: bool) -> None:
    features = painted(IMAGE) + torch.rand(5, 8, 3, generator=torch.Generator().manual_seed(seed)) / 2
    found = salient_object(features, threshold=0.5, central=central)
    torch.testing.assert_close(found, salient_by_the_papers(features, 0.5, central=central))


@pytest.mark.parametrize("noise", [0.0, 0.6])
def test_large_graphs_have_the_fiedler_vector_of_the_full_decomposition(noise: float) -> None:
    column = torch.arange(1056) % 33
    part = (column > 8).long() + (column > 18)
    speckle = torch.randn(1056, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    alike = cosine_affinity(torch.eye(6, dtype=torch.float64)[part] + noise * speckle) > 0.5
    A = np.where(alike, 1, 1e-5)
    truth = scipy.linalg.eigh(np.diag(A.sum(1)) - A, np.diag(A.sum(1)), subset_by_index=[1, 1])[1][:, 0]
    vector = _fiedler_vector(alike).numpy()
    largest = np.abs(truth).argmax()
    np.testing.assert_allclose(vector / vector[largest], truth / truth[largest], rtol=0, atol=1e-8)
    np.testing.assert_array_equal(vector, _fiedler_vector(alike))


@pytest.mark.parametrize("features", [torch.ones(4, 5, 3), torch.zeros(4, 5, 3), torch.eye(20).unflatten(0, (4, 5))])
def test_nothing_is_salient_where_all_patches_are_alike_or_none_is_like_another(features: Tensor) -> None:
    assert tokencut(features, size=(8, 10)).unique().tolist() == [0]
    assert maskcut(features, size=(8, 10)).unique().tolist() == [0]


def test_a_cluster_that_wins_no_pixel_leaves_no_gap() -> None:
    features = torch.eye(9).unflatten(0, (3, 3))
    for labels in (kmeans(features, clusters=9, size=(2, 2)), dbscan(features, radius=0.5, neighbours=1, size=(2, 2))):
        assert sorted(labels.flatten().tolist()) == [0, 1, 2, 3]


def test_maskcut_finds_one_object_after_the_other() -> None:
    labels = by_letter(maskcut(painted(IMAGE, 0.05), objects=2, size=(5, 8)), IMAGE)
    assert labels in ({".": {0}, "a": {1}, "b": {2}}, {".": {0}, "a": {2}, "b": {1}})


def test_maskcut_takes_no_side_with_three_corners_for_an_object() -> None:
    image = ["aaaaaa", "a....a", "a....a", "aaaaa."]
    labels = by_letter(maskcut(painted(image, 0.02), objects=1, size=(4, 6)), image)
    assert labels["a"] == {0}
    assert 1 in labels["."]


@settings(max_examples=25)
@given(st.sampled_from([0.0, 0.3, 0.6, 0.9]), seeds)
def test_maskcut_is_that_of_the_authors(threshold: float, seed: int) -> None:
    features = torch.rand(10, 12, 3, generator=torch.Generator().manual_seed(seed)) - 0.4
    labels = maskcut(features, objects=4, threshold=threshold, size=(10, 12))
    torch.testing.assert_close(labels, maskcut_by_the_papers(features, threshold, 4))


@settings(max_examples=20)
@given(st.integers(1, 5), seeds)
def test_maskcut_numbers_its_objects_by_round(objects: int, seed: int) -> None:
    features = cloud(42, seed).unflatten(0, (6, 7)) - 0.5
    fewer, more = (maskcut(features, objects=number, size=(6, 7)) for number in (objects, objects + 1))
    assert set(more.unique().tolist()) <= set(range(objects + 2))
    torch.testing.assert_close(torch.where(more == objects + 1, 0, more), fewer)


@pytest.mark.parametrize("features", [torch.zeros(4, 5, 3), torch.ones(4, 5, 3), torch.eye(20).unflatten(0, (4, 5))])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_extreme_features_are_segmented(features: Tensor, dtype: torch.dtype) -> None:
    features, size = features.to(dtype), (8, 10)
    for labels in (
        kmeans(features, size=size),
        dbscan(features, radius=0.5, size=size),
        tokencut(features, size=size),
        maskcut(features, objects=5, size=size),
    ):
        assert labels.shape == size
        assert labels.dtype == torch.int64
        assert int(labels.min()) >= 0


@pytest.mark.parametrize("clusters", [0, 7])
def test_clusters_that_patches_cannot_make_are_refused(clusters: int) -> None:
    with pytest.raises(SegmentationError, match=f"6 patches make 1 to 6 clusters, not {clusters}"):
        kmeans(torch.ones(2, 3, 4), clusters=clusters, size=(2, 3))


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan")])
def test_a_radius_of_nothing_is_refused(radius: float) -> None:
    with pytest.raises(SegmentationError, match=f"DBSCAN needs a radius above 0, not {radius}"):
        dbscan(torch.ones(2, 3, 4), radius=radius, size=(2, 3))


def test_no_object_is_refused() -> None:
    with pytest.raises(SegmentationError, match="MaskCut needs at least 1 object, not 0"):
        maskcut(torch.ones(2, 3, 4), objects=0, size=(2, 3))


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(SegmentationError, match="features must be finite"):
        tokencut(torch.full((2, 3, 4), torch.nan), size=(2, 3))
