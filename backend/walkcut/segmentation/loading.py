"""Segmenters by their names, as settings and command line give them."""

from pathlib import Path

import torch

from walkcut.backbones import CLASSICAL, Weights
from walkcut.errors import SettingsError
from walkcut.segmentation.segmenter import Segmenter, load_segmenter


def make_device(name: str) -> torch.device:
    """Return the device of this name. Raises `SettingsError` for one that cannot be used here."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"WALKCUT_DEVICE={name!r} cannot be used here: {error}") from error
    return device


def load_configured_segmenter(
    model: str, method: str, *, device: str, dtype: str, weights_dir: Path | None, random_weights: bool = False
) -> Segmenter:
    """Return the segmenter of a model and a method, as `load_segmenter`, with device and precision by their names.

    The classical model has no weights: their folder and precision are ignored for it.
    """
    weights = Weights(weights_dir, getattr(torch, dtype), random_weights)
    if model == CLASSICAL and not random_weights:
        weights = Weights()
    return load_segmenter(model, method, device=make_device(device), weights=weights)
