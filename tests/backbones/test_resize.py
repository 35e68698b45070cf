"""Resizing in strips: the same bits as at once, in less memory than one copy of the image in floats."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from tests.builders.memory import resident_peak
from walkcut.backbones import resize as module
from walkcut.backbones.resize import resize

SIDES = st.integers(16, 300)


def noise(height: int, width: int) -> UInt8[Tensor, "y x 3"]:
    return torch.randint(0, 256, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def at_once(image: UInt8[Tensor, "y x 3"], size: tuple[int, int], divisor: float) -> Float[Tensor, "1 3 h w"]:
    return interpolate(image.permute(2, 0, 1)[None].float() / divisor, size, mode="bilinear", antialias=True)


@settings(max_examples=100)
@given(sides=st.tuples(SIDES, SIDES), size=st.tuples(SIDES, SIDES), pixels=st.integers(1, 20_000))
def test_strips_change_no_bit(sides: tuple[int, int], size: tuple[int, int], pixels: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MAX_PIXELS", pixels)
        resized = [resize(noise(*sides), size), resize(noise(*sides), size, white=255)]
    for in_strips, divisor in zip(resized, (255, 1), strict=True):
        assert torch.equal(in_strips, at_once(noise(*sides), size, divisor))


def test_a_large_image_is_not_copied_into_floats_as_a_whole() -> None:
    image = torch.full((4000, 6000, 3), 7, dtype=torch.uint8)
    assert resident_peak(lambda: resize(image, (171, 256))) < 2 * image.nbytes
