"""Choosing a backbone by its name."""

from pathlib import Path

import pytest
import torch

from tests.builders.tiny_diffusion import write_folder
from walkcut.backbones import CLASSICAL, DINO, MODELS, AttentionMap, FeatureKind, ImageFeatures, Weights, load_backbone
from walkcut.backbones.presets import DIFFSEG, DWC
from walkcut.errors import SettingsError

RANDOM = Weights(random=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_folder(tmp_path_factory.mktemp("weights") / "tiny", "sd14"))


def test_every_extractor_says_what_it_offers(folder: str) -> None:
    model: frozenset[FeatureKind] = frozenset({"maps", "features"})
    offered = [load_backbone(name, weights=weights).provides for name, weights in ((folder, None), (DINO, RANDOM))]
    assert offered == [model, model]
    assert load_backbone(CLASSICAL).provides == model | {"contour"}


def test_the_attention_of_a_diffusion_model_is_read_as_is_wished(folder: str) -> None:
    assert str(DWC) in load_backbone(folder).version
    assert str(DIFFSEG) in load_backbone(folder, attention=DIFFSEG).version


@pytest.mark.parametrize(("name", "weights"), [(CLASSICAL, None), (DINO, RANDOM)])
def test_models_that_can_be_read_in_one_way_only_are_read_in_that_way(name: str, weights: Weights | None) -> None:
    plain, other = (load_backbone(name, weights=weights, attention=way) for way in (None, DIFFSEG))
    assert plain.version == other.version


def test_the_embedded_model_takes_no_weights() -> None:
    with pytest.raises(SettingsError, match="the model classical has no weights: leave folder, precision and random"):
        load_backbone(CLASSICAL, weights=RANDOM)


@pytest.mark.parametrize("name", ["magic", "/nowhere/model"])
def test_an_unknown_model_is_told_of_all_there_are(name: str, tmp_path: Path) -> None:
    known = ", ".join(MODELS)
    with pytest.raises(
        SettingsError, match=f"no model '{name}': choose one of {known}, a diffusers folder, or owner/n"
    ):
        load_backbone(name, weights=Weights(folder=tmp_path))


def test_evidence_goes_to_another_device_with_all_its_parts() -> None:
    meta = torch.device("meta")
    image_features = ImageFeatures(
        (AttentionMap((1, 2), torch.eye(2)),), torch.ones(3, 1, 2), torch.ones(4, 5), ("sliced",)
    )
    moved = image_features.to(meta)
    assert moved.features is not None
    assert moved.contour is not None
    assert {moved.maps[0].weights.device, moved.features.device, moved.contour.device} == {meta}
    assert (moved.maps[0].grid, moved.features.shape, moved.contour.shape) == ((1, 2), (3, 1, 2), (4, 5))
    assert moved.degradations == ("sliced",)
    assert ImageFeatures().to(meta) == ImageFeatures()
