"""Pairs of models: the contour and histograms of one, and the features and attention of another."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from walkcut.backbones import Backbone, FeatureKind, ImageFeatures, Weights, load_backbone
from walkcut.backbones.configs import AttentionConfig
from walkcut.backbones.embedding import embed_features
from walkcut.backbones.onnx_model import OnnxBackbone, Output
from walkcut.errors import SettingsError
from walkcut.models import AUTO, CLASSICAL, DINO, HED, choose_model, is_onnx, split_pair
from walkcut.telemetry.spans import span

_REVISION = 1  # raise it when the same settings give other features
_CONTOURS = (AUTO, CLASSICAL, HED)  # and networks in files


@dataclass(frozen=True)
class CombinedBackbone:
    """Borders by one model and grouping by another: contour and histograms of `contours`, the rest of `features`.

    Together with a contour, the features serve the merging beside the histograms, weighted as the rule of their model
    says; without one they are the feature map. `without_position` removes from them what depends on the position.
    """

    contours: Backbone
    features: Backbone
    without_position: bool = False

    @property
    def version(self) -> str:
        """Revision, both models and settings."""
        position = f"without_position={self.without_position}"
        return f"pair-{_REVISION} ({self.contours.version}) ({self.features.version}) {position}"

    @property
    def provides(self) -> frozenset[FeatureKind]:
        """The kinds that the second model gives, and the contour."""
        return self.features.provides | {"contour"}

    def extract(self, image: UInt8[Tensor, "y x 3"], kinds: frozenset[FeatureKind]) -> ImageFeatures:
        """Return the features of both models, at the resolution of the contour where there is one."""
        learned = self.features.extract(image, kinds - {"contour"})
        if "contour" not in kinds:
            return learned
        features = self.contours.extract(image, kinds - {"attention_maps"}).merged_with(learned)
        rule = replace(features.merge_rule, embedding=learned.merge_rule.embedding)
        return replace(features, embedding=self._embedding(features, learned), merge_rule=rule)

    def _embedding(self, features: ImageFeatures, learned: ImageFeatures) -> Tensor | None:
        if features.contour is None or learned.feature_map is None:
            return None
        size = features.contour.shape[0], features.contour.shape[1]
        feature_map = learned.feature_map.to(features.contour.device)
        with span("embed"):
            return embed_features(feature_map, size, without_position=self.without_position)


def load_pair(
    contours: str, features: str, *, device: torch.device, weights: Weights, attention: AttentionConfig | None
) -> CombinedBackbone:
    """Load both models of a pair; the arguments are those of `load_backbone`. Raises `SettingsError`."""
    check_pair(contours, features)
    first_weights = Weights() if choose_model(contours, weights.folder) == CLASSICAL else weights
    first = load_backbone(contours, device=device, weights=first_weights)
    if _lacks(first, "contour"):
        raise _no_contour(contours)
    second = load_backbone(features, device=device, weights=weights, attention=attention)
    if _lacks(second, "features"):
        raise _no_features(features)
    return CombinedBackbone(first, second, without_position=features == DINO)


def check_pair(contours: str, features: str) -> None:
    """Raise `SettingsError` for models that cannot be a pair, by their names."""
    if contours not in _CONTOURS and not is_onnx(contours):
        raise _no_contour(contours)
    if features in ("", *_CONTOURS) or split_pair(features) is not None:
        raise _no_features(features)


def _lacks(backbone: Backbone, output: Output) -> bool:
    """Return whether a backbone is a network in a file without this output."""
    return isinstance(backbone, OnnxBackbone) and output not in backbone.network.outputs


def _no_contour(name: str) -> SettingsError:
    return SettingsError(
        f"{name} gives no contour: choose {', '.join(_CONTOURS)} or an ONNX network with the output contour as the "
        "first of a pair, as in hed+dino"
    )


def _no_features(name: str) -> SettingsError:
    return SettingsError(
        f"{name or 'an empty name'} gives no learned features: choose {DINO}, a diffusion model or an ONNX network "
        "with the output features as the second of a pair, as in hed+dino"
    )
