"""DINO with random weights: its attention between patches, and loading its weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from jaxtyping import UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.builders.scenes import quarters
from tests.builders.tiny_diffusion import CPU
from walkcut.backbones import Backbone, FeatureKind, Weights
from walkcut.backbones.dino import DinoBackbone, between_patches, load_dino
from walkcut.errors import SegmentationError, SettingsError
from walkcut.hierarchy.granularity import Segments
from walkcut.segmentation.presets import find_preset
from walkcut.segmentation.segmenter import Segmenter

TINY = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "patch_size": 8, "num_hidden_layers": 3}
BOTH: frozenset[FeatureKind] = frozenset({"attention_maps", "feature_map"})


@pytest.fixture
def backbone() -> DinoBackbone:
    tiny = load_dino(Weights(random=True), CPU, TINY)
    for name, weights in tiny.network.named_parameters():
        if name.endswith("weight") and "norm" not in name:
            weights.mul_(20)
    return tiny


def make_image(height: int = 96, width: int = 160) -> UInt8[Tensor, "y x 3"]:
    return torch.tensor(quarters(height, width))


@pytest.mark.parametrize(("size", "grid"), [((224, 224), (28, 28)), ((90, 250), (17, 47)), ((16, 16), (28, 28))])
def test_one_map_and_features_of_its_grid(size: tuple[int, int], grid: tuple[int, int]) -> None:
    features = load_dino(Weights(random=True), CPU, TINY).extract(make_image(*size), BOTH)
    (attention,) = features.attention_maps
    assert attention.grid == grid
    torch.testing.assert_close(attention.weights.sum(1), torch.ones(grid[0] * grid[1]))
    assert features.feature_map is not None
    assert features.feature_map.shape == (8, *grid)
    assert features.contour is None


@pytest.mark.parametrize("layers", [1, 3])
@torch.no_grad()
def test_maps_are_those_of_transformers(layers: int, backbone: DinoBackbone) -> None:
    features = DinoBackbone(backbone.network, "", layers=layers).extract(make_image(), frozenset({"attention_maps"}))
    weights = features.attention_maps[0].weights
    backbone.network.set_attn_implementation("eager")
    pixels = backbone._preprocess(make_image())
    output = backbone.network(pixels, interpolate_pos_encoding=True, output_attentions=True)
    mean = torch.stack(output.attentions[-layers:]).mean((0, 1, 2))
    torch.testing.assert_close(weights, between_patches(mean), atol=1e-6, rtol=1e-4)
    assert weights.max() > 1.3 * weights.mean()  # far from uniform


def test_features_are_the_last_layers_keys_of_the_patches(backbone: DinoBackbone) -> None:
    outputs: list[Tensor] = []
    projection = backbone._projections()[-1].to_k
    handle = projection.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    feature_map = backbone.extract(make_image(), frozenset({"feature_map"})).feature_map
    handle.remove()
    assert feature_map is not None
    assert torch.equal(feature_map.flatten(1).T, outputs[0][0, 1:])


def test_colours_are_normalised_as_in_training(backbone: DinoBackbone) -> None:
    pixels = backbone._preprocess(torch.full((224, 224, 3), 255, dtype=torch.uint8))
    torch.testing.assert_close(pixels[0, :, 5, 5], torch.tensor([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]))


def test_the_first_token_is_dropped() -> None:
    attention = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.6, 0.2], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(between_patches(attention), torch.tensor([[0.75, 0.25], [0.5, 0.5]]))


def test_it_is_a_backbone_whose_version_contains_its_settings(backbone: DinoBackbone) -> None:
    assert isinstance(backbone, Backbone)
    assert backbone.version == "dino-1 random torch.float32 side=224 layers=1"
    assert backbone.extract(make_image(), frozenset()).attention_maps == ()


def test_passes_are_spans(backbone: DinoBackbone, stages: list[str]) -> None:
    backbone.extract(make_image(), BOTH)
    assert stages == ["model", "/model"] * 2


def test_overflow_is_an_error(backbone: DinoBackbone) -> None:
    for weights in backbone.network.parameters():
        weights.fill_(torch.inf)
    kinds: tuple[FeatureKind, ...] = ("attention_maps", "feature_map")
    for kind in kinds:
        with pytest.raises(SegmentationError, match=r"dino-1 random .* overflowed"):
            backbone.extract(make_image(), frozenset({kind}))


def test_an_image_is_segmented(backbone: DinoBackbone) -> None:
    labels = Segmenter(backbone, find_preset("ncut")).segment(quarters(72, 120)).labels(Segments(4))
    assert labels.shape == (72, 120)
    assert len(np.unique(labels)) == 4


def test_weights_are_loaded_from_their_folder(backbone: DinoBackbone, tmp_path: Path) -> None:
    backbone.network.save_pretrained(tmp_path / "dino")
    loaded = load_dino(Weights(tmp_path, torch.bfloat16), CPU)
    assert loaded.network.dtype == torch.bfloat16
    assert loaded.version.startswith("dino-1 vits8-")
    assert loaded.extract(make_image(), BOTH).attention_maps[0].grid == (22, 36)


def test_missing_and_damaged_weights_are_named(
    backbone: DinoBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> Any:
        return load_dino(Weights(tmp_path), CPU)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        SettingsError, match=r"run `hf download facebook/dino-vits8 config.json model.safetensors --loc"
    ):
        load()
    backbone.network.save_pretrained(tmp_path / "dino")
    file = tmp_path / "dino" / "model.safetensors"
    weights = load_file(file)
    save_file({name: value for name, value in weights.items() if name != "layernorm.bias"}, file, {"format": "pt"})
    with pytest.raises(SettingsError, match=r"dino/model\.safetensors lacks layernorm\.bias: fetch it again"):
        load()
    file.write_bytes(b"nothing")
    with pytest.raises(SettingsError, match="dino cannot be read: fetch it again"):
        load()
    file.rename(file.with_name("pytorch_model.bin"))
    with pytest.raises(SettingsError, match=r"dino lacks model.safetensors: run `hf download"):
        load()


def test_the_architecture_is_vit_small_with_patches_of_8() -> None:
    network = load_dino(Weights(random=True), CPU).network
    assert sum(weights.numel() for weights in network.parameters()) == 21_670_272
