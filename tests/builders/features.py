"""Image features with a known segmentation."""

import torch

from tests.builders.scenes import quarter_labels, quarters
from walkcut.backbones import AttentionMap, ImageFeatures

IMAGE = torch.from_numpy(quarters(64, 96))


def quartered(height: int = 8, width: int = 12) -> ImageFeatures:
    """Patches that attend to their own quarter of the image, and whose features are their quarter's."""
    labels = torch.from_numpy(quarter_labels(height, width)).flatten()
    maps = (_quartered_attention(height // 2, width // 2), _quartered_attention(height, width))
    feature_map = torch.eye(4)[labels].T.unflatten(1, (height, width)) + 0.1
    return ImageFeatures(attention_maps=maps, feature_map=feature_map)


def _quartered_attention(height: int, width: int) -> AttentionMap:
    labels = torch.from_numpy(quarter_labels(height, width)).flatten()
    weights = (labels[:, None] == labels).float() + 0.01
    return AttentionMap((height, width), weights / weights.sum(1, keepdim=True))
