"""Images made for tests, with parts that anyone would tell apart."""

import base64
import io

import numpy as np
from PIL import Image

COLOURS = np.array([[200, 60, 50], [60, 140, 210], [70, 170, 80], [240, 220, 120]], np.float32)


def quarters(height: int, width: int, *, noise: float = 4.0) -> np.ndarray:
    """An image of four coloured quarters with a little noise, the same each time."""
    colours = COLOURS[quarter_labels(height, width)]
    speckle = np.random.default_rng(0).normal(0, noise, colours.shape)
    return np.clip(colours + speckle, 0, 255).astype(np.uint8)


def quarter_labels(height: int, width: int) -> np.ndarray:
    """Which quarter each pixel is in, from 0."""
    y, x = np.mgrid[:height, :width]
    return (y >= height // 2) * 2 + (x >= width // 2)


def png(image: np.ndarray) -> bytes:
    """An image as a file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def data_url(data: bytes) -> str:
    """A reference that holds the file itself."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def agreement(labels: np.ndarray, truth: np.ndarray) -> float:
    """The share of pixels in the most frequent segment of their true part, where no segment serves two parts."""
    pairs, counts = np.unique(np.stack([labels.ravel(), truth.ravel()]), axis=1, return_counts=True)
    best: dict[int, tuple[int, int]] = {}
    for (segment, _), count, part in zip(pairs.T.tolist(), counts.tolist(), pairs[1].tolist(), strict=True):
        best[part] = max(best.get(part, (0, -1)), (count, segment))
    if len({segment for _, segment in best.values()}) < len(best):
        return 0.0
    return sum(count for count, _ in best.values()) / labels.size
