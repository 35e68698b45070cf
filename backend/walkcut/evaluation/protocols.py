"""The papers' evaluation protocols: what a method sees of an image, and how its labels are scored.

Facts about DiffSeg and DiffCut are those of the authors' programs (google/diffseg: `data/*/`, `diffseg/utils.py`;
PaulCouairon/DiffCut: `dataloader/iterator.py`, `eval_diffcut.py`). In all protocols segments are matched to classes
image by image (`metrics.matched_counts`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Int64, Integer, Shaped, UInt8
from torch.nn.functional import interpolate

from walkcut.evaluation.datasets import Dataset
from walkcut.evaluation.metrics import ContingencyTable, LabelMap, contingency_table, merge_background


@dataclass(frozen=True)
class CenterCrop:
    """A centred square of an image, scaled. All lengths are in pixels.

    Its side is the image's shorter side less `margin`; the method sees it with a side of `input_size`, and its labels
    are scored with a side of `score_size`. Half of an odd rest is rounded down, or, `to_even`, to the even number, as
    in torchvision's CenterCrop.
    """

    input_size: int
    score_size: int
    margin: int = 0
    to_even: bool = False

    def crop(self, pixels: Shaped[np.ndarray, "y x *c"]) -> Shaped[np.ndarray, "s s *c"]:
        """Return the square of an image or a truth, not yet scaled."""
        height, width = pixels.shape[:2]
        side = min(height, width) - self.margin
        top, left = (round(rest / 2) if self.to_even else rest // 2 for rest in (height - side, width - side))
        return pixels[top : top + side, left : left + side]


@dataclass(frozen=True)
class Protocol:
    """The rules of a paper: crop, sizes, and the table of overlaps that is scored.

    Without a `center_crop` a method sees the whole image in its own size. `merges_background`: in a data set with a
    background class, all segments that match no other class of the image become one before scoring, which takes the
    truth's help (DiffCut supplement H). `void_is_background`: there, ignored pixels are scored as background.
    """

    name: str
    center_crop: CenterCrop | None
    merges_background: bool = True
    void_is_background: bool = False

    def crop_image(self, image: UInt8[np.ndarray, "y x 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Return the image that the method segments.

        Scaled bilinearly between pixel centres without antialiasing, as in both programs. They go on with fractions;
        here colours are rounded to integers.
        """
        if self.center_crop is None:
            return image
        colours = torch.from_numpy(np.ascontiguousarray(self.center_crop.crop(image))).permute(2, 0, 1)[None]
        side = (self.center_crop.input_size, self.center_crop.input_size)
        scaled = interpolate(colours.float(), side, mode="bilinear", align_corners=False, antialias=False)
        return scaled[0].permute(1, 2, 0).round().to(torch.uint8).numpy()

    def crop_truth(self, truth: Int64[np.ndarray, "y x"]) -> Int64[np.ndarray, "h w"]:
        """Return the truth as it is scored.

        Scaled to the input size by the pixel of the nearest centre; from there to a smaller score size, as in DiffCut's
        program, by the first pixel of each block instead of the middle one.
        """
        if self.center_crop is None:
            return truth
        input_size, score_size = self.center_crop.input_size, self.center_crop.score_size
        first = np.arange(score_size) * input_size // score_size
        return _nearest(self.center_crop.crop(truth), input_size)[np.ix_(first, first)]

    def resize_labels(self, labels: Integer[np.ndarray, "y x"]) -> Integer[np.ndarray, "h w"]:
        """Return the labels at the scored size, by the nearest centre (DiffCut's program scales features instead)."""
        return labels if self.center_crop is None else _nearest(labels, self.center_crop.score_size)

    def table(self, truth: LabelMap, labels: LabelMap, dataset: Dataset) -> ContingencyTable:
        """Return the overlaps of `crop_truth` and `resize_labels`: a row for each class, or part of a partition."""
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
    """Scale by the pixel at floor((i + 1/2) · old / new), exactly: "nearest-exact" in PyTorch."""
    rows, columns = ((2 * np.arange(side) + 1) * old // (2 * side) for old in labels.shape)
    return labels[np.ix_(rows, columns)]


_DIFFSEG: Final = CenterCrop(input_size=512, score_size=512)
PROTOCOLS: Final[Mapping[str, Protocol]] = {
    protocol.name: protocol
    for protocol in (
        # The paper names neither crop nor size: it follows DiffSeg in data and scores, upsamples to 512 x 512
        # (section 3.6), and compares its numbers with DiffSeg's. So DiffSeg's rules are used.
        Protocol("dwc", _DIFFSEG),
        # Not the authors but DiffCut's scored DiffSeg on data with a background, with their merge.
        Protocol("diffseg", _DIFFSEG),
        # Its program merges the background before PAMR, and counts VOC's void as background.
        Protocol("diffcut", CenterCrop(input_size=1024, score_size=128, margin=1, to_even=True),
                 void_is_background=True),
        # Every image in its own size, and no help from the truth.
        Protocol("native", center_crop=None, merges_background=False),
    )
}  # fmt: skip
