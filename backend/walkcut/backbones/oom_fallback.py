"""Fallback plans for passes that run out of memory, and messages about their reductions of quality."""

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

_SCALES = (3 / 4, 1 / 2)  # of both sides, for smaller images
_OOM_MESSAGES = ("out of memory", "DefaultCPUAllocator", "ALLOC_FAILED")  # of Apple's devices, CPUs and cuBLAS


@dataclass(frozen=True)
class ExecutionPlan:
    """A way to run a pass: image size (height, width), attention sliced by head or not, and on the CPU or not."""

    size: tuple[int, int]
    sliced: bool = False
    offload_to_cpu: bool = False


Images = Sequence[UInt8[Tensor, "_ _ 3"]]
PlanRunner = Callable[[Images, ExecutionPlan], tuple[ImageFeatures, ...]]


def fallback_plans(size: tuple[int, int], multiple: int, device: torch.device) -> tuple[ExecutionPlan, ...]:
    """Return the plans for one image in the order to try them: as configured, sliced, smaller, on the CPU.

    Sides stay multiples of `multiple`, in pixels. On the CPU, images have their full size again, in float32.
    """

    def scaled(scale: float) -> tuple[int, int]:
        height, width = (max(multiple, round(side * scale / multiple) * multiple) for side in size)
        return height, width

    sizes = dict.fromkeys([size, *map(scaled, _SCALES)])  # without duplicates
    on_cpu = () if device.type == "cpu" else (ExecutionPlan(size, offload_to_cpu=True),)
    return (ExecutionPlan(size), *(ExecutionPlan(smaller, sliced=True) for smaller in sizes), *on_cpu)


def degradations(plan: ExecutionPlan, size: tuple[int, int], batch: int, full_batch: int) -> tuple[str, ...]:
    """Return messages about a plan's quality reductions, for images of `size` in a batch of `full_batch`."""
    messages = {
        f"run {batch} at a time instead of {full_batch}": batch != full_batch,
        "attention sliced": plan.sliced,
        f"shrunk to {plan.size[1]}×{plan.size[0]} instead of {size[1]}×{size[0]}": plan.size != size,
        "computed on the CPU": plan.offload_to_cpu,
    }
    return tuple(message for message, applies in messages.items() if applies)


def run_with_oom_fallback(
    run: PlanRunner, images: Images, plans: Sequence[ExecutionPlan], device: torch.device
) -> tuple[ImageFeatures, ...]:
    """Run the images in one batch by the first of the `plans` that fits the memory.

    A batch is first halved as often as needed; later plans are for single images. Each step is logged, and noted in
    `ImageFeatures.degradations`. Raises `SegmentationError` where the last plan fails too.
    """
    size, full_batch = plans[0].size, len(images)

    def attempt(images: Images, plans: Sequence[ExecutionPlan]) -> tuple[ImageFeatures, ...]:
        plan, *remaining = plans
        half = (len(images) + 1) // 2
        try:
            with normalise_oom_errors():
                messages = degradations(plan, size, len(images), full_batch)
                return tuple(replace(features, degradations=messages) for features in run(images, plan))
        except torch.OutOfMemoryError as error:
            if len(images) == 1 and not remaining:
                raise SegmentationError(
                    f"{device} has too little memory for this model, even after all fallbacks: "
                    "choose a smaller model, half precision, or another device"
                ) from error
            messages = degradations(plan if len(images) > 1 else remaining[0], size, half, full_batch)
            _log.warning("out of memory on %s: trying again, %s", device, ", ".join(messages))
        # Outside `except`, where the error would still hold the tensors of the pass.
        if device.type == "cuda":
            torch.cuda.empty_cache()  # for tensors of other sizes
        if len(images) > 1:
            return (*attempt(images[:half], plans), *attempt(images[half:], plans))
        return attempt(images, remaining)

    return attempt(images, plans)


@contextmanager
def normalise_oom_errors() -> Iterator[None]:
    """Raise `torch.OutOfMemoryError` whenever memory runs out, on every device, as CUDA does."""
    try:
        yield
    except RuntimeError as error:
        if any(message in str(error) for message in _OOM_MESSAGES):
            raise torch.OutOfMemoryError(str(error)) from error
        raise


@contextmanager
def sliced_attention(unet: Any) -> Iterator[None]:
    """Compute the attention of a U-Net head by head, and restore its processors afterwards."""
    before = dict(unet.attn_processors)
    try:
        unet.set_attn_processor(SlicedAttnProcessor(slice_size=1))
        yield
    finally:
        unet.set_attn_processor(before)
