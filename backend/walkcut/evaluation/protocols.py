"""The papers' ways to show images to a method and to score its answer, and the plain way.

Facts about DiffSeg and DiffCut are those of the authors' programs (google/diffseg: `data/*/`, `diffseg/utils.py`;
PaulCouairon/DiffCut: `dataloader/iterator.py`, `eval_diffcut.py`). In all protocols segments are matched to classes
image by image (`metrics.matched_counts`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from jaxtyping import Int64, Integer, Shaped, UInt8
from torch.nn.functional import interpolate

from walkcut.evaluation.contingency import contingency_table
from walkcut.evaluation.datasets import Dataset
from walkcut.evaluation.metrics import merge_background


@dataclass(frozen=True)
class Square:
    """A centred square of an image, scaled.

    Its side is `trim` pixels less than the image's shorter side; the method sees it with a side of `seen` pixels,
    and the answer is scored with a side of `scored` pixels. Half of an odd margin is rounded down, or, `to_even`, to
    the even number, as in torchvision's CenterCrop.
    """

    seen: int
    scored: int
    trim: int = 0
    to_even: bool = False

    def cut(self, pixels: Shaped[np.ndarray, "y x *c"]) -> Shaped[np.ndarray, "s s *c"]:
        """The square of an image or a truth, not yet scaled."""
        height, width = pixels.shape[:2]
        side = min(height, width) - self.trim
        top, left = (round(rest / 2) if self.to_even else rest // 2 for rest in (height - side, width - side))
        return pixels[top : top + side, left : left + side]


@dataclass(frozen=True)
class Protocol:
    """What a method sees of an image, and how its answer becomes a table of overlaps with the truth.

    Without a `square` it is the whole image in its own size. `merges_background`: where a data set has a background
    class, whatever segments match no other class of the image become one before scoring: the truth helps (DiffCut
    supplement H). `void_is_background`: there, ignored pixels are scored as background.
    """

    name: str
    square: Square | None
    merges_background: bool = True
    void_is_background: bool = False

    def view(self, image: UInt8[np.ndarray, "y x 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The image that the method is given.

        Scaled bilinearly between pixel centres and without smoothing, as in both programs, however much it shrinks.
        They go on with fractions; here colours are rounded to whole numbers.
        """
        if self.square is None:
            return image
        colours = torch.from_numpy(np.ascontiguousarray(self.square.cut(image))).permute(2, 0, 1)[None]
        side = (self.square.seen, self.square.seen)
        scaled = interpolate(colours.float(), side, mode="bilinear", align_corners=False, antialias=False)
        return scaled[0].permute(1, 2, 0).round().to(torch.uint8).numpy()

    def truth(self, truth: Int64[np.ndarray, "y x"]) -> Int64[np.ndarray, "h w"]:
        """The truth as it is scored.

        Scaled to the view by the pixel whose centre is nearest; from there to a smaller scored size, as DiffCut's
        program does, by the first pixel of each block and not by the middle one.
        """
        if self.square is None:
            return truth
        seen = _nearest(self.square.cut(truth), self.square.seen)
        first = np.arange(self.square.scored) * self.square.seen // self.square.scored
        return seen[np.ix_(first, first)]

    def scored(self, labels: Integer[np.ndarray, "y x"]) -> Integer[np.ndarray, "h w"]:
        """The method's labels of the view, of whatever size, as they are scored: by the pixel of the nearest centre.

        DiffCut's program does not come here: it assigns features that were scaled to the scored size.
        """
        return labels if self.square is None else _nearest(labels, self.square.scored)

    def table(
        self, truth: Int64[np.ndarray, "y x"], labels: Integer[np.ndarray, "y x"], dataset: Dataset
    ) -> Int64[np.ndarray, "t s"]:
        """The overlaps of what `truth` and `scored` gave: a row for each class, or for each part of a partition."""
        if dataset.partitions:
            parts = np.unique(truth, return_inverse=True)[1].reshape(truth.shape)
            return contingency_table(parts, labels)
        background = dataset.background
        if background is not None and self.void_is_background:
            truth = np.where(truth == dataset.ignore, background, truth)
        table = contingency_table(truth, labels, classes=len(dataset.classes), ignore=dataset.ignore)
        if background is None or not self.merges_background:
            return table
        return merge_background(table, background)


def _nearest(labels: Integer[np.ndarray, "y x"], side: int) -> Integer[np.ndarray, "h w"]:
    """The pixel at floor((i + 1/2) · old / new), exactly: half-pixel centres, "nearest-exact" in PyTorch."""
    rows, columns = ((2 * np.arange(side) + 1) * old // (2 * side) for old in labels.shape)
    return labels[np.ix_(rows, columns)]


_DIFFSEG: Final = Square(seen=512, scored=512)
PROTOCOLS: Final[Mapping[str, Protocol]] = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            # The paper names neither crop nor size: it follows DiffSeg in data and scores, upsamples to 512 x 512
            # (section 3.6), and sets its numbers beside DiffSeg's. So DiffSeg's rules are taken.
            Protocol("dwc", _DIFFSEG),
            # DiffSeg was not scored on data with a background by its authors, but by DiffCut's with their merge.
            Protocol("diffseg", _DIFFSEG),
            # Its program merges the background before PAMR, and takes VOC's void for background.
            Protocol("diffcut", Square(seen=1024, scored=128, trim=1, to_even=True), void_is_background=True),
            # Every image in its own size, and no help from the truth.
            Protocol("native", square=None, merges_background=False),
        )
    }
)
