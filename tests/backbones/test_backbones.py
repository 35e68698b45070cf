"""Choosing a backbone by its name."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.builders.tiny_diffusion import write_folder
from walkcut.backbones import AttentionMap, FeatureKind, ImageFeatures, Weights, load_backbone
from walkcut.backbones.configs import DIFFSEG, DWC
from walkcut.errors import SettingsError
from walkcut.models import CLASSICAL, DINO, HED, MODELS

RANDOM = Weights(random=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_folder(tmp_path_factory.mktemp("weights") / "tiny", "sd14"))


def test_every_backbone_declares_what_it_provides(folder: str) -> None:
    model: frozenset[FeatureKind] = frozenset({"attention_maps", "feature_map"})
    provided = [load_backbone(name, weights=weights).provides for name, weights in ((folder, None), (DINO, RANDOM))]
    assert provided == [model, model]
    assert load_backbone(CLASSICAL).provides == load_backbone(HED, weights=RANDOM).provides == model | {"contour"}


def test_the_attention_of_a_diffusion_model_is_read_as_configured(folder: str) -> None:
    assert str(DWC) in load_backbone(folder).version
    assert str(DIFFSEG) in load_backbone(folder, attention=DIFFSEG).version
    assert load_backbone(folder, attention=replace(DWC, heads="entropy")).version.endswith(" heads=entropy")
    assert "heads" not in load_backbone(folder).version


@pytest.mark.parametrize(("name", "weights"), [(CLASSICAL, None), (DINO, RANDOM), (HED, RANDOM)])
def test_other_models_ignore_the_attention_config(name: str, weights: Weights | None) -> None:
    default, configured = (load_backbone(name, weights=weights, attention=config) for config in (None, DIFFSEG))
    assert default.version == configured.version


def test_the_classical_model_takes_no_weights() -> None:
    with pytest.raises(
        SettingsError, match="the model classical has no weights: do not set their folder, their precision or"
    ):
        load_backbone(CLASSICAL, weights=RANDOM)


@pytest.mark.parametrize("name", ["magic", "/nowhere/model"])
def test_the_error_for_an_unknown_model_lists_all(name: str, tmp_path: Path) -> None:
    known = ", ".join(MODELS)
    with pytest.raises(
        SettingsError, match=f"unknown model '{name}': choose one of {known}, a diffusers folder, owner/name on"
    ):
        load_backbone(name, weights=Weights(folder=tmp_path))


def test_features_move_to_another_device_completely() -> None:
    meta = torch.device("meta")
    attention = (AttentionMap((1, 2), torch.eye(2)),)
    features = ImageFeatures(
        attention, torch.ones(3, 1, 2), torch.ones(4, 5), ("sliced",), embedding=torch.ones(6, 4, 5)
    )
    moved = features.to(meta)
    assert moved.embedding is not None
    assert (moved.embedding.device, moved.embedding.shape) == (meta, (6, 4, 5))
    assert moved.feature_map is not None
    assert moved.contour is not None
    assert {moved.attention_maps[0].weights.device, moved.feature_map.device, moved.contour.device} == {meta}
    assert (moved.attention_maps[0].grid, moved.feature_map.shape, moved.contour.shape) == ((1, 2), (3, 1, 2), (4, 5))
    assert moved.degradations == ("sliced",)
    assert ImageFeatures().to(meta) == ImageFeatures()
