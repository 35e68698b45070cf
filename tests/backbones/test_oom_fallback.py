"""Where memory runs out: what is given up, in which order, for which images, and what is told of it."""

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
    """Images that are told apart by their colour."""
    return [torch.full((16, 16, 3), colour, dtype=torch.uint8) for colour in range(count)]


class Model:
    """Finds each image's colour where memory suffices, and remembers what it was shown, and with which effort."""

    def __init__(self, suffices: Callable[[list[int], ExecutionPlan], bool]) -> None:
        self.suffices = suffices
        self.tried: list[tuple[list[int], ExecutionPlan]] = []

    def run(self, images: Images, effort: ExecutionPlan) -> tuple[ImageFeatures, ...]:
        colours = [int(image[0, 0, 0]) for image in images]
        self.tried.append((colours, effort))
        if not self.suffices(colours, effort):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tuple(ImageFeatures(features=torch.full((1, 1, 1), float(colour))) for colour in colours)


def colours_in(found: tuple[ImageFeatures, ...]) -> list[float]:
    return [float(each.features.item()) for each in found if each.features is not None]


def test_the_ladder_by_hand() -> None:
    full = (512, 768)
    efforts = [
        ExecutionPlan(full),
        ExecutionPlan(full, sliced=True),
        ExecutionPlan((384, 576), sliced=True),
        ExecutionPlan((256, 384), sliced=True),
    ]
    assert fallback_plans(full, 64, CUDA) == (*efforts, ExecutionPlan(full, offload_to_cpu=True))
    assert fallback_plans(full, 64, CPU) == tuple(efforts)
    assert fallback_plans(full, 64, torch.device("cpu:0")) == tuple(efforts)


@pytest.mark.parametrize(
    ("size", "smaller"),
    [
        ((64, 64), []),
        ((128, 128), [(64, 64)]),
        ((64, 256), [(64, 192), (64, 128)]),
        ((128, 192), [(128, 128), (64, 128)]),
    ],
)
def test_efforts_that_would_change_nothing_are_left_out(size: tuple[int, int], smaller: list[tuple[int, int]]) -> None:
    efforts = fallback_plans(size, 64, CPU)
    assert efforts == (ExecutionPlan(size), *(ExecutionPlan(each, sliced=True) for each in (size, *smaller)))


@given(st.integers(1, 64), st.integers(1, 64), st.sampled_from([32, 64]))
def test_sides_stay_multiples_and_areas_fall(height: int, width: int, multiple: int) -> None:
    sizes = [effort.size for effort in fallback_plans((height * multiple, width * multiple), multiple, CPU)[1:]]
    areas = [height * width for height, width in sizes]
    assert all(side >= multiple and side % multiple == 0 for size in sizes for side in size)
    assert all(less < more for more, less in pairwise(areas))


@pytest.mark.parametrize(
    ("effort", "told"),
    [
        (FULL, ()),
        (SLICED, ("attention sliced",)),
        (SMALLER, ("attention sliced", "seen at 576×384 instead of 768×512")),
        (ON_CPU, ("computed on the CPU",)),
    ],
)
def test_concessions_are_told_in_plain_words(effort: ExecutionPlan, told: tuple[str, ...]) -> None:
    assert degradations(effort, (512, 768), 1, 1) == told
    assert degradations(effort, (512, 768), 2, 5) == ("run 2 at a time instead of 5", *told)


def test_with_memory_enough_nothing_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    model = Model(lambda colours, effort: True)
    found = run_with_oom_fallback(model.run, make_images(3), (FULL, SLICED), CPU)
    assert colours_in(found) == [0, 1, 2]
    assert [each.degradations for each in found] == [()] * 3
    assert model.tried == [([0, 1, 2], FULL)]
    assert not caplog.messages


def test_a_batch_is_halved_until_it_fits(caplog: pytest.LogCaptureFixture) -> None:
    model = Model(lambda colours, effort: len(colours) <= 2)
    found = run_with_oom_fallback(model.run, make_images(5), (FULL, SLICED), CPU)
    assert colours_in(found) == [0, 1, 2, 3, 4]
    assert [colours for colours, _ in model.tried] == [[0, 1, 2, 3, 4], [0, 1, 2], [0, 1], [2], [3, 4]]
    assert {effort for _, effort in model.tried} == {FULL}
    pair, alone = ("run 2 at a time instead of 5",), ("run 1 at a time instead of 5",)
    assert [each.degradations for each in found] == [pair, pair, alone, pair, pair]
    assert caplog.messages == [
        "out of memory on cpu: trying again, run 3 at a time instead of 5",
        "out of memory on cpu: trying again, run 2 at a time instead of 5",
    ]


def test_a_batch_is_halved_even_where_nothing_else_can_be_given_up() -> None:
    model = Model(lambda colours, effort: len(colours) == 1)
    assert colours_in(run_with_oom_fallback(model.run, make_images(2), (FULL,), CPU)) == [0, 1]


def test_only_the_image_that_fails_is_seen_with_less_effort(caplog: pytest.LogCaptureFixture) -> None:
    model = Model(lambda colours, effort: 2 not in colours or effort == SMALLER)
    found = run_with_oom_fallback(model.run, make_images(4), (FULL, SLICED, SMALLER, SMALLEST), CPU)
    assert colours_in(found) == [0, 1, 2, 3]
    pair, alone = "run 2 at a time instead of 4", "run 1 at a time instead of 4"
    smaller = (alone, "attention sliced", "seen at 576×384 instead of 768×512")
    assert [each.degradations for each in found] == [(pair,), (pair,), smaller, (alone,)]
    assert model.tried == [
        ([0, 1, 2, 3], FULL),
        ([0, 1], FULL),
        ([2, 3], FULL),
        *(([2], effort) for effort in (FULL, SLICED, SMALLER)),
        ([3], FULL),
    ]
    steps = ["run 2 at a time instead of 4", alone, f"{alone}, attention sliced", ", ".join(smaller)]
    assert caplog.messages == [f"out of memory on cpu: trying again, {step}" for step in steps]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_memory_too_small_for_the_least_effort_is_an_error(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    model, efforts = Model(lambda colours, effort: False), fallback_plans((128, 128), 64, device)
    with pytest.raises(
        SegmentationError, match=f"{device} has too little memory for this model, .* choose a smaller m"
    ):
        run_with_oom_fallback(model.run, make_images(1), efforts, device)
    assert [effort for _, effort in model.tried] == list(efforts)


@pytest.mark.parametrize(("device", "times"), [(CPU, 0), (CUDA, 2)], ids=["cpu", "cuda"])
def test_memory_that_is_kept_for_later_is_given_back_between_tries(
    device: torch.device, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[int] = []
    model = Model(lambda colours, effort: effort == SLICED and len(colours) == 1)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(len(model.tried)))
    run_with_oom_fallback(model.run, make_images(2)[:1], (FULL, SLICED), device)
    run_with_oom_fallback(model.run, make_images(2)[1:], (FULL, SLICED), device)
    assert given_back == [1, 3][:times]


def test_what_a_failed_try_held_is_free_before_the_next() -> None:
    held: list[weakref.ref[Tensor]] = []

    def run(batch: Images, effort: ExecutionPlan) -> tuple[ImageFeatures, ...]:
        assert all(reference() is None for reference in held)
        tensor = torch.zeros(8)
        held.append(weakref.ref(tensor))
        if len(batch) > 1 or effort != SMALLEST:
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


def test_attention_is_sliced_for_as_long_as_it_is_asked_for() -> None:
    model = tiny_model("sd14")
    odd = AttnProcessor()
    model.unet.set_attn_processor({**model.unet.attn_processors, next(iter(model.unet.attn_processors)): odd})
    before = dict(model.unet.attn_processors)
    with pytest.raises(torch.OutOfMemoryError), sliced_attention(model.unet):  # noqa: PT012 - the error ends the block
        assert {type(each) for each in model.unet.attn_processors.values()} == {SlicedAttnProcessor}
        raise torch.OutOfMemoryError
    assert dict(model.unet.attn_processors) == before
    assert next(iter(model.unet.attn_processors.values())) is odd
