"""The backbone where memory runs out: it falls back, reports degradations, and leaves its model unchanged."""

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
from tests.builders.tiny_diffusion import CPU, backbone_on, largest_difference, tiny_model
from walkcut.backbones import FeatureKind
from walkcut.backbones.diffusion import DiffusionBackbone
from walkcut.backbones.diffusion_model import DiffusionModel
from walkcut.errors import SegmentationError
from walkcut.hierarchy.granularity import Segments
from walkcut.segmentation.presets import find_preset
from walkcut.segmentation.segmenter import Segmenter

BOTH: frozenset[FeatureKind] = frozenset({"attention_maps", "feature_map"})
MAPS: frozenset[FeatureKind] = frozenset({"attention_maps"})
CUDA = torch.device("cuda")
BY_CPU = "computed on the CPU"


def make_image(seed: int = 0) -> UInt8[Tensor, "y x 3"]:
    """An image whose working size is 128×192."""
    return torch.randint(0, 256, (96, 160, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def networks_of(model: DiffusionModel) -> dict[str, nn.Module]:
    return {"U-Net": model.unet, "VAE": model.autoencoder.encoder}


@contextmanager
def short_of_memory(network: nn.Module, too_much: Callable[[Tensor], bool]) -> Iterator[None]:
    """Run out of memory where the input of the network is too large."""

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
    """Everything that a pass could change."""
    networks = model.unet, model.autoencoder
    modules = [module for network in networks for module in network.modules()]
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules]
    parameters = [parameter for network in networks for parameter in network.parameters()]
    weights = [(parameter.dtype, parameter.device, parameter._version) for parameter in parameters]
    return [dict(model.unet.attn_processors), dict(model.autoencoder.attn_processors), hooks, weights]


@pytest.fixture(scope="module")
def backbone() -> DiffusionBackbone:
    return backbone_on(tiny_model("sd14"))


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> DiffusionBackbone:
    """A backbone in half precision whose GPU is the CPU."""
    model = tiny_model("sd14", dtype=torch.bfloat16)
    move: Any = nn.Module.to

    def stay(module: nn.Module, *targets: Any) -> Any:
        return move(module, *(CPU if target == CUDA else target for target in targets))

    monkeypatch.setattr(nn.Module, "to", stay)
    return backbone_on(replace(model, device=CUDA))


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

    def is_unsliced(_input: Tensor) -> bool:
        return {type(processor) for processor in model.unet.attn_processors.values()} != {SlicedAttnProcessor}

    monkeypatch.setattr(Attention, "get_attention_scores", count)
    with short_of_memory(model.unet, is_unsliced):
        sliced = backbone.extract(make_image(), MAPS)
    assert set(heads) == {1}
    assert sliced.degradations == ("attention sliced",)
    assert largest_difference(sliced, full) < 1e-4
    assert caplog.messages == ["out of memory on cpu: trying again, attention sliced"]
    assert state(model) == before


@pytest.mark.parametrize(
    ("max_pixels", "size", "grids"),
    [
        (128 * 128, "128×128", [(4, 4), (8, 8), (16, 16)]),
        (64 * 128, "128×64", [(2, 4), (4, 8), (8, 16)]),
    ],
)
@pytest.mark.parametrize("network", ["U-Net", "VAE"])
def test_images_are_shrunk(
    network: str, max_pixels: int, size: str, grids: list[tuple[int, int]], backbone: DiffusionBackbone
) -> None:
    before, pixels = state(backbone.model), {"U-Net": 64, "VAE": 1}[network]
    with short_of_memory(
        networks_of(backbone.model)[network], lambda inputs: inputs[0, 0].numel() * pixels > max_pixels
    ):
        features = backbone.extract(make_image(), BOTH)
    assert features.degradations == ("attention sliced", f"shrunk to {size} instead of 192×128")
    assert [level.grid for level in features.attention_maps] == grids
    for level in features.attention_maps:
        torch.testing.assert_close(level.weights.sum(1), torch.ones(len(level.weights)))
    assert features.feature_map is not None
    assert features.feature_map.shape == (16, *grids[0])
    assert state(backbone.model) == before


def test_a_shrunk_image_is_segmented_at_its_full_size(backbone: DiffusionBackbone) -> None:
    with short_of_memory(backbone.model.unet, lambda latents: latents[0, 0].numel() > 8 * 16):
        labels = Segmenter(backbone, find_preset("ncut")).segment(quarters(96, 160)).labels(Segments(4))
    assert labels.shape == (96, 160)
    assert len(np.unique(labels)) == 4


def test_fewer_images_run_at_a_time(backbone: DiffusionBackbone, caplog: pytest.LogCaptureFixture) -> None:
    images = [make_image(0), make_image(1).movedim(0, 1), make_image(2), make_image(3)]
    with short_of_memory(backbone.model.unet, lambda latents: len(latents) > 1):
        batch = backbone.extract_batch(images, MAPS)
    pair, alone = ("run 1 at a time instead of 3",), ()
    assert [features.degradations for features in batch] == [pair, alone, pair, pair]
    for batched, image in zip(batch, images, strict=True):
        assert largest_difference(batched, backbone.extract(image, MAPS)) < 1e-4
    assert caplog.messages == [
        f"out of memory on cpu: trying again, run {count} at a time instead of 3" for count in (2, 1)
    ]


def test_the_cpu_is_used_in_full_precision(on_gpu: DiffusionBackbone, caplog: pytest.LogCaptureFixture) -> None:
    before, exact = state(on_gpu.model), tiny_model("sd14", dtype=torch.bfloat16)
    nn.Module.to(exact.unet, CPU, torch.float32)
    expected = backbone_on(replace(exact, dtype=torch.float32)).extract(make_image(), BOTH)
    version = on_gpu.version
    with short_of_memory(on_gpu.model.unet, lambda latents: latents.dtype == torch.bfloat16):
        features = on_gpu.extract(make_image(), BOTH)
    assert features.degradations == (BY_CPU,)
    assert largest_difference(features, expected) == 0
    sizes = ["", ", shrunk to 128×128 instead of 192×128", ", shrunk to 128×64 instead of 192×128"]
    steps = [*(f"attention sliced{size}" for size in sizes), BY_CPU]
    assert (
        caplog.messages == [f"out of memory on cuda: trying again, {step}" for step in steps] * 2
    )  # for each kind of features
    assert state(on_gpu.model) == before
    assert on_gpu.version == version


def test_a_model_moves_back_to_its_device_as_soon_as_it_fits(
    on_gpu: DiffusionBackbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before, version = state(on_gpu.model), on_gpu.version
    plain = on_gpu.extract(make_image(), BOTH)
    with monkeypatch.context() as full:
        full.setattr(DiffusionModel, "restore_device", run_out)
        for _ in range(2):
            assert on_gpu.extract(make_image(), BOTH).degradations == (BY_CPU,)
            assert caplog.messages[-1] == "sd14-random stays on the CPU until cuda has memory for it"
    assert on_gpu.model.unet.dtype == torch.float32
    assert on_gpu.version == version
    features = on_gpu.extract(make_image(), BOTH)
    assert features.degradations == ()
    assert largest_difference(features, plain) == 0
    assert state(on_gpu.model) == before


@pytest.mark.parametrize("network", ["U-Net", "VAE"])
def test_memory_that_the_cpu_refuses_is_an_error_with_a_remedy(
    network: str, backbone: DiffusionBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    before = state(backbone.model)
    with (
        short_of_memory(networks_of(backbone.model)[network], lambda _input: bool(torch.empty(1 << 52).numel())),
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
def test_a_real_gpu_falls_back_to_the_cpu_and_is_used_again() -> None:
    model = tiny_model("sd14", dtype=torch.float16, device=CUDA)
    backbone = backbone_on(model)
    plain = backbone.extract(make_image(), BOTH)

    def allocate(latents: Tensor) -> bool:
        return latents.is_cuda and bool(torch.empty(1 << 46, device=latents.device).numel())

    with short_of_memory(model.unet, allocate):
        features = backbone.extract(make_image(), BOTH)
    assert features.degradations == (BY_CPU,)
    assert {level.weights.device.type for level in features.attention_maps} == {"cpu"}
    assert {(parameter.device.type, parameter.dtype) for parameter in model.unet.parameters()} == {
        ("cuda", torch.float16)
    }
    assert {parameter.device.type for parameter in model.autoencoder.parameters()} == {"cuda"}
    again = backbone.extract(make_image(), BOTH)
    assert again.degradations == ()
    assert largest_difference(again, plain) < 1e-3
