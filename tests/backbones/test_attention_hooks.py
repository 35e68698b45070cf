"""Capturing layers of a U-Net: against the formula, and without side effects."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.builders.tiny_diffusion import FAMILIES, tiny_model
from walkcut.backbones.attention_hooks import (
    Projections,
    add_attention,
    capture_attention,
    capture_output,
    focus,
    self_attention_layers,
)
from walkcut.backbones.diffusion_model import DiffusionModel
from walkcut.errors import SegmentationError

PROCESSORS = (AttnProcessor, AttnProcessor2_0)
LATENTS = torch.randn(2, 4, 16, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return tiny_model("sd14")


@contextmanager
def calls_of(unet: nn.Module) -> Iterator[Counter[str]]:
    """Count the calls of each module inside."""
    calls: Counter[str] = Counter()
    handles = [
        module.register_forward_pre_hook(lambda _module, _inputs, name=name: calls.update([name]))
        for name, module in unet.named_modules()
    ]
    yield calls
    for handle in handles:
        handle.remove()


def reference_attention(layer: Projections, hidden: Tensor) -> Tensor:
    """The mean over heads of `softmax(Q Kᵀ / √d)`, by the formula."""
    queries, keys = (
        projection(hidden).unflatten(2, (layer.heads, -1)).transpose(1, 2).double()
        for projection in (layer.to_q, layer.to_k)
    )
    return (queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(-1).mean(1)


def hooks_of(unet: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in unet.modules())


@pytest.mark.parametrize("processor", PROCESSORS)
@torch.no_grad()
def test_maps_are_the_softmax_of_queries_and_keys(model: DiffusionModel, processor: type) -> None:
    model.unet.set_attn_processor(processor())
    layers = [layer for layer in self_attention_layers(model.unet) if layer.depth == 1]
    inputs_of: list[Tensor] = []
    handles = [
        layer.module.register_forward_pre_hook(lambda _, inputs: inputs_of.append(inputs[0])) for layer in layers
    ]
    with capture_attention({1: [layer.projections for layer in layers]}) as averages:
        model.predict(LATENTS, 181)
    for handle in handles:
        handle.remove()
    expected = torch.stack(
        [reference_attention(layer.projections, hidden) for layer, hidden in zip(layers, inputs_of, strict=True)]
    ).mean(0)
    assert expected.amax(-1).mean() > 2 / 32  # far from uniform
    torch.testing.assert_close(averages[1], expected.float(), atol=1e-6, rtol=1e-4)


def test_heads_by_entropy_count_by_how_far_they_are_from_uniform() -> None:
    """Head 1 attends to one patch and head 2 to two of four, so that they count 1 and ½; head 3 to all, hardly."""
    focused = torch.tensor([[60.0, 0, 0, 0], [60, 60, 0, 0], [0, 0, 0, 0]])
    keys = focused[:, None, :, None]
    queries, total = torch.ones_like(keys), torch.zeros(1, 4, 4)
    add_attention(total, queries, keys, weight=1 / 3, by_entropy=True)
    expected = torch.tensor([1.25, 0.25, 0, 0]) / 1.5
    torch.testing.assert_close(total[0] / total[0].sum(-1, keepdim=True), expected.expand(4, 4), atol=1e-3, rtol=0)


def test_the_focus_of_rows() -> None:
    rows = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4])
    torch.testing.assert_close(focus(rows), torch.tensor([[1.0], [0.5], [1e-3]]))
    assert focus(torch.ones(1, 1)).tolist() == [[1]]


@torch.no_grad()
def test_maps_by_entropy_are_distributions_too(model: DiffusionModel) -> None:
    layers = {1: [layer.projections for layer in self_attention_layers(model.unet) if layer.depth == 1]}
    maps = list[Tensor]()
    for by_entropy in (False, True):
        with capture_attention(layers, by_entropy=by_entropy) as averages:
            model.predict(LATENTS, 181)
        torch.testing.assert_close(averages[1].sum(-1), torch.ones(2, 32))
        maps.append(averages[1])
    assert (maps[0] - maps[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("family", "counts"),
    [
        ("sd14", {"encoder": 6, "middle": 1, "decoder": 9}),
        ("sd15", {"encoder": 6, "middle": 1, "decoder": 9}),
        ("sd21", {"encoder": 6, "middle": 1, "decoder": 9}),
        ("ssd1b", {"encoder": 12, "decoder": 22}),
        ("sdxl", {"encoder": 24, "middle": 10, "decoder": 36}),
    ],
)
def test_every_layer_is_found_with_its_position(family: str, counts: dict[str, int]) -> None:
    assert Counter(layer.position for layer in self_attention_layers(tiny_model(family).unet)) == counts


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_depths_are_those_of_the_grids(family: str) -> None:
    model = tiny_model(family)
    all_layers = self_attention_layers(model.unet)
    depths = {depth: [layer.projections for layer in all_layers if layer.depth == depth] for depth in range(4)}
    with capture_attention({depth: layers for depth, layers in depths.items() if layers}) as averages:
        model.predict(LATENTS, 181)
    assert {depth: average.shape[1] for depth, average in averages.items()} == {
        depth: 128 >> 2 * depth for depth, layers in depths.items() if layers
    }


def test_the_last_encoder_layer_is_the_one_that_diffcut_reads() -> None:
    for family, block in (("sd14", -2), ("ssd1b", -1), ("sdxl", -1)):
        unet = tiny_model(family).unet
        encoder = [layer for layer in self_attention_layers(unet) if layer.position == "encoder"]
        assert encoder[-1].module is unet.down_blocks[block].attentions[-1].transformer_blocks[-1].attn1


@torch.no_grad()
def test_features_are_the_layers_output_and_the_decoder_does_not_run(model: DiffusionModel) -> None:
    layer = model.unet.down_blocks[2].attentions[1].transformer_blocks[0].attn1
    complete: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: complete.append(output))
    model.predict(LATENTS, 50)
    handle.remove()
    with calls_of(model.unet) as calls, capture_output(layer) as outputs:
        model.predict(LATENTS, 50)
    assert torch.equal(outputs[0], complete[0])
    assert calls["down_blocks.2.attentions.1.transformer_blocks.0.attn1"] == 1
    assert not [name for name in calls if name.startswith(("up_blocks", "mid_block", "conv_out", "down_blocks.3"))]


@torch.no_grad()
def test_a_pass_ends_at_the_last_requested_layer(model: DiffusionModel) -> None:
    layers = [layer.projections for layer in self_attention_layers(model.unet) if layer.depth == 2]
    with calls_of(model.unet) as calls, capture_attention({2: layers}):
        model.predict(LATENTS, 181)
    assert calls["up_blocks.1"] == 1
    assert not [name for name in calls if name.startswith(("up_blocks.2", "up_blocks.3", "conv_out"))]


@torch.no_grad()
def test_the_model_is_left_as_it_was(model: DiffusionModel) -> None:
    before, processors = model.predict(LATENTS, 181), dict(model.unet.attn_processors)
    layers = [layer.projections for layer in self_attention_layers(model.unet)]
    with capture_attention({0: layers[:1]}):
        model.predict(LATENTS, 181)
    with pytest.raises(ZeroDivisionError), capture_attention({0: layers}):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), capture_output(model.unet.conv_in):
        raise ZeroDivisionError
    assert hooks_of(model.unet) == 0
    assert model.unet.attn_processors == processors
    assert torch.equal(model.predict(LATENTS, 181), before)


@torch.no_grad()
def test_layers_without_separate_queries_are_an_error() -> None:
    model = tiny_model("sd14")
    model.unet.fuse_qkv_projections()
    layers = [layer.projections for layer in self_attention_layers(model.unet)]
    with (
        pytest.raises(SegmentationError, match="16 layers gave no queries and keys: undo the model's fused proj"),
        capture_attention({0: layers}),
    ):
        model.predict(LATENTS, 181)


@pytest.mark.parametrize("patches", [1, 5, 512, 700])
def test_adding_row_by_row_is_the_same(patches: int) -> None:
    queries, keys = torch.randn(2, 3, 2, patches, 4, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(2, patches, patches)
    add_attention(total, queries, keys, weight=1 / 3)
    torch.testing.assert_close(total, (queries @ keys.mT / 2).softmax(-1).mean(0))


@pytest.mark.parametrize(("size", "expected"), [(0.0, [[0.5, 0.5], [0.5, 0.5]]), (200.0, [[1.0, 0.0], [0.0, 1.0]])])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_extreme_attention_has_no_nan(size: float, expected: Sequence[Sequence[float]], dtype: torch.dtype) -> None:
    heads = size * torch.eye(2, dtype=dtype)[None, None]
    total = torch.zeros(1, 2, 2)
    add_attention(total, heads, heads, weight=1.0)
    assert total[0].tolist() == expected


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and all(result is not argument for argument in args) and not func.is_view:
            self.size = max(self.size, result.numel())
        return result


def test_no_more_than_one_heads_map_is_alive() -> None:
    queries, keys = torch.randn(2, 8, 1, 1024, 4)
    total = torch.zeros(1, 1024, 1024)
    with LargestTensor() as largest:
        add_attention(total, queries, keys, weight=1 / 8)
    assert 0 < largest.size <= 1024 * 1024 // 2
