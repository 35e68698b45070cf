"""Images resized to the input of a model, in memory for the result rather than for the image."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

_MAX_PIXELS = 1 << 22  # converted to floats at a time


def resize(image: UInt8[Tensor, "y x 3"], size: tuple[int, int], *, white: float = 1) -> Float[Tensor, "1 3 h w"]:
    """Return an image at `size` (height, width) with values from 0 to `white`, by antialiased bilinear interpolation.

    The filter is separable: large images are resized in strips of rows to the width, then as a whole to the height,
    which gives the same bits.
    """
    rows = max(1, _MAX_PIXELS // image.shape[1])
    if rows < len(image):
        strips = [_interpolate(_floats(strip, white), (len(strip), size[1])) for strip in image.split(rows)]
        return _interpolate(torch.cat(strips, 2), size)
    return _interpolate(_floats(image, white), size)


def resample(maps: Float[Tensor, "c h w"], size: tuple[int, int]) -> Float[Tensor, "c y x"]:
    """Return maps at `size` (height, width), by antialiased bilinear interpolation."""
    return _interpolate(maps[None], size)[0]


def _floats(image: UInt8[Tensor, "y x 3"], white: float) -> Float[Tensor, "1 3 y x"]:
    return image.permute(2, 0, 1)[None].float() / (255 / white)


def _interpolate(pixels: Float[Tensor, "1 c y x"], size: tuple[int, int]) -> Float[Tensor, "1 c h w"]:
    return interpolate(pixels, size, mode="bilinear", antialias=True)
