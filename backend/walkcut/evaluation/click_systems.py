"""Systems that segment an object by clicks: walkcut's *Select*, and classical methods from the same clicks.

The classical methods see a disc around each click, and as long as there is no negative click they take the image's
border, where no disc is, for background. Those that take seconds at full size see the image scaled down.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Final

import numpy as np
from jaxtyping import Int8, UInt8
from PIL import Image as PillowImage
from scipy.ndimage import distance_transform_edt
from skimage.color import rgb2lab
from skimage.graph import MCP_Geometric
from skimage.segmentation import random_walker

from walkcut.errors import require_extra
from walkcut.evaluation.clicks import Answer, ClickSystem, Mask
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level
from walkcut.interactive.selection import Pixel, select_mask
from walkcut.segmentation.segmenter import Segmenter
from walkcut.storage import Crop

_FULL_SIZE: Final = 1 << 16
_SIDE: Final = 240  # pixels
_WHITE: Final = 255
_RADIUS: Final = 0.01  # of a disc, as a fraction of the image's longer side
_MIN_RADIUS: Final = 2  # pixels, so that mixtures have colours to start from
_ITERATIONS: Final = 5  # of GrabCut
_NO_BOX: Final = (0, 0, 1, 1)  # not read in this mode
_BETA: Final = 130.0  # of the random walker, scikit-image's default
_TOLERANCE: Final = 1e-4  # of its solver
_STEP: Final = 1.0  # what a pixel costs a geodesic path beside its gradient, in units of CIELAB

Image = UInt8[np.ndarray, "y x 3"]
Seeds = Int8[np.ndarray, "y x"]  # 1 in the discs of positive clicks, -1 in those of negative ones, else 0
FromSeeds = Callable[[Seeds], Mask]


@dataclass(frozen=True)
class Select:
    """The *Select* of the product, at the granularity auto: a `ClickSystem`."""

    segmenter: Segmenter
    name: str = "walkcut"

    def open(self, image: Image) -> Answer:
        """Return what answers clicks on an image."""

        @cache
        def part_tree(top: int, bottom: int, left: int, right: int) -> CutTree:
            return self.segmenter.segment(np.ascontiguousarray(image[top:bottom, left:right]))

        def crop_tree(crop: Crop) -> CutTree:
            rows, columns = crop
            return part_tree(rows.start, rows.stop, columns.start, columns.stop)

        return partial(select_mask, self.segmenter.segment(image), Level.AUTO, crop_tree=crop_tree)


@dataclass(frozen=True)
class Classical:
    """A method that segments by seeds: a `ClickSystem`.

    `prepare` gets the image, scaled down to at most `side` pixels in height and width. Masks are scaled back by linear
    interpolation, so that borders stay smooth.
    """

    name: str
    prepare: Callable[[Image], FromSeeds] = field(repr=False)
    side: int = _FULL_SIZE

    def open(self, image: Image) -> Answer:
        """Return what answers clicks on an image."""
        size = image.shape[:2]
        scale = min(1.0, self.side / max(size))
        small = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        from_seeds = self.prepare(_resized(image, small))

        def scaled(pixels: Sequence[Pixel]) -> list[Pixel]:
            return [(row * small[0] // size[0], column * small[1] // size[1]) for row, column in pixels]

        def answer(positive: Sequence[Pixel], negative: Sequence[Pixel]) -> Mask:
            mask = from_seeds(seed_discs(small, scaled(positive), scaled(negative)))
            return _resized(mask.astype(np.uint8) * _WHITE, size) > _WHITE // 2

        return answer


def _resized(pixels: UInt8[np.ndarray, "y x *c"], size: tuple[int, ...]) -> UInt8[np.ndarray, "y2 x2 *c"]:
    """Return an image or mask of another height and width: by linear interpolation, with antialiasing."""
    return np.asarray(PillowImage.fromarray(pixels).resize((size[1], size[0]), PillowImage.Resampling.BILINEAR))


def seed_discs(size: tuple[int, ...], positive: Sequence[Pixel], negative: Sequence[Pixel]) -> Seeds:
    """Return the seeds of clicks; where discs overlap, negative ones count, but at each click itself its own kind."""
    seeds = np.zeros(size, np.int8)
    y, x = np.ogrid[: size[0], : size[1]]
    for radius in (max(_MIN_RADIUS, _RADIUS * max(size)), 0):
        for sign, pixels in ((1, positive), (-1, negative)):
            for row, column in pixels:
                seeds[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = sign
    return seeds


def with_background(seeds: Seeds) -> Seeds:
    """Return seeds of both kinds: without negative ones the free pixels of the image's border are negative."""
    if (seeds < 0).any():
        return seeds
    border = np.ones(seeds.shape, np.bool_)
    border[1:-1, 1:-1] = False
    return np.where(border & (seeds == 0), np.int8(-1), seeds)


def grabcut(image: Image) -> FromSeeds:
    """Cuts with mixtures of colours (Rother et al. 2004) by OpenCV; other pixels are probably as their nearest seed.

    Raises `SettingsError` without OpenCV.
    """
    with require_extra("evaluation"):
        import cv2  # noqa: PLC0415 - an extra

    def from_seeds(seeds: Seeds) -> Mask:
        nearest = distance_transform_edt(with_background(seeds) == 0, return_distances=False, return_indices=True)
        probable = np.where(with_background(seeds)[tuple(nearest)] > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
        labels = np.select([seeds > 0, seeds < 0], [cv2.GC_FGD, cv2.GC_BGD], probable).astype(np.uint8)
        background, object_ = np.zeros((1, 65)), np.zeros((1, 65))  # the mixtures
        cv2.setRNGSeed(0)  # of the K-means that starts the mixtures
        pixels = np.ascontiguousarray(image)
        cv2.grabCut(pixels, labels, _NO_BOX, background, object_, _ITERATIONS, cv2.GC_INIT_WITH_MASK)
        return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))

    return from_seeds


def random_walk(image: Image) -> FromSeeds:
    """Random walks to the seeds (Grady 2006) by scikit-image, in CIELAB."""
    lab = rgb2lab(image) / 100

    def from_seeds(seeds: Seeds) -> Mask:
        labels = with_background(seeds) % 3  # 2 for the background
        return np.asarray(random_walker(lab, labels, beta=_BETA, tol=_TOLERANCE, prob_tol=1, channel_axis=-1) == 1)

    return from_seeds


def geodesic(image: Image) -> FromSeeds:
    """The kind of seed that the shorter path over colour gradients leads to (Bai & Sapiro 2007), in CIELAB."""
    gradients = np.gradient(rgb2lab(image), axis=(0, 1))
    costs = _STEP + np.sqrt(np.square(gradients).sum(axis=(0, -1)))

    def from_seeds(seeds: Seeds) -> Mask:
        both = with_background(seeds)
        near, far = (MCP_Geometric(costs).find_costs(np.argwhere(both == sign))[0] for sign in (1, -1))
        return np.asarray(near < far)

    return from_seeds


def click_systems(segmenter: Segmenter) -> tuple[ClickSystem, ...]:
    """Return *Select* first, and the classical methods."""
    return (
        Select(segmenter),
        Classical("grabcut", grabcut, _SIDE),
        Classical("random-walker", random_walk, _SIDE),
        Classical("geodesic", geodesic),
    )
