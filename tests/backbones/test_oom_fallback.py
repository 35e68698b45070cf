"""Fallbacks where memory runs out: their order, the images that they apply to, and their messages."""

import weakref
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, SlicedAttnProcessor
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.builders.tiny_diffusion import CPU, tiny_model
from walkcut.backbones import ImageFeatures
from walkcut.backbones.oom_fallback import (
    ExecutionPlan,
    Images,
    degradations,
    fallback_plans,
    normalise_oom_errors,
    run_with_oom_fallback,
    sliced_attention,
)
from walkcut.errors import SegmentationError

CUDA = torch.device("cuda")
FULL, SLICED, SMALLER, SMALLEST, ON_CPU = fallback_plans((512, 768), 64, CUDA)


def make_images(count: int) -> list[Tensor]:
    """Images identified by their colour."""
    return [torch.full((16, 16, 3), colour, dtype=torch.uint8) for colour in range(count)]


class Model:
    """Returns the colour of each image if the memory suffices, and records the images and plans tried."""

    def __init__(self, suffices: Callable[[list[int], ExecutionPlan], bool]) -> None:
        self.suffices = suffices
        self.tried: list[tuple[list[int], ExecutionPlan]] = []

    def run(self, images: Images, plan: ExecutionPlan) -> tuple[ImageFeatures, ...]:
        colours = [int(image[0, 0, 0]) for image in images]
        self.tried.append((colours, plan))
        if not self.suffices(colours, plan):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tuple(ImageFeatures(feature_map=torch.full((1, 1, 1), float(colour))) for colour in colours)


def colours_in(batch: tuple[ImageFeatures, ...]) -> list[float]:
    return [float(features.feature_map.item()) for features in batch if features.feature_map is not None]


def test_the_plans_by_hand() -> None:
    full = (512, 768)
    plans = [
        ExecutionPlan(full),
        ExecutionPlan(full, sliced=True),
        ExecutionPlan((384, 576), sliced=True),
        ExecutionPlan((256, 384), sliced=True),
    ]
    assert fallback_plans(full, 64, CUDA) == (*plans, ExecutionPlan(full, offload_to_cpu=True))
    assert fallback_plans(full, 64, CPU) == tuple(plans)
    assert fallback_plans(full, 64, torch.device("cpu:0")) == tuple(plans)


@pytest.mark.parametrize(
    ("size", "smaller"),
    [
        ((64, 64), []),
        ((128, 128), [(64, 64)]),
        ((64, 256), [(64, 192), (64, 128)]),
        ((128, 192), [(128, 128), (64, 128)]),
    ],
)
def test_plans_that_would_change_nothing_are_dropped(size: tuple[int, int], smaller: list[tuple[int, int]]) -> None:
    plans = fallback_plans(size, 64, CPU)
    assert plans == (
        ExecutionPlan(size),
        *(ExecutionPlan(smaller_size, sliced=True) for smaller_size in (size, *smaller)),
    )


@given(st.integers(1, 64), st.integers(1, 64), st.sampled_from([32, 64]))
def test_sides_stay_multiples_and_areas_fall(height: int, width: int, multiple: int) -> None:
    sizes = [plan.size for plan in fallback_plans((height * multiple, width * multiple), multiple, CPU)[1:]]
    areas = [height * width for height, width in sizes]
    assert all(side >= multiple and side % multiple == 0 for size in sizes for side in size)
    assert all(smaller < larger for larger, smaller in pairwise(areas))


@pytest.mark.parametrize(
    ("plan", "messages"),
    [
        (FULL, ()),
        (SLICED, ("attention sliced",)),
        (SMALLER, ("attention sliced", "shrunk to 576×384 instead of 768×512")),
        (ON_CPU, ("computed on the CPU",)),
    ],
)
def test_degradations_are_messages(plan: ExecutionPlan, messages: tuple[str, ...]) -> None:
    assert degradations(plan, (512, 768), 1, 1) == messages
    assert degradations(plan, (512, 768), 2, 5) == ("run 2 at a time instead of 5", *messages)


def test_with_memory_enough_nothing_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    model = Model(lambda colours, plan: True)
    batch = run_with_oom_fallback(model.run, make_images(3), (FULL, SLICED), CPU)
    assert colours_in(batch) == [0, 1, 2]
    assert [features.degradations for features in batch] == [()] * 3
    assert model.tried == [([0, 1, 2], FULL)]
    assert not caplog.messages


def test_a_batch_is_halved_until_it_fits(caplog: pytest.LogCaptureFixture) -> None:
    model = Model(lambda colours, plan: len(colours) <= 2)
    batch = run_with_oom_fallback(model.run, make_images(5), (FULL, SLICED), CPU)
    assert colours_in(batch) == [0, 1, 2, 3, 4]
    assert [colours for colours, _ in model.tried] == [[0, 1, 2, 3, 4], [0, 1, 2], [0, 1], [2], [3, 4]]
    assert {plan for _, plan in model.tried} == {FULL}
    pair, alone = ("run 2 at a time instead of 5",), ("run 1 at a time instead of 5",)
    assert [features.degradations for features in batch] == [pair, pair, alone, pair, pair]
    assert caplog.messages == [
        "out of memory on cpu: trying again, run 3 at a time instead of 5",
        "out of memory on cpu: trying again, run 2 at a time instead of 5",
    ]


def test_a_batch_is_halved_even_without_another_plan() -> None:
    model = Model(lambda colours, plan: len(colours) == 1)
    assert colours_in(run_with_oom_fallback(model.run, make_images(2), (FULL,), CPU)) == [0, 1]


def test_only_the_image_that_fails_takes_a_later_plan(caplog: pytest.LogCaptureFixture) -> None:
    model = Model(lambda colours, plan: 2 not in colours or plan == SMALLER)
    batch = run_with_oom_fallback(model.run, make_images(4), (FULL, SLICED, SMALLER, SMALLEST), CPU)
    assert colours_in(batch) == [0, 1, 2, 3]
    pair, alone = "run 2 at a time instead of 4", "run 1 at a time instead of 4"
    smaller = (alone, "attention sliced", "shrunk to 576×384 instead of 768×512")
    assert [features.degradations for features in batch] == [(pair,), (pair,), smaller, (alone,)]
    assert model.tried == [
        ([0, 1, 2, 3], FULL),
        ([0, 1], FULL),
        ([2, 3], FULL),
        *(([2], plan) for plan in (FULL, SLICED, SMALLER)),
        ([3], FULL),
    ]
    steps = ["run 2 at a time instead of 4", alone, f"{alone}, attention sliced", ", ".join(smaller)]
    assert caplog.messages == [f"out of memory on cpu: trying again, {step}" for step in steps]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_memory_too_small_for_the_last_plan_is_an_error(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    model, plans = Model(lambda colours, plan: False), fallback_plans((128, 128), 64, device)
    with pytest.raises(
        SegmentationError, match=f"{device} has too little memory for this model, .* choose a smaller m"
    ):
        run_with_oom_fallback(model.run, make_images(1), plans, device)
    assert [plan for _, plan in model.tried] == list(plans)


@pytest.mark.parametrize(("device", "times"), [(CPU, 0), (CUDA, 2)], ids=["cpu", "cuda"])
def test_cached_memory_is_released_between_attempts(
    device: torch.device, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[int] = []
    model = Model(lambda colours, plan: plan == SLICED and len(colours) == 1)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: released.append(len(model.tried)))
    run_with_oom_fallback(model.run, make_images(2)[:1], (FULL, SLICED), device)
    run_with_oom_fallback(model.run, make_images(2)[1:], (FULL, SLICED), device)
    assert released == [1, 3][:times]


def test_memory_of_a_failed_attempt_is_free_before_the_next() -> None:
    held: list[weakref.ref[Tensor]] = []

    def run(batch: Images, plan: ExecutionPlan) -> tuple[ImageFeatures, ...]:
        assert all(reference() is None for reference in held)
        tensor = torch.zeros(8)
        held.append(weakref.ref(tensor))
        if len(batch) > 1 or plan != SMALLEST:
            raise torch.OutOfMemoryError(str(tensor.device))
        return (ImageFeatures(),)

    run_with_oom_fallback(run, make_images(2), (FULL, SLICED, SMALLEST), CPU)
    assert len(held) == 7


def test_the_cpus_own_error_has_the_name_of_cudas() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="can't allocate memory"), normalise_oom_errors():
        torch.empty(1 << 52)


@pytest.mark.parametrize(
    "message", ["MPS backend out of memory (MPS allocated: 5 GB)", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"]
)
def test_errors_of_other_devices_have_the_name_of_cudas(message: str) -> None:
    with pytest.raises(torch.OutOfMemoryError, match=message.split(" (", maxsplit=1)[0]), normalise_oom_errors():
        raise RuntimeError(message)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ValueError("out of memory"), torch.OutOfMemoryError()]
)
def test_other_errors_keep_their_name(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, normalise_oom_errors():
        raise error
    assert raised.value is error


def test_attention_is_sliced_inside_the_context_only() -> None:
    model = tiny_model("sd14")
    odd = AttnProcessor()
    model.unet.set_attn_processor({**model.unet.attn_processors, next(iter(model.unet.attn_processors)): odd})
    before = dict(model.unet.attn_processors)
    with pytest.raises(torch.OutOfMemoryError), sliced_attention(model.unet):  # noqa: PT012 - the error ends the block
        assert {type(processor) for processor in model.unet.attn_processors.values()} == {SlicedAttnProcessor}
        raise torch.OutOfMemoryError
    assert dict(model.unet.attn_processors) == before
    assert next(iter(model.unet.attn_processors.values())) is odd
