"""Segmenters by their names, as settings and command line give them."""

from pathlib import Path

from walkcut.backbones import CLASSICAL, Weights
from walkcut.backbones.devices import make_device, make_dtype
from walkcut.segmentation.segmenter import Segmenter, load_segmenter


def load_configured_segmenter(
    model: str, method: str, *, device: str, dtype: str, weights_dir: Path | None, random_weights: bool = False
) -> Segmenter:
    """Return the segmenter of a model and a method, as `load_segmenter`, with device and precision by their names.

    The classical model has no weights: their folder and precision are ignored for it.
    """
    weights = Weights(weights_dir, make_dtype(dtype), random_weights)
    if model == CLASSICAL and not random_weights:
        weights = Weights()
    return load_segmenter(model, method, device=make_device(device), weights=weights)
