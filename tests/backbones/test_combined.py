"""Pairs of models: what comes from which, and which names are pairs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from torch import Tensor

from tests.builders.onnx_files import write_network
from tests.builders.scenes import agreement, quarter_labels, quarters
from tests.builders.tiny_diffusion import CPU, write_folder
from walkcut.backbones import AttentionMap, Backbone, FeatureKind, ImageFeatures, Weights, load_backbone
from walkcut.backbones.classical import ClassicalBackbone
from walkcut.backbones.combined import CombinedBackbone
from walkcut.backbones.dino import load_dino
from walkcut.backbones.embedding import embed_features
from walkcut.errors import SettingsError
from walkcut.hierarchy.granularity import Segments
from walkcut.hierarchy.merge_rule import MergeRule
from walkcut.segmentation.presets import PRESETS
from walkcut.segmentation.segmenter import Segmenter

MODEL: frozenset[FeatureKind] = frozenset({"attention_maps", "feature_map"})
ALL: frozenset[FeatureKind] = MODEL | {"contour"}
IMAGE = torch.tensor(quarters(64, 96))
TINY = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "patch_size": 8, "num_hidden_layers": 1}


class Known:
    """A model whose features and attention say which half of the image is left."""

    version = "known-1"
    provides = MODEL

    def extract(self, image: UInt8[Tensor, "y x 3"], kinds: frozenset[FeatureKind]) -> ImageFeatures:
        right = (torch.arange(8) >= 4).expand(4, 8)
        features = torch.stack([right, ~right]).float()
        attention = (right.flatten()[:, None] == right.flatten()).float() / 16
        return ImageFeatures(
            (AttentionMap((4, 8), attention),) if "attention_maps" in kinds else (),
            features if "feature_map" in kinds else None,
            degradations=("attention sliced",),
        )


@pytest.fixture
def pair() -> CombinedBackbone:
    return CombinedBackbone(ClassicalBackbone(), Known())


def test_contour_and_histograms_are_the_first_models(pair: CombinedBackbone) -> None:
    features, first = pair.extract(IMAGE, ALL), ClassicalBackbone().extract(IMAGE, ALL)
    learned = Known().extract(IMAGE, MODEL)
    assert features.contour is not None
    assert first.contour is not None
    assert torch.equal(features.contour, first.contour)
    assert features.feature_map is not None
    assert first.feature_map is not None
    assert torch.equal(features.feature_map, first.feature_map)
    assert torch.equal(features.attention_maps[0].weights, learned.attention_maps[0].weights)
    assert features.embedding is not None
    assert learned.feature_map is not None
    assert torch.equal(features.embedding, embed_features(learned.feature_map, (64, 96)))
    assert features.degradations == ("attention sliced",)


def test_without_a_contour_all_is_the_second_models(pair: CombinedBackbone) -> None:
    features = pair.extract(IMAGE, MODEL)
    assert features.feature_map is not None
    assert (features.feature_map.shape, features.contour, features.embedding) == ((2, 4, 8), None, None)


def test_only_requested_kinds_are_returned(pair: CombinedBackbone) -> None:
    contour = pair.extract(IMAGE, frozenset({"contour"}))
    assert (contour.attention_maps, contour.feature_map, contour.embedding) == ((), None, None)
    assert pair.provides == ALL


@pytest.mark.parametrize("method", ["merge", "merge+attention"])
def test_the_second_model_groups_what_the_first_keeps_apart(method: str, pair: CombinedBackbone) -> None:
    """The coarsest border is that of the features; by the histograms alone it is another."""
    halves = quarter_labels(64, 96) % 2
    image = quarters(64, 96)
    image[:32] //= 3  # by colour, top and bottom differ more
    by_colour, by_both = (
        Segmenter(backbone, PRESETS[method]).segment(image).labels(Segments(2))
        for backbone in (ClassicalBackbone(), pair)
    )
    assert agreement(by_colour, halves) < 0.9
    assert agreement(by_both, halves) > 0.95


def test_the_second_model_does_not_divide_what_has_no_contrast(pair: CombinedBackbone) -> None:
    tree = Segmenter(pair, PRESETS["merge"]).segment(np.full((40, 50, 3), 128, np.uint8))
    assert tree.hierarchy.leaf_count == 1


def test_the_rule_is_the_contours_and_the_weight_the_features(tmp_path: Path) -> None:
    network = write_network(tmp_path / "net.onnx", metadata={"weight": "0.2"})
    hed, pair = (
        load_backbone(name, weights=Weights(random=True)).extract(IMAGE, frozenset({"contour", "feature_map"}))
        for name in ("hed", f"hed+{network}")
    )
    assert pair.merge_rule == replace(hed.merge_rule, embedding=0.2)
    assert hed.merge_rule != MergeRule()


def test_the_position_is_removed_from_dinos_features_alone(tmp_path: Path) -> None:
    network = write_network(tmp_path / "net.onnx")
    with_dino, with_network = (
        load_backbone(f"classical+{name}", weights=Weights(random=True)) for name in ("dino", network)
    )
    assert isinstance(with_dino, CombinedBackbone)
    assert isinstance(with_network, CombinedBackbone)
    assert (with_dino.without_position, with_network.without_position) == (True, False)
    dino = load_dino(Weights(random=True), CPU, TINY)
    removed, kept = (
        CombinedBackbone(ClassicalBackbone(), dino, without_position=without_position).extract(IMAGE, ALL).embedding
        for without_position in (True, False)
    )
    assert removed is not None
    assert kept is not None
    assert not torch.allclose(removed, kept, atol=0.01)


@pytest.mark.parametrize("method", ["merge+attention", "ncut+merge"])
def test_methods_run_on_a_pair_with_a_diffusion_model(method: str, tmp_path: Path) -> None:
    backbone = load_backbone(
        f"classical+{write_folder(tmp_path / 'tiny', 'sd14')}", attention=PRESETS[method].attention
    )
    assert isinstance(backbone, Backbone)
    assert Segmenter(backbone, PRESETS[method]).segment(quarters(64, 96)).size == (64, 96)


def test_the_version_changes_with_each_part(tmp_path: Path, pair: CombinedBackbone) -> None:
    network = load_backbone(str(write_network(tmp_path / "net.onnx")))
    variants = [
        replace(pair, contours=network),
        replace(pair, features=network),
        CombinedBackbone(Known(), ClassicalBackbone()),
        replace(pair, without_position=True),
    ]
    assert len({pair.version, *(variant.version for variant in variants)}) == 5


def test_a_path_with_a_plus_is_no_pair(tmp_path: Path) -> None:
    folder = tmp_path / "c++"
    folder.mkdir()
    network = write_network(folder / "hed+net.onnx")
    assert not isinstance(load_backbone(str(network)), CombinedBackbone)
    both = load_backbone(f"{network}+{network}")
    assert isinstance(both, CombinedBackbone)
    assert both.contours.version == both.features.version


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dino+sd14", "dino gives no contour: choose auto, classical, hed or an ONNX network with the output contour"),
        ("hed+classical", "classical gives no learned features: choose dino, a diffusion model or an ONNX network"),
        ("hed+hed+dino", r"hed\+dino gives no learned features"),
        ("hed+", "an empty name gives no learned features"),
        ("hed+magic", "unknown architecture 'magic' for random weights"),
    ],
)
def test_models_that_cannot_be_a_pair_are_named(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_backbone(name, weights=Weights(random=True))


def test_a_network_takes_the_place_of_its_output(tmp_path: Path) -> None:
    edges, parts = (write_network(tmp_path / f"{output}.onnx", [output]) for output in ("contour", "features"))
    assert isinstance(load_backbone(f"{edges}+{parts}"), CombinedBackbone)
    with pytest.raises(SettingsError, match=r"contour\.onnx gives no learned features: choose dino, a diffusion model"):
        load_backbone(f"classical+{edges}")
    with pytest.raises(SettingsError, match=r"features\.onnx gives no contour: choose auto, classical, hed or an ONNX"):
        load_backbone(f"{parts}+dino")
