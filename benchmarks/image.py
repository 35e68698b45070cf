"""Cost of an image in matrix products: `python -m benchmarks.image [IMAGE…]`."""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.timing import median_seconds
from walkcut.backbones import load_backbone
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Level, Segments
from walkcut.segmentation.presets import PRESETS
from walkcut.segmentation.segmenter import Segmenter, load_segmenter

SAMPLE = Path(__file__).parents[1] / "labelstudio_config" / "sample.jpg"
GRANULARITIES = (Level.COARSE, Level.MEDIUM, Level.FINE, Level.AUTO)


def open_image(path: Path, width: int, height: int) -> np.ndarray:
    """Return an image in a given size."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((width, height)))


def segment(segmenter: Segmenter, image: np.ndarray) -> CutTree:
    """Do the work of one task: features, tree, and the labels of four granularities."""
    tree = segmenter.segment(image)
    for granularity in GRANULARITIES:
        tree.labels(granularity)
    return tree


def main() -> None:
    """Print the cost per method in units of a 4096×4096 product, and that of a change of granularity."""
    paths = [Path(argument) for argument in sys.argv[1:]] or [SAMPLE]
    square = torch.rand(4096, 4096)
    for path in paths:
        image = open_image(path, 481, 321)
        for method, preset in PRESETS.items():
            segmenter = Segmenter(load_backbone("classical"), preset)
            unit = median_seconds(lambda: square @ square, runs=3)
            seconds = median_seconds(lambda: segment(segmenter, image), runs=5)  # noqa: B023
            print(f"{path.name} 481×321 {method}: {seconds:.3f} s, {seconds / unit:.2f} products of {unit:.3f} s")
    stored = load_segmenter("classical").segment(open_image(paths[0], 1024, 768)).to_bytes()
    tree = CutTree.from_bytes(stored)
    changes: tuple[Granularity, ...] = (*GRANULARITIES, Segments(12))
    for granularity in changes:
        seconds = median_seconds(lambda: tree.labels(granularity))  # noqa: B023
        print(f"change to {granularity} at 1024×768: {seconds * 1e3:.1f} ms")
    seconds = median_seconds(lambda: CutTree.from_bytes(stored))
    print(f"stored tree of 1024×768: {len(stored)} bytes, read in {seconds * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
