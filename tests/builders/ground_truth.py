"""Small images and ground truth in the formats of the real data sets."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer
from PIL import Image
from scipy.io import savemat


def save_image(path: Path, height: int = 18, width: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(colours).save(path)


def save_labels(path: Path, labels: Integer[np.ndarray, "y x"], *, palette: Sequence[int] = ()) -> None:
    """Save labels as grey values, or as indices of a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    if palette:
        image.putpalette(palette)
    image.save(path)


def save_grey(path: Path, rows: Sequence[bytes], *, width: int, bits: int) -> None:
    """Save a grey PNG of 1, 2 or 4 bits, which Pillow does not write."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def save_people(path: Path, partitions: Sequence[Integer[np.ndarray, "y x"]]) -> None:
    """Save a `.mat` file as BSDS500's: a row of cells, each a struct with Segmentation and Boundaries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    people = np.empty((1, len(partitions)), object)
    for person, labels in enumerate(partitions):
        people[0, person] = {"Segmentation": labels.astype(np.uint16), "Boundaries": np.zeros(labels.shape, bool)}
    savemat(path, {"groundTruth": people}, do_compression=True)


def damage(path: Path) -> None:
    """Cut a file's second half off."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
