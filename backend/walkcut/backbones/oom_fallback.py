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

from walkcut.backbones import ImageFeatures
from walkcut.errors import SegmentationError

_log = logging.getLogger(__name__)

_SCALES = (3 / 4, 1 / 2)  # of both sides, where an image must be seen smaller
_SIGNS = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED")  # in the errors of Apple's devices, CPUs and cuBLAS


@dataclass(frozen=True)
class ExecutionPlan:
    """How an image is seen: at which height and width, with attention head by head or at once, and where."""

    size: tuple[int, int]
    sliced: bool = False
    offload_to_cpu: bool = False


Images = Sequence[UInt8[Tensor, "_ _ 3"]]
Findings = tuple[ImageFeatures, ...]
Attempt = Callable[[Images, ExecutionPlan], Findings]


def fallback_plans(size: tuple[int, int], multiple: int, device: torch.device) -> tuple[ExecutionPlan, ...]:
    """The efforts for one image, from the best to the last: as it should be, sliced, smaller, on the CPU.

    Sides stay multiples of `multiple`; on the CPU, images are seen at their full size again, in float32.
    """

    def scaled(scale: float) -> tuple[int, int]:
        height, width = (max(multiple, round(side * scale / multiple) * multiple) for side in size)
        return height, width

    sizes = dict.fromkeys([size, *map(scaled, _SCALES)])  # each once
    offload_to_cpu = () if device.type == "cpu" else (ExecutionPlan(size, offload_to_cpu=True),)
    return (ExecutionPlan(size), *(ExecutionPlan(each, sliced=True) for each in sizes), *offload_to_cpu)


def degradations(effort: ExecutionPlan, size: tuple[int, int], batch: int, whole: int) -> tuple[str, ...]:
    """What is given up of images to be seen at `size` in a batch of `whole`, in a user's words, as width×height."""
    told = {
        f"run {batch} at a time instead of {whole}": batch != whole,
        "attention sliced": effort.sliced,
        f"seen at {_words(effort.size)} instead of {_words(size)}": effort.size != size,
        "computed on the CPU": effort.offload_to_cpu,
    }
    return tuple(words for words, given_up in told.items() if given_up)


def run_with_oom_fallback(
    run: Attempt, images: Images, efforts: Sequence[ExecutionPlan], device: torch.device
) -> Findings:
    """The evidence of images from passes that they share, by the first of the `efforts` that memory suffices for.

    A batch is halved as often as needed, and only single images are seen with less effort. Each step is logged, and
    what was given up is told in `ImageFeatures.degradations`. Raises `SegmentationError` where the last effort is too much.
    """
    size, whole = efforts[0].size, len(images)

    def seen(images: Images, efforts: Sequence[ExecutionPlan]) -> Findings:
        effort, *less = efforts
        half = (len(images) + 1) // 2
        try:
            with normalise_oom_errors():
                told = degradations(effort, size, len(images), whole)
                return tuple(replace(found, degradations=told) for found in run(images, effort))
        except torch.OutOfMemoryError as error:
            if len(images) == 1 and not less:
                raise SegmentationError(
                    f"{device} has too little memory for this model, even with all given up that can be: "
                    "choose a smaller model, half precision, or another device"
                ) from error
            told = degradations(effort if len(images) > 1 else less[0], size, half, whole)
            _log.warning("out of memory on %s: trying again, %s", device, ", ".join(told))
        # Not within `except`, where the error still holds the tensors of the pass.
        _free(device)
        if len(images) > 1:
            return (*seen(images[:half], efforts), *seen(images[half:], efforts))
        return seen(images, less)

    return seen(images, efforts)


@contextmanager
def normalise_oom_errors() -> Iterator[None]:
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
