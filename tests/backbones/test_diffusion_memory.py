"""The extractor where memory runs out: it still answers, tells what it gave up, and leaves its model as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, SlicedAttnProcessor
from jaxtyping import UInt8
from torch import Tensor, nn

from tests.builders.scenes import quarters
from tests.builders.tiny_diffusion import CPU, extractor_on, largest_difference, tiny_model
from walkcut.backbones import Part
from walkcut.backbones.diffusion import DiffusionExtractor
from walkcut.backbones.diffusion_model import DiffusionModel
from walkcut.errors import SegmentationError
from walkcut.hierarchy.granularity import Segments
from walkcut.segmentation.presets import read_recipe
from walkcut.segmentation.segmenter import Segmenter

BOTH: frozenset[Part] = frozenset({"maps", "features"})
MAPS: frozenset[Part] = frozenset({"maps"})
CUDA = torch.device("cuda")
BY_CPU = "computed on the CPU"


def picture(seed: int = 0) -> UInt8[Tensor, "y x 3"]:
    """A picture that is seen at 128×192."""
    return torch.randint(0, 256, (96, 160, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def parts_of(model: DiffusionModel) -> dict[str, nn.Module]:
    return {"U-Net": model.unet, "VAE": model.autoencoder.encoder}


@contextmanager
def short_of_memory(network: nn.Module, too_much: Callable[[Tensor], bool]) -> Iterator[None]:
    """Memory runs out where the network is given too much."""

    def allocate(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if too_much(inputs[0]):
            run_out()

    handle = network.register_forward_pre_hook(allocate)
    try:
        yield
    finally:
        handle.remove()


def run_out(_model: object = None) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def state(model: DiffusionModel) -> list[Any]:
    """All that a pass could leave behind."""
    networks = model.unet, model.autoencoder
    hooks = [len(each._forward_hooks) + len(each._forward_pre_hooks) for own in networks for each in own.modules()]
    weights = [(each.dtype, each.device, each._version) for own in networks for each in own.parameters()]
    return [dict(model.unet.attn_processors), dict(model.autoencoder.attn_processors), hooks, weights]


@pytest.fixture(scope="module")
def extractor() -> DiffusionExtractor:
    return extractor_on(tiny_model("sd14"))


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> DiffusionExtractor:
    """One that takes itself to be on a GPU, in half precision: what is sent there stays on the CPU."""
    model = tiny_model("sd14", dtype=torch.bfloat16)
    move: Any = nn.Module.to

    def stay(module: nn.Module, *place: Any) -> Any:
        return move(module, *(CPU if each == CUDA else each for each in place))

    monkeypatch.setattr(nn.Module, "to", stay)
    return extractor_on(replace(model, device=CUDA))


def test_attention_is_sliced(
    extractor: DiffusionExtractor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = extractor.model
    before, full = state(model), extractor.extract(picture(), MAPS)
    heads: list[int] = []
    scores = Attention.get_attention_scores

    def count(layer: Any, queries: Tensor, *others: Any) -> Tensor:
        heads.append(len(queries))
        return scores(layer, queries, *others)

    def whole(_input: Tensor) -> bool:
        return {type(each) for each in model.unet.attn_processors.values()} != {SlicedAttnProcessor}

    monkeypatch.setattr(Attention, "get_attention_scores", count)
    with short_of_memory(model.unet, whole):
        sliced = extractor.extract(picture(), MAPS)
    assert set(heads) == {1}
    assert sliced.concessions == ("attention sliced",)
    assert largest_difference(sliced, full) < 1e-4
    assert caplog.messages == ["out of memory on cpu: trying again, attention sliced"]
    assert state(model) == before


@pytest.mark.parametrize(
    ("most", "size", "grids"),
    [
        (128 * 128, "128×128", [(4, 4), (8, 8), (16, 16)]),
        (64 * 128, "128×64", [(2, 4), (4, 8), (8, 16)]),
    ],
)
@pytest.mark.parametrize("part", ["U-Net", "VAE"])
def test_pictures_are_seen_smaller(
    part: str, most: int, size: str, grids: list[tuple[int, int]], extractor: DiffusionExtractor
) -> None:
    before, pixels = state(extractor.model), {"U-Net": 64, "VAE": 1}[part]
    with short_of_memory(parts_of(extractor.model)[part], lambda inputs: inputs[0, 0].numel() * pixels > most):
        evidence = extractor.extract(picture(), BOTH)
    assert evidence.concessions == ("attention sliced", f"seen at {size} instead of 192×128")
    assert [level.grid for level in evidence.maps] == grids
    for level in evidence.maps:
        torch.testing.assert_close(level.weights.sum(1), torch.ones(len(level.weights)))
    assert evidence.features is not None
    assert evidence.features.shape == (16, *grids[0])
    assert state(extractor.model) == before


def test_a_picture_that_is_seen_smaller_is_segmented_at_its_own_size(extractor: DiffusionExtractor) -> None:
    with short_of_memory(extractor.model.unet, lambda latents: latents[0, 0].numel() > 8 * 16):
        labels = Segmenter(extractor, read_recipe("ncut")).tree(quarters(96, 160)).labels(Segments(4))
    assert labels.shape == (96, 160)
    assert len(np.unique(labels)) == 4


def test_fewer_pictures_run_at_a_time(extractor: DiffusionExtractor, caplog: pytest.LogCaptureFixture) -> None:
    pictures = [picture(0), picture(1).movedim(0, 1), picture(2), picture(3)]
    with short_of_memory(extractor.model.unet, lambda latents: len(latents) > 1):
        batch = extractor.extract_batch(pictures, MAPS)
    pair, alone = ("run 1 at a time instead of 3",), ()
    assert [each.concessions for each in batch] == [pair, alone, pair, pair]
    for own, image in zip(batch, pictures, strict=True):
        assert largest_difference(own, extractor.extract(image, MAPS)) < 1e-4
    assert caplog.messages == [
        f"out of memory on cpu: trying again, run {count} at a time instead of 3" for count in (2, 1)
    ]


def test_the_cpu_helps_out_in_full_precision(on_gpu: DiffusionExtractor, caplog: pytest.LogCaptureFixture) -> None:
    before, exact = state(on_gpu.model), tiny_model("sd14", dtype=torch.bfloat16)
    nn.Module.to(exact.unet, CPU, torch.float32)
    expected = extractor_on(replace(exact, dtype=torch.float32)).extract(picture(), BOTH)
    version = on_gpu.version
    with short_of_memory(on_gpu.model.unet, lambda latents: latents.dtype == torch.bfloat16):
        evidence = on_gpu.extract(picture(), BOTH)
    assert evidence.concessions == (BY_CPU,)
    assert largest_difference(evidence, expected) == 0
    sizes = ["", ", seen at 128×128 instead of 192×128", ", seen at 128×64 instead of 192×128"]
    steps = [*(f"attention sliced{size}" for size in sizes), BY_CPU]
    assert caplog.messages == [f"out of memory on cuda: trying again, {step}" for step in steps] * 2  # for each part
    assert state(on_gpu.model) == before
    assert on_gpu.version == version


def test_a_model_that_cannot_go_home_goes_there_as_soon_as_it_can(
    on_gpu: DiffusionExtractor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before, version = state(on_gpu.model), on_gpu.version
    plain = on_gpu.extract(picture(), BOTH)
    with monkeypatch.context() as full:
        full.setattr(DiffusionModel, "bring_home", run_out)
        for _ in range(2):
            assert on_gpu.extract(picture(), BOTH).concessions == (BY_CPU,)
            assert caplog.messages[-1] == "sd14-random stays on the CPU for now: cuda has no memory left for it"
    assert on_gpu.model.unet.dtype == torch.float32
    assert on_gpu.version == version
    evidence = on_gpu.extract(picture(), BOTH)
    assert evidence.concessions == ()
    assert largest_difference(evidence, plain) == 0
    assert state(on_gpu.model) == before


@pytest.mark.parametrize("part", ["U-Net", "VAE"])
def test_memory_that_the_cpu_itself_refuses_is_an_error_that_says_what_to_do(
    part: str, extractor: DiffusionExtractor, caplog: pytest.LogCaptureFixture
) -> None:
    before = state(extractor.model)
    with (
        short_of_memory(parts_of(extractor.model)[part], lambda _input: bool(torch.empty(1 << 52).numel())),
        pytest.raises(
            SegmentationError, match=r"cpu has too little memory for this model, .* choose a smaller model, h"
        ),
    ):
        extractor.extract(picture(), BOTH)
    assert len(caplog.messages) == 3
    assert state(extractor.model) == before


def test_other_errors_are_not_tried_again_and_leave_nothing_behind(on_gpu: DiffusionExtractor) -> None:
    before = state(on_gpu.model)
    tries: list[torch.dtype] = []

    def fail_on_the_cpu(latents: Tensor) -> bool:
        tries.append(latents.dtype)
        if latents.dtype == torch.float32:
            raise ZeroDivisionError
        return True

    with short_of_memory(on_gpu.model.unet, fail_on_the_cpu), pytest.raises(ZeroDivisionError):
        on_gpu.extract(picture(), BOTH)
    assert tries == [torch.bfloat16] * 4 + [torch.float32]
    assert state(on_gpu.model) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: there is no CUDA device here")
def test_a_true_gpu_gives_way_to_the_cpu_and_is_taken_up_again() -> None:
    model = tiny_model("sd14", dtype=torch.float16, device=CUDA)
    extractor = extractor_on(model)
    plain = extractor.extract(picture(), BOTH)

    def allocate(latents: Tensor) -> bool:
        return latents.is_cuda and bool(torch.empty(1 << 46, device=latents.device).numel())

    with short_of_memory(model.unet, allocate):
        evidence = extractor.extract(picture(), BOTH)
    assert evidence.concessions == (BY_CPU,)
    assert {level.weights.device.type for level in evidence.maps} == {"cpu"}
    assert {(each.device.type, each.dtype) for each in model.unet.parameters()} == {("cuda", torch.float16)}
    assert {each.device.type for each in model.autoencoder.parameters()} == {"cuda"}
    again = extractor.extract(picture(), BOTH)
    assert again.concessions == ()
    assert largest_difference(again, plain) < 1e-3
