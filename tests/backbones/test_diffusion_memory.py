"""The backbone where memory runs out: it still answers, tells what it gave up, and leaves its model as it was."""

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
from walkcut.backbones import FeatureKind
from walkcut.backbones.diffusion import DiffusionBackbone
from walkcut.backbones.diffusion_model import DiffusionModel
from walkcut.errors import SegmentationError
from walkcut.hierarchy.granularity import Segments
from walkcut.segmentation.presets import find_preset
from walkcut.segmentation.segmenter import Segmenter

BOTH: frozenset[FeatureKind] = frozenset({"maps", "features"})
MAPS: frozenset[FeatureKind] = frozenset({"maps"})
CUDA = torch.device("cuda")
BY_CPU = "computed on the CPU"


def make_image(seed: int = 0) -> UInt8[Tensor, "y x 3"]:
    """An image that is seen at 128×192."""
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
def backbone() -> DiffusionBackbone:
    return extractor_on(tiny_model("sd14"))


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> DiffusionBackbone:
    """One that takes itself to be on a GPU, in half precision: what is sent there stays on the CPU."""
    model = tiny_model("sd14", dtype=torch.bfloat16)
    move: Any = nn.Module.to

    def stay(module: nn.Module, *place: Any) -> Any:
        return move(module, *(CPU if each == CUDA else each for each in place))

    monkeypatch.setattr(nn.Module, "to", stay)
    return extractor_on(replace(model, device=CUDA))


def test_attention_is_sliced(
    backbone: DiffusionBackbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = backbone.model
    before, full = state(model), backbone.extract(make_image(), MAPS)
    heads: list[int] = []
    scores = Attention.get_attention_scores

    def count(layer: Any, queries: Tensor, *others: Any) -> Tensor:
        heads.append(len(queries))
        return scores(layer, queries, *others)

    def whole(_input: Tensor) -> bool:
        return {type(each) for each in model.unet.attn_processors.values()} != {SlicedAttnProcessor}

    monkeypatch.setattr(Attention, "get_attention_scores", count)
    with short_of_memory(model.unet, whole):
        sliced = backbone.extract(make_image(), MAPS)
    assert set(heads) == {1}
    assert sliced.degradations == ("attention sliced",)
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
def test_images_are_seen_smaller(
    part: str, most: int, size: str, grids: list[tuple[int, int]], backbone: DiffusionBackbone
) -> None:
    before, pixels = state(backbone.model), {"U-Net": 64, "VAE": 1}[part]
    with short_of_memory(parts_of(backbone.model)[part], lambda inputs: inputs[0, 0].numel() * pixels > most):
        image_features = backbone.extract(make_image(), BOTH)
    assert image_features.degradations == ("attention sliced", f"seen at {size} instead of 192×128")
    assert [level.grid for level in image_features.maps] == grids
    for level in image_features.maps:
        torch.testing.assert_close(level.weights.sum(1), torch.ones(len(level.weights)))
    assert image_features.features is not None
    assert image_features.features.shape == (16, *grids[0])
    assert state(backbone.model) == before


def test_a_image_that_is_seen_smaller_is_segmented_at_its_own_size(backbone: DiffusionBackbone) -> None:
    with short_of_memory(backbone.model.unet, lambda latents: latents[0, 0].numel() > 8 * 16):
        labels = Segmenter(backbone, find_preset("ncut")).segment(quarters(96, 160)).labels(Segments(4))
    assert labels.shape == (96, 160)
    assert len(np.unique(labels)) == 4


def test_fewer_images_run_at_a_time(backbone: DiffusionBackbone, caplog: pytest.LogCaptureFixture) -> None:
    images = [make_image(0), make_image(1).movedim(0, 1), make_image(2), make_image(3)]
    with short_of_memory(backbone.model.unet, lambda latents: len(latents) > 1):
        batch = backbone.extract_batch(images, MAPS)
    pair, alone = ("run 1 at a time instead of 3",), ()
    assert [each.degradations for each in batch] == [pair, alone, pair, pair]
    for own, single in zip(batch, images, strict=True):
        assert largest_difference(own, backbone.extract(single, MAPS)) < 1e-4
    assert caplog.messages == [
        f"out of memory on cpu: trying again, run {count} at a time instead of 3" for count in (2, 1)
    ]


def test_the_cpu_helps_out_in_full_precision(on_gpu: DiffusionBackbone, caplog: pytest.LogCaptureFixture) -> None:
    before, exact = state(on_gpu.model), tiny_model("sd14", dtype=torch.bfloat16)
    nn.Module.to(exact.unet, CPU, torch.float32)
    expected = extractor_on(replace(exact, dtype=torch.float32)).extract(make_image(), BOTH)
    version = on_gpu.version
    with short_of_memory(on_gpu.model.unet, lambda latents: latents.dtype == torch.bfloat16):
        image_features = on_gpu.extract(make_image(), BOTH)
    assert image_features.degradations == (BY_CPU,)
    assert largest_difference(image_features, expected) == 0
    sizes = ["", ", seen at 128×128 instead of 192×128", ", seen at 128×64 instead of 192×128"]
    steps = [*(f"attention sliced{size}" for size in sizes), BY_CPU]
    assert caplog.messages == [f"out of memory on cuda: trying again, {step}" for step in steps] * 2  # for each part
    assert state(on_gpu.model) == before
    assert on_gpu.version == version


def test_a_model_that_cannot_go_home_goes_there_as_soon_as_it_can(
    on_gpu: DiffusionBackbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before, version = state(on_gpu.model), on_gpu.version
    plain = on_gpu.extract(make_image(), BOTH)
    with monkeypatch.context() as full:
        full.setattr(DiffusionModel, "restore_device", run_out)
        for _ in range(2):
            assert on_gpu.extract(make_image(), BOTH).degradations == (BY_CPU,)
            assert caplog.messages[-1] == "sd14-random stays on the CPU for now: cuda has no memory left for it"
    assert on_gpu.model.unet.dtype == torch.float32
    assert on_gpu.version == version
    image_features = on_gpu.extract(make_image(), BOTH)
    assert image_features.degradations == ()
    assert largest_difference(image_features, plain) == 0
    assert state(on_gpu.model) == before


@pytest.mark.parametrize("part", ["U-Net", "VAE"])
def test_memory_that_the_cpu_itself_refuses_is_an_error_that_says_what_to_do(
    part: str, backbone: DiffusionBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    before = state(backbone.model)
    with (
        short_of_memory(parts_of(backbone.model)[part], lambda _input: bool(torch.empty(1 << 52).numel())),
        pytest.raises(
            SegmentationError, match=r"cpu has too little memory for this model, .* choose a smaller model, h"
        ),
    ):
        backbone.extract(make_image(), BOTH)
    assert len(caplog.messages) == 3
    assert state(backbone.model) == before


def test_other_errors_are_not_tried_again_and_leave_nothing_behind(on_gpu: DiffusionBackbone) -> None:
    before = state(on_gpu.model)
    tries: list[torch.dtype] = []

    def fail_on_the_cpu(latents: Tensor) -> bool:
        tries.append(latents.dtype)
        if latents.dtype == torch.float32:
            raise ZeroDivisionError
        return True

    with short_of_memory(on_gpu.model.unet, fail_on_the_cpu), pytest.raises(ZeroDivisionError):
        on_gpu.extract(make_image(), BOTH)
    assert tries == [torch.bfloat16] * 4 + [torch.float32]
    assert state(on_gpu.model) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: there is no CUDA device here")
def test_a_true_gpu_gives_way_to_the_cpu_and_is_taken_up_again() -> None:
    model = tiny_model("sd14", dtype=torch.float16, device=CUDA)
    backbone = extractor_on(model)
    plain = backbone.extract(make_image(), BOTH)

    def allocate(latents: Tensor) -> bool:
        return latents.is_cuda and bool(torch.empty(1 << 46, device=latents.device).numel())

    with short_of_memory(model.unet, allocate):
        image_features = backbone.extract(make_image(), BOTH)
    assert image_features.degradations == (BY_CPU,)
    assert {level.weights.device.type for level in image_features.maps} == {"cpu"}
    assert {(each.device.type, each.dtype) for each in model.unet.parameters()} == {("cuda", torch.float16)}
    assert {each.device.type for each in model.autoencoder.parameters()} == {"cuda"}
    again = backbone.extract(make_image(), BOTH)
    assert again.degradations == ()
    assert largest_difference(again, plain) < 1e-3
