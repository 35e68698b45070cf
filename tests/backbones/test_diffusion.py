"""The extractor on tiny models of every family: its evidence, and the whole way to segments."""

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
    extractor_on,
    largest_difference,
    tiny_architecture,
    tiny_extractor,
    tiny_model,
    write_folder,
)
from walkcut.backbones import Extractor, Part
from walkcut.backbones.diffusion import DiffusionExtractor, attention_layers, load_diffusion
from walkcut.backbones.diffusion_model import random_model
from walkcut.backbones.presets import DIFFSEG, DWC, AttentionPass
from walkcut.errors import SegmentationError, SettingsError
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.segmentation.presets import read_recipe
from walkcut.segmentation.segmenter import Segmenter

MAPS: frozenset[Part] = frozenset({"maps"})
FEATURES: frozenset[Part] = frozenset({"features"})
BOTH = MAPS | FEATURES


def picture(height: int = 96, width: int = 160, seed: int = 0) -> UInt8[Tensor, "y x 3"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def extractor() -> DiffusionExtractor:
    return tiny_extractor("sd14")


@pytest.mark.parametrize(
    ("family", "grids", "features"),
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
    family: str, grids: list[tuple[int, int]], features: tuple[int, ...], processor: type
) -> None:
    extractor = tiny_extractor(family)
    extractor.model.unet.set_attn_processor(processor())
    evidence = extractor.extract(picture(99, 151), BOTH)
    assert [level.grid for level in evidence.maps] == grids
    for level in evidence.maps:
        torch.testing.assert_close(level.weights.sum(1), torch.ones(len(level.weights)))
        assert level.weights.min() >= 0
        assert level.weights.dtype == torch.float32
    assert evidence.features is not None
    assert evidence.features.shape == features
    assert evidence.contour is None


def test_both_processors_give_the_same_evidence(extractor: DiffusionExtractor) -> None:
    found = []
    for processor in (AttnProcessor, AttnProcessor2_0):
        extractor.model.unet.set_attn_processor(processor())
        found.append(extractor.extract(picture(), BOTH))
    assert largest_difference(*found) < 1e-4


@pytest.mark.parametrize("family", ["sd14", "ssd1b"])
def test_a_batch_is_as_its_pictures_one_by_one(family: str) -> None:
    extractor = tiny_extractor(family, DIFFSEG)
    pictures = [picture(seed=seed) for seed in range(3)]
    batch = extractor.extract_batch(pictures, BOTH)
    singles = [extractor.extract(each, BOTH) for each in pictures]
    assert largest_difference(singles[0], singles[1]) > 0.01
    for own, alone in zip(batch, singles, strict=True):
        assert largest_difference(own, alone) < 1e-4


@pytest.mark.parametrize(("method", "part"), [("ncut", MAPS), ("diffseg", MAPS), ("diffcut", FEATURES)])
def test_a_batch_is_labelled_as_its_pictures_one_by_one(method: str, part: frozenset[Part]) -> None:
    recipe = read_recipe(method)
    extractor = tiny_extractor("sd14", recipe.attention or DWC)
    pictures = [torch.from_numpy(quarters(96, 160, noise=noise)) for noise in (2, 20, 40)]
    for evidence, image in zip(extractor.extract_batch(pictures, part), pictures, strict=True):
        labels = recipe.method.tree(evidence, image).labels(Level.AUTO)
        alone = Segmenter(extractor, recipe).tree(image.numpy()).labels(Level.AUTO)
        assert labels.tolist() == alone.tolist()


def test_pictures_of_any_sizes_share_passes_where_they_are_seen_at_one_size(extractor: DiffusionExtractor) -> None:
    sizes = [(96, 160), (160, 96), (95, 155), (16, 400), (300, 500)]  # the first, third and last at 128×192
    pictures = [picture(*size, seed=seed) for seed, size in enumerate(sizes)]
    shapes: list[tuple[int, ...]] = []
    handle = extractor.model.autoencoder.encoder.register_forward_pre_hook(
        lambda _module, inputs: shapes.append(tuple(inputs[0].shape))
    )
    batch = extractor.extract_batch(pictures, MAPS)
    handle.remove()
    assert shapes == [(3, 3, 128, 192), (1, 3, 192, 128), (1, 3, 64, 256)]
    for own, image in zip(batch, pictures, strict=True):
        assert largest_difference(own, extractor.extract(image, MAPS)) < 1e-4
        assert own.concessions == ()


def test_no_pictures_give_no_evidence(extractor: DiffusionExtractor) -> None:
    assert extractor.extract_batch([], BOTH) == ()
    assert extractor.extract_batch([], frozenset()) == ()


@pytest.mark.parametrize("size", [(16, 700), (700, 16), (17, 31), (16, 16)], ids=str)
def test_odd_aspects_are_no_error(size: tuple[int, int], extractor: DiffusionExtractor) -> None:
    evidence = extractor.extract(picture(*size), BOTH)
    for level in evidence.maps:
        assert (level.grid[0] - level.grid[1]) * (size[0] - size[1]) >= 0
        torch.testing.assert_close(level.weights.sum(1), torch.ones(level.grid[0] * level.grid[1]))


@pytest.mark.parametrize(("factor", "seen"), [(0.0, 96), (1e6, 6)], ids=["uniform", "one-hot"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_attention_still_sums_to_one(factor: float, seen: int, dtype: torch.dtype) -> None:
    model = tiny_model("sd14", dtype=dtype)
    for layers in attention_layers(model, DWC).values():
        for layer in layers:
            layer.to_q.get_parameter("weight").mul_(factor)
    level = extractor_on(model).extract(picture(), MAPS).maps[1]
    assert (level.weights > 1e-3).sum(1).max() == seen  # by no more than two heads in each of three layers
    torch.testing.assert_close(level.weights.sum(1), torch.ones(96))


def test_the_stages_of_the_work_are_marked(extractor: DiffusionExtractor, stages: list[str]) -> None:
    replace(extractor, attention=replace(DWC, inverted=True)).extract(picture(), MAPS)
    assert stages == ["VAE", "/VAE", "U-Net", "/U-Net"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_to_full(dtype: torch.dtype, extractor: DiffusionExtractor) -> None:
    half = extractor_on(tiny_model("sd14", dtype=dtype)).extract(picture(), BOTH)
    full = extractor.extract(picture(), BOTH)
    assert [level.weights.dtype for level in half.maps] == [torch.float32] * 3
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
def test_layers_that_are_read(family: str, attention: AttentionPass, layers: dict[int, int]) -> None:
    found = attention_layers(tiny_model(family), attention)
    assert {depth: len(some) for depth, some in sorted(found.items())} == layers


def test_maps_come_from_coarse_to_fine(extractor: DiffusionExtractor) -> None:
    maps = replace(extractor, attention=DIFFSEG).extract(picture(), MAPS).maps
    assert [level.grid for level in maps] == [(2, 3), (4, 6), (8, 12), (16, 24)]


def test_only_what_is_asked_for_is_computed(extractor: DiffusionExtractor) -> None:
    calls: Counter[str] = Counter()
    networks = {"unet": extractor.model.unet, "encoder": extractor.model.autoencoder.encoder}
    networks["decoder"] = extractor.model.unet.up_blocks[0]
    handles = [
        network.register_forward_pre_hook(lambda _module, _inputs, name=name: calls.update([name]))
        for name, network in networks.items()
    ]
    wanted: dict[frozenset[Part], dict[str, int]] = {
        frozenset({"contour"}): {},
        FEATURES: {"encoder": 1, "unet": 1},
        MAPS: {"encoder": 1, "unet": 1, "decoder": 1},
        BOTH: {"encoder": 2, "unet": 2, "decoder": 1},
    }
    for parts, expected in wanted.items():
        calls.clear()
        evidence = extractor.extract(picture(), parts)
        assert calls == expected
        assert bool(evidence.maps) == ("maps" in parts)
        assert (evidence.features is not None) == ("features" in parts)
    for handle in handles:
        handle.remove()


def test_inversion_changes_the_evidence_and_takes_ten_passes_more(extractor: DiffusionExtractor) -> None:
    inverted = replace(extractor, attention=replace(DWC, inverted=True))
    timesteps: list[int] = []
    handle = extractor.model.unet.register_forward_pre_hook(lambda _module, inputs: timesteps.append(inputs[1]))
    found = inverted.extract(picture(), MAPS)
    handle.remove()
    assert timesteps == [*range(1, 182, 20), 181]
    assert not torch.allclose(found.maps[2].weights, extractor.extract(picture(), MAPS).maps[2].weights, atol=1e-3)


def test_the_same_picture_gives_the_same_evidence_bit_for_bit(extractor: DiffusionExtractor) -> None:
    assert largest_difference(*(extractor.extract(picture(), BOTH) for _ in range(2))) == 0


def test_it_is_an_extractor_whose_version_tells_model_precision_and_settings(extractor: DiffusionExtractor) -> None:
    others = [
        tiny_extractor("sd21"),
        extractor_on(tiny_model("sd14", dtype=torch.bfloat16)),
        replace(extractor, attention=DIFFSEG),
        replace(extractor, features=replace(extractor.features, seed=1)),
    ]
    assert isinstance(extractor, Extractor)
    assert tiny_extractor("sd14").version == extractor.version
    assert len({each.version for each in (extractor, *others)}) == 5


def test_levels_that_no_layer_has_are_refused() -> None:
    with pytest.raises(SettingsError, match="sdxl-random has no self-attention at the levels 8, 64: choose others"):
        tiny_extractor("sdxl", replace(DWC, levels=(8, 64))).extract(picture(), MAPS)


def test_a_model_without_self_attention_is_refused() -> None:
    whole = tiny_architecture("sd14")
    blocks = {"down_block_types": ("DownBlock2D",) * 4, "up_block_types": ("UpBlock2D",) * 4}
    bare = replace(whole, unet={**whole.unet, **blocks, "mid_block_type": "UNetMidBlock2D"})
    extractor = extractor_on(random_model("bare", bare, dtype=torch.float32, device=CPU))
    with pytest.raises(SettingsError, match="bare-random has no self-attention at the levels 16, 32, 64"):
        extractor.extract(picture(), MAPS)
    with pytest.raises(SettingsError, match="the encoder of bare-random has no self-attention: choose another model"):
        extractor.extract(picture(), FEATURES)


@pytest.mark.parametrize("part", [MAPS, FEATURES], ids=["maps", "features"])
def test_numbers_beyond_the_precision_are_an_error_and_no_evidence(part: frozenset[Part]) -> None:
    model = tiny_model("sd14")
    model.unet.conv_in.weight.fill_(torch.inf)
    with pytest.raises(SegmentationError, match=r"sd14-random .* overflowed: choose the precision bfloat16 or float32"):
        extractor_on(model).extract(picture(), part)


def test_a_model_is_loaded_from_its_folder(tmp_path: Path) -> None:
    extractor = load_diffusion(str(write_folder(tmp_path / "tiny", "sdxl")), device=CPU, dtype=torch.bfloat16)
    assert extractor.model.unet.dtype == torch.bfloat16
    assert [level.grid for level in extractor.extract(picture(), MAPS).maps] == [(3, 5), (6, 10)]


def test_only_families_can_be_filled_with_random_weights(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no model '.*' to fill with random weights: choose one of sd14"):
        load_diffusion(str(tmp_path), device=CPU, random_weights=True)


@pytest.mark.parametrize("family", ["sd14", "ssd1b"])
def test_the_whole_way_to_segments(family: str) -> None:
    image = quarters(72, 120)
    tree = Segmenter(tiny_extractor(family), read_recipe("ncut")).tree(image)
    labels = tree.labels(Segments(4))
    assert labels.shape == (72, 120)
    assert len(np.unique(labels)) == 4


def test_methods_that_need_a_contour_say_what_to_choose(extractor: DiffusionExtractor) -> None:
    with pytest.raises(SettingsError, match=r"the method merge needs contour, .* choose one of ncut, diffcut"):
        Segmenter(extractor, read_recipe("merge"))
