"""The network of holistically-nested edges against the program it comes from, and the backbone around it."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.builders.hed import keras_arrays, scene
from tests.builders.tiny_diffusion import CPU
from walkcut.backbones import Backbone, FeatureKind, ImageFeatures, Weights, load_backbone
from walkcut.backbones.classical import ClassicalBackbone
from walkcut.backbones.hed import HedBackbone, HedNetwork, load_hed
from walkcut.backbones.hed_weights import rename_weights
from walkcut.errors import SegmentationError, SettingsError
from walkcut.hierarchy.merge_rule import MergeRule
from walkcut.models import hed_file
from walkcut.settings import read_settings

KINDS: tuple[FeatureKind, ...] = ("attention_maps", "feature_map", "contour")
REFERENCE = Path(__file__).with_name("hed_reference.npz")
PUBLISHED = hed_file(read_settings().weights_dir)


@pytest.fixture(scope="module")
def backbone() -> HedBackbone:
    """Weights of the recipe; the network sees 64 pixels."""
    network = HedNetwork().eval().requires_grad_(requires_grad=False)
    network.load_state_dict(rename_weights(keras_arrays()))
    return HedBackbone(network, "recipe", max_side=64)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, backbone: HedBackbone) -> Path:
    """A folder with the weights of the recipe."""
    folder = tmp_path_factory.mktemp("weights")
    save_file(backbone.network.state_dict(), hed_file(folder))
    return folder


@pytest.fixture
def overflowing(backbone: HedBackbone) -> HedBackbone:
    """A network of infinite weights."""
    network = HedNetwork().requires_grad_(requires_grad=False)
    for weights in network.parameters():
        weights.fill_(torch.inf)
    return replace(backbone, network=network)


def make_image(height: int, width: int) -> UInt8[Tensor, "y x 3"]:
    return torch.tensor(scene(64, 64)).repeat(-(-height // 64), -(-width // 64), 1)[:height, :width].contiguous()


def check_maps(backbone: HedBackbone, image: np.ndarray, name: str) -> None:
    """Compare all six maps, and the contour made of them, with those of the package's program."""
    outputs: list[Tensor] = []
    handle = backbone.network.register_forward_hook(lambda _module, _inputs, output: outputs.append(output[0]))
    contour = backbone.contour(torch.tensor(image))
    handle.remove()
    expected = torch.tensor(np.load(REFERENCE)[name] / 65535).float()
    torch.testing.assert_close(outputs[0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(contour, expected[5] / 2 + expected.sum(0) / 12, atol=1e-4, rtol=0)


def test_maps_of_any_weights_are_those_of_the_packages_program(backbone: HedBackbone) -> None:
    check_maps(backbone, scene(37, 51), "recipe")


@pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"{PUBLISHED} is missing: run `walkcut models fetch hed`")
def test_maps_of_the_published_weights_are_those_of_the_packages_program() -> None:
    check_maps(load_hed(Weights(PUBLISHED.parent), CPU), scene(64, 48), "published")


def test_it_is_a_backbone_whose_version_contains_its_settings(backbone: HedBackbone) -> None:
    random = load_backbone("hed", weights=Weights(random=True))
    assert isinstance(random, Backbone)
    assert random.version == f"hed-1 random torch.float32 max_side=512 {ClassicalBackbone().version}"
    versions = {backbone.version, replace(backbone, max_side=65).version}
    assert len(versions | {replace(backbone, classical=ClassicalBackbone(working_side=128)).version}) == 3


@pytest.mark.parametrize(
    ("size", "seen"),
    [((1, 1), (1, 1)), ((3, 200), (3, 64)), ((40, 56), (40, 56)), ((300, 150), (64, 32)), ((20, 640), (16, 64))],
)
def test_the_contour_has_the_size_that_the_network_sees(
    size: tuple[int, int], seen: tuple[int, int], backbone: HedBackbone
) -> None:
    contour = backbone.contour(make_image(*size))
    assert contour.shape == seen
    assert 0 <= contour.min() <= contour.max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (16, 16), (270, 300)])
def test_features_of_any_size_have_the_working_size_of_the_classical_model(
    size: tuple[int, int], backbone: HedBackbone
) -> None:
    features = backbone.extract(make_image(*size), frozenset(KINDS))
    histograms = backbone.classical.histograms(make_image(*size))
    assert features.feature_map is not None
    assert torch.equal(features.feature_map, histograms)
    assert features.contour is not None
    assert features.contour.shape == histograms.shape[1:]
    assert 0 <= features.contour.min() <= features.contour.max() <= 1
    (step,) = features.attention_maps
    torch.testing.assert_close(step.weights.sum(1), torch.ones(len(step.weights)))


@pytest.mark.parametrize("kinds", [kinds for count in range(4) for kinds in combinations(KINDS, count)])
def test_only_requested_kinds_are_returned(
    kinds: Sequence[FeatureKind], backbone: HedBackbone, stages: list[str]
) -> None:
    features = backbone.extract(make_image(20, 30), frozenset(kinds))
    given = (bool(features.attention_maps), features.feature_map is not None, features.contour is not None)
    assert given == tuple(kind in kinds for kind in KINDS)
    model = ["model", "/model"] if {"attention_maps", "contour"} & set(kinds) else []
    assert stages == ["features", *model, "/features"]


def test_the_merge_rule_stays_with_the_contour(backbone: HedBackbone) -> None:
    features = backbone.extract(make_image(20, 30), frozenset({"contour"}))
    assert features.merge_rule != MergeRule()
    assert features.merged_with(ImageFeatures()).merge_rule == features.merge_rule
    assert ImageFeatures().merged_with(features).merge_rule == features.merge_rule


def test_random_weights_are_the_same_and_leave_torchs_generator_alone() -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        states.append(load_hed(Weights(random=True), CPU).network.state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_version_changes_with_the_weights(backbone: HedBackbone, written: Path, tmp_path: Path) -> None:
    loaded = load_hed(Weights(written), CPU)
    image = make_image(20, 30)
    assert torch.equal(replace(loaded, max_side=64).contour(image), backbone.contour(image))
    weights = load_file(hed_file(written))
    weights["fuse.bias"] += 1
    save_file(weights, hed_file(tmp_path))
    other, half = (load_hed(Weights(*given), CPU) for given in ((tmp_path,), (written, torch.bfloat16)))
    assert len({loaded.version, other.version, half.version, load_hed(Weights(random=True), CPU).version}) == 4
    assert load_hed(Weights(written), CPU).version == loaded.version


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same_contour(dtype: torch.dtype, backbone: HedBackbone, written: Path) -> None:
    half = replace(load_hed(Weights(written, dtype), CPU), max_side=64).contour(make_image(40, 56))
    torch.testing.assert_close(half, backbone.contour(make_image(40, 56)), atol=0.02, rtol=0)


def test_a_precision_that_the_device_cannot_compute_in_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"cpu cannot compute in torch\.float8_e5m2: choose float32"):
        load_hed(Weights(dtype=torch.float8_e5m2, random=True), CPU)


def test_overflow_is_an_error(overflowing: HedBackbone) -> None:
    with pytest.raises(SegmentationError, match=r"hed-1 recipe .* overflowed: set the precision"):
        overflowing.contour(make_image(20, 30))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"stages.0.0.weight": torch.zeros(64, 3, 3, 3)}, hed_file(tmp_path))
    with pytest.raises(SettingsError, match=r"hed\.safetensors is not of this network: run `walkcut models fetch hed`"):
        load_hed(Weights(tmp_path), CPU)
