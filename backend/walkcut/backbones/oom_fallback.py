"""What is given up, one thing after another, where memory runs out; and what was given up is told."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.attention_processor import SlicedAttnProcessor
from jaxtyping import UInt8
from torch import Tensor

from walkcut.backbones import Evidence
from walkcut.errors import SegmentationError

_log = logging.getLogger(__name__)

_SCALES = (3 / 4, 1 / 2)  # of both sides, where a picture must be seen smaller
_SIGNS = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED")  # in the errors of Apple's devices, CPUs and cuBLAS


@dataclass(frozen=True)
class Effort:
    """How a picture is seen: at which height and width, with attention head by head or at once, and where."""

    size: tuple[int, int]
    sliced: bool = False
    on_cpu: bool = False


Pictures = Sequence[UInt8[Tensor, "_ _ 3"]]
Findings = tuple[Evidence, ...]
Look = Callable[[Pictures, Effort], Findings]


def ladder(size: tuple[int, int], multiple: int, device: torch.device) -> tuple[Effort, ...]:
    """The efforts for one picture, from the best to the last: as it should be, sliced, smaller, on the CPU.

    Sides stay multiples of `multiple`; on the CPU, pictures are seen at their full size again, in float32.
    """

    def scaled(scale: float) -> tuple[int, int]:
        height, width = (max(multiple, round(side * scale / multiple) * multiple) for side in size)
        return height, width

    sizes = dict.fromkeys([size, *map(scaled, _SCALES)])  # each once
    on_cpu = () if device.type == "cpu" else (Effort(size, on_cpu=True),)
    return (Effort(size), *(Effort(each, sliced=True) for each in sizes), *on_cpu)


def concessions(effort: Effort, size: tuple[int, int], batch: int, whole: int) -> tuple[str, ...]:
    """What is given up of pictures to be seen at `size` in a batch of `whole`, in a user's words, as width×height."""
    told = {
        f"run {batch} at a time instead of {whole}": batch != whole,
        "attention sliced": effort.sliced,
        f"seen at {_words(effort.size)} instead of {_words(size)}": effort.size != size,
        "computed on the CPU": effort.on_cpu,
    }
    return tuple(words for words, given_up in told.items() if given_up)


def look_within_memory(look: Look, images: Pictures, efforts: Sequence[Effort], device: torch.device) -> Findings:
    """The evidence of pictures from passes that they share, by the first of the `efforts` that memory suffices for.

    A batch is halved as often as needed, and only single pictures are seen with less effort. Each step is logged, and
    what was given up is told in `Evidence.concessions`. Raises `SegmentationError` where the last effort is too much.
    """
    size, whole = efforts[0].size, len(images)

    def seen(images: Pictures, efforts: Sequence[Effort]) -> Findings:
        effort, *less = efforts
        half = (len(images) + 1) // 2
        try:
            with named_memory_errors():
                told = concessions(effort, size, len(images), whole)
                return tuple(replace(found, concessions=told) for found in look(images, effort))
        except torch.OutOfMemoryError as error:
            if len(images) == 1 and not less:
                raise SegmentationError(
                    f"{device} has too little memory for this model, even with all given up that can be: "
                    "choose a smaller model, half precision, or another device"
                ) from error
            told = concessions(effort if len(images) > 1 else less[0], size, half, whole)
            _log.warning("out of memory on %s: trying again, %s", device, ", ".join(told))
        # Not within `except`, where the error still holds the tensors of the pass.
        _free(device)
        if len(images) > 1:
            return (*seen(images[:half], efforts), *seen(images[half:], efforts))
        return seen(images, less)

    return seen(images, efforts)


@contextmanager
def named_memory_errors() -> Iterator[None]:
    """Raises `torch.OutOfMemoryError` on every device where memory runs out, as CUDA does."""
    try:
        yield
    except RuntimeError as error:
        if any(sign in str(error) for sign in _SIGNS):
            raise torch.OutOfMemoryError(str(error)) from error
        raise


@contextmanager
def sliced_attention(unet: Any) -> Iterator[None]:
    """Runs the attention of a U-Net head by head; afterwards it has the processors that it had."""
    before = dict(unet.attn_processors)
    try:
        unet.set_attn_processor(SlicedAttnProcessor(slice_size=1))
        yield
    finally:
        unet.set_attn_processor(before)


def _words(size: tuple[int, int]) -> str:
    return f"{size[1]}×{size[0]}"


def _free(device: torch.device) -> None:
    """Gives back what PyTorch keeps for later, so that pieces of other sizes find room."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
