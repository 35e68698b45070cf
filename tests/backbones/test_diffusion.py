"""The backbone on tiny models of every family: its features, and from image to segments."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from jaxtyping import UInt8
from torch import Tensor

from tests.builders.scenes import quarters
from tests.builders.tiny_diffusion import (
    CPU,
    backbone_on,
    largest_difference,
    tiny_architecture,
    tiny_backbone,
    tiny_model,
    write_folder,
)
from walkcut.backbones import Backbone, FeatureKind, Weights
from walkcut.backbones.configs import DIFFSEG, DWC, AttentionConfig
from walkcut.backbones.diffusion import DiffusionBackbone, attention_layers, load_diffusion
from walkcut.backbones.diffusion_model import random_model
from walkcut.errors import SegmentationError, SettingsError
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.segmentation.presets import find_preset
from walkcut.segmentation.segmenter import Segmenter

MAPS: frozenset[FeatureKind] = frozenset({"attention_maps"})
FEATURES: frozenset[FeatureKind] = frozenset({"feature_map"})
BOTH = MAPS | FEATURES


def make_image(height: int = 96, width: int = 160, seed: int = 0) -> UInt8[Tensor, "y x 3"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def backbone() -> DiffusionBackbone:
    return tiny_backbone("sd14")


@pytest.mark.parametrize(
    ("family", "grids", "shape"),
    [
        ("sd14", [(4, 4), (8, 8), (16, 16)], (16, 4, 4)),
        ("sd15", [(4, 4), (8, 8), (16, 16)], (16, 4, 4)),
        ("sd21", [(4, 4), (8, 8), (16, 16)], (16, 4, 4)),
        ("ssd1b", [(3, 5), (6, 10)], (16, 3, 5)),
        ("sdxl", [(3, 5), (6, 10)], (16, 3, 5)),
    ],
)
@pytest.mark.parametrize("processor", [AttnProcessor, AttnProcessor2_0])
def test_every_family_gives_maps_and_features(
    family: str, grids: list[tuple[int, int]], shape: tuple[int, ...], processor: type
) -> None:
    backbone = tiny_backbone(family)
    backbone.model.unet.set_attn_processor(processor())
    features = backbone.extract(make_image(99, 151), BOTH)
    assert [level.grid for level in features.attention_maps] == grids
    for level in features.attention_maps:
        torch.testing.assert_close(level.weights.sum(1), torch.ones(len(level.weights)))
        assert level.weights.min() >= 0
        assert level.weights.dtype == torch.float32
    assert features.feature_map is not None
    assert features.feature_map.shape == shape
    assert features.contour is None


def test_both_processors_give_the_same_features(backbone: DiffusionBackbone) -> None:
    features = []
    for processor in (AttnProcessor, AttnProcessor2_0):
        backbone.model.unet.set_attn_processor(processor())
        features.append(backbone.extract(make_image(), BOTH))
    assert largest_difference(*features) < 1e-4


@pytest.mark.parametrize("family", ["sd14", "ssd1b"])
def test_a_batch_is_as_its_images_one_by_one(family: str) -> None:
    backbone = tiny_backbone(family, DIFFSEG)
    images = [make_image(seed=seed) for seed in range(3)]
    batch = backbone.extract_batch(images, BOTH)
    singles = [backbone.extract(image, BOTH) for image in images]
    assert largest_difference(singles[0], singles[1]) > 0.01
    for batched, single in zip(batch, singles, strict=True):
        assert largest_difference(batched, single) < 1e-4


@pytest.mark.parametrize(("method", "kinds"), [("ncut", MAPS), ("diffseg", MAPS), ("diffcut", FEATURES)])
def test_a_batch_is_labelled_as_its_images_one_by_one(method: str, kinds: frozenset[FeatureKind]) -> None:
    preset = find_preset(method)
    backbone = tiny_backbone("sd14", preset.attention or DWC)
    images = [torch.from_numpy(quarters(96, 160, noise=noise)) for noise in (2, 20, 40)]
    for features, image in zip(backbone.extract_batch(images, kinds), images, strict=True):
        labels = preset.method.build_tree(features, image).labels(Level.AUTO)
        alone = Segmenter(backbone, preset).segment(image.numpy()).labels(Level.AUTO)
        assert labels.tolist() == alone.tolist()


def test_images_of_any_sizes_share_passes_at_one_working_size(backbone: DiffusionBackbone) -> None:
    sizes = [(96, 160), (160, 96), (95, 155), (16, 400), (300, 500)]  # the first, third and last at 128×192
    images = [make_image(*size, seed=seed) for seed, size in enumerate(sizes)]
    shapes: list[tuple[int, ...]] = []
    handle = backbone.model.autoencoder.encoder.register_forward_pre_hook(
        lambda _module, inputs: shapes.append(tuple(inputs[0].shape))
    )
    batch = backbone.extract_batch(images, MAPS)
    handle.remove()
    assert shapes == [(3, 3, 128, 192), (1, 3, 192, 128), (1, 3, 64, 256)]
    for batched, image in zip(batch, images, strict=True):
        assert largest_difference(batched, backbone.extract(image, MAPS)) < 1e-4
        assert batched.degradations == ()


def test_no_images_give_no_features(backbone: DiffusionBackbone) -> None:
    assert backbone.extract_batch([], BOTH) == ()
    assert backbone.extract_batch([], frozenset()) == ()


@pytest.mark.parametrize("size", [(16, 700), (700, 16), (17, 31), (16, 16)], ids=str)
def test_odd_aspects_are_no_error(size: tuple[int, int], backbone: DiffusionBackbone) -> None:
    features = backbone.extract(make_image(*size), BOTH)
    for level in features.attention_maps:
        assert (level.grid[0] - level.grid[1]) * (size[0] - size[1]) >= 0
        torch.testing.assert_close(level.weights.sum(1), torch.ones(level.grid[0] * level.grid[1]))


@pytest.mark.parametrize(("factor", "patches"), [(0.0, 96), (1e6, 6)], ids=["uniform", "one-hot"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_attention_still_sums_to_one(factor: float, patches: int, dtype: torch.dtype) -> None:
    model = tiny_model("sd14", dtype=dtype)
    for layers in attention_layers(model, DWC).values():
        for layer in layers:
            layer.to_q.get_parameter("weight").mul_(factor)
    level = backbone_on(model).extract(make_image(), MAPS).attention_maps[1]
    assert (level.weights > 1e-3).sum(1).max() == patches  # by no more than two heads in each of three layers
    torch.testing.assert_close(level.weights.sum(1), torch.ones(96))


def test_passes_are_spans(backbone: DiffusionBackbone, stages: list[str]) -> None:
    replace(backbone, attention=replace(DWC, ddim_inversion=True)).extract(make_image(), MAPS)
    assert stages == ["VAE", "/VAE", "U-Net", "/U-Net"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_to_full(dtype: torch.dtype, backbone: DiffusionBackbone) -> None:
    half = backbone_on(tiny_model("sd14", dtype=dtype)).extract(make_image(), BOTH)
    full = backbone.extract(make_image(), BOTH)
    assert [level.weights.dtype for level in half.attention_maps] == [torch.float32] * 3
    assert 0 < largest_difference(half, full) < 0.1


@pytest.mark.parametrize(
    ("family", "attention", "layers"),
    [
        ("sd14", DIFFSEG, {0: 5, 1: 5, 2: 5, 3: 1}),
        ("sd14", DWC, {0: 3, 1: 3, 2: 3}),
        ("sd14", replace(DWC, levels=(8, 64)), {0: 3, 3: 1}),
        ("ssd1b", DWC, {1: 4, 2: 18}),
        ("sdxl", DIFFSEG, {1: 10, 2: 60}),
        ("sdxl", replace(DWC, levels=(32,)), {1: 6}),
    ],
)
def test_layers_that_are_read(family: str, attention: AttentionConfig, layers: dict[int, int]) -> None:
    selected = attention_layers(tiny_model(family), attention)
    assert {depth: len(at_depth) for depth, at_depth in sorted(selected.items())} == layers


def test_maps_come_from_coarse_to_fine(backbone: DiffusionBackbone) -> None:
    maps = replace(backbone, attention=DIFFSEG).extract(make_image(), MAPS).attention_maps
    assert [level.grid for level in maps] == [(2, 3), (4, 6), (8, 12), (16, 24)]


def test_only_requested_kinds_are_computed(backbone: DiffusionBackbone) -> None:
    calls: Counter[str] = Counter()
    networks = {"unet": backbone.model.unet, "encoder": backbone.model.autoencoder.encoder}
    networks["decoder"] = backbone.model.unet.up_blocks[0]
    handles = [
        network.register_forward_pre_hook(lambda _module, _inputs, name=name: calls.update([name]))
        for name, network in networks.items()
    ]
    requests: dict[frozenset[FeatureKind], dict[str, int]] = {
        frozenset({"contour"}): {},
        FEATURES: {"encoder": 1, "unet": 1},
        MAPS: {"encoder": 1, "unet": 1, "decoder": 1},
        BOTH: {"encoder": 2, "unet": 2, "decoder": 1},
    }
    for kinds, expected in requests.items():
        calls.clear()
        features = backbone.extract(make_image(), kinds)
        assert calls == expected
        assert bool(features.attention_maps) == ("attention_maps" in kinds)
        assert (features.feature_map is not None) == ("feature_map" in kinds)
    for handle in handles:
        handle.remove()


def test_inversion_changes_the_features_and_takes_ten_more_passes(backbone: DiffusionBackbone) -> None:
    inverting = replace(backbone, attention=replace(DWC, ddim_inversion=True))
    timesteps: list[int] = []
    handle = backbone.model.unet.register_forward_pre_hook(lambda _module, inputs: timesteps.append(inputs[1]))
    inverted = inverting.extract(make_image(), MAPS)
    handle.remove()
    assert timesteps == [*range(1, 182, 20), 181]
    plain = backbone.extract(make_image(), MAPS)
    assert not torch.allclose(inverted.attention_maps[2].weights, plain.attention_maps[2].weights, atol=1e-3)


def test_the_same_image_gives_the_same_features_bit_for_bit(backbone: DiffusionBackbone) -> None:
    assert largest_difference(*(backbone.extract(make_image(), BOTH) for _ in range(2))) == 0


def test_it_is_a_backbone_whose_version_contains_model_precision_and_settings(backbone: DiffusionBackbone) -> None:
    others = [
        tiny_backbone("sd21"),
        backbone_on(tiny_model("sd14", dtype=torch.bfloat16)),
        replace(backbone, attention=DIFFSEG),
        replace(backbone, features=replace(backbone.features, seed=1)),
    ]
    assert isinstance(backbone, Backbone)
    assert tiny_backbone("sd14").version == backbone.version
    assert len({variant.version for variant in (backbone, *others)}) == 5


def test_levels_that_no_layer_has_are_refused() -> None:
    with pytest.raises(SettingsError, match="sdxl-random has no self-attention at the levels 8, 64: choose others"):
        tiny_backbone("sdxl", replace(DWC, levels=(8, 64))).extract(make_image(), MAPS)


def test_a_model_without_self_attention_is_refused() -> None:
    architecture = tiny_architecture("sd14")
    blocks = {"down_block_types": ("DownBlock2D",) * 4, "up_block_types": ("UpBlock2D",) * 4}
    bare = replace(architecture, unet={**architecture.unet, **blocks, "mid_block_type": "UNetMidBlock2D"})
    backbone = backbone_on(random_model("bare", bare, dtype=torch.float32, device=CPU))
    with pytest.raises(SettingsError, match="bare-random has no self-attention at the levels 16, 32, 64"):
        backbone.extract(make_image(), MAPS)
    with pytest.raises(SettingsError, match="the encoder of bare-random has no self-attention: choose another model"):
        backbone.extract(make_image(), FEATURES)


@pytest.mark.parametrize("kinds", [MAPS, FEATURES], ids=["attention_maps", "feature_map"])
def test_overflow_is_an_error(kinds: frozenset[FeatureKind]) -> None:
    model = tiny_model("sd14")
    model.unet.conv_in.weight.fill_(torch.inf)
    with pytest.raises(SegmentationError, match=r"sd14-random .* overflowed: set the precision to bfloat16 or float32"):
        backbone_on(model).extract(make_image(), kinds)


def test_a_model_is_loaded_from_its_folder(tmp_path: Path) -> None:
    backbone = load_diffusion(str(write_folder(tmp_path / "tiny", "sdxl")), Weights(dtype=torch.bfloat16), CPU)
    assert backbone.model.unet.dtype == torch.bfloat16
    assert [level.grid for level in backbone.extract(make_image(), MAPS).attention_maps] == [(3, 5), (6, 10)]


@pytest.mark.parametrize("is_random", [True, False])
def test_a_precision_beyond_the_device_is_refused(*, is_random: bool) -> None:
    with pytest.raises(SettingsError, match="choose float32"):
        load_diffusion("sd14", Weights(dtype=torch.float8_e5m2, random=is_random), CPU)


def test_only_named_models_have_random_weights() -> None:
    with pytest.raises(
        SettingsError, match=r"unknown architecture 'a/b' for random weights: choose one of sd14, .*, dino"
    ):
        load_diffusion("a/b", Weights(random=True), CPU)


@pytest.mark.parametrize("family", ["sd14", "ssd1b"])
def test_an_image_is_segmented(family: str) -> None:
    image = quarters(72, 120)
    tree = Segmenter(tiny_backbone(family), find_preset("ncut")).segment(image)
    labels = tree.labels(Segments(4))
    assert labels.shape == (72, 120)
    assert len(np.unique(labels)) == 4


def test_the_error_for_a_missing_contour_lists_other_methods(backbone: DiffusionBackbone) -> None:
    with pytest.raises(SettingsError, match=r"the method merge needs contour, .* choose one of ncut, diffcut"):
        Segmenter(backbone, find_preset("merge"))
