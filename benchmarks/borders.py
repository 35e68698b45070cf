"""How precise and how smooth borders are: `python -m benchmarks.borders --root BSDS500 [--model MODEL]`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, Integer
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter1d
from skimage.measure import find_contours

from walkcut.backbones import Weights
from walkcut.evaluation.boundaries import boundaries
from walkcut.evaluation.datasets import read_dataset
from walkcut.hierarchy.granularity import Level
from walkcut.segmentation.segmenter import load_segmenter

_DISTANCES = (1, 2)  # pixels
_LARGE = (4000, 3000)  # width and height of 12 megapixels
_SMOOTHING = 16.0  # pixels along a border: about a cell of the working size in a large image


def border_precision(
    labels: Integer[np.ndarray, "y x"], truths: Sequence[Int64[np.ndarray, "y x"]]
) -> tuple[float, ...]:
    """Return the fractions of the border pixels within each of `_DISTANCES` of a border that some human drew."""
    humans = np.any([boundaries(truth) for truth in truths], axis=0)
    distance = distance_transform_edt(~humans)[boundaries(labels)]
    return tuple(float(np.mean(distance <= limit)) for limit in _DISTANCES)


def jaggedness(mask: Bool[np.ndarray, "y x"], smoothing: float = _SMOOTHING) -> float:
    """Return the length of a mask's closed border, divided by that of the border smoothed along itself.

    Borders shorter than ten times the `smoothing`, a standard deviation in pixels, do not count. Stairs much shorter
    than that have about 1.2; a smooth border on the grid of pixels has about 1.06.
    """
    contours = [line for line in find_contours(np.pad(mask, 1).astype(np.float64)) if len(line) > 10 * smoothing]
    smooth = [gaussian_filter1d(line, smoothing, axis=0, mode="wrap") for line in contours]
    return sum(map(_length, contours)) / max(sum(map(_length, smooth)), 1e-9)


def _length(line: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def main() -> None:
    """Print the precision at the granularity auto, and the jaggedness of the same images at 12 megapixels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default="classical")
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--large", type=int, default=4, help="images that are also enlarged to 12 megapixels")
    arguments = parser.parse_args()
    segmenter = load_segmenter(arguments.model, weights=Weights(arguments.weights_dir))
    examples = read_dataset("bsds500", arguments.root, arguments.split).examples[: arguments.images]
    precisions, jagged = [], []
    for number, example in enumerate(examples):
        image, truths = example.read()
        precisions.append(border_precision(segmenter.segment(image).labels(Level.AUTO), truths))
        if number < arguments.large:
            size = _LARGE if image.shape[1] > image.shape[0] else _LARGE[::-1]
            large = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
            labels = segmenter.segment(large).labels(Level.AUTO)
            jagged += [jaggedness(labels == label) for label in range(int(labels.max()) + 1)]
    shares = ", ".join(
        f"{share:.3f} within {limit} px" for share, limit in zip(np.mean(precisions, 0), _DISTANCES, strict=True)
    )
    print(f"{arguments.model}, {len(examples)} images of {arguments.split}: border pixels {shares} of a human border")
    print(f"at 12 megapixels: borders {np.mean([value for value in jagged if value]):.3f} times as long as smoothed")


if __name__ == "__main__":
    main()
