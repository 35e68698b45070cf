"""Reads self-attention and features out of a U-Net while it runs, and leaves it as it was.

The hooks sit on the projections to queries and keys, so that they work with every attention processor of diffusers.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from walkcut.errors import SegmentationError

BlockPosition = Literal["encoder", "middle", "decoder"]

_ROWS = 512  # of a map computed at a time: small enough for the caches, and little memory beside the whole map


@dataclass(frozen=True, eq=False)
class Projections:
    """What a layer's attention is read from: its projections to the queries and keys of all heads."""

    heads: int
    to_q: nn.Module
    to_k: nn.Module


@dataclass(frozen=True)
class SelfAttention:
    """A self-attention layer of a U-Net; its grid has sides `2^depth` times shorter than the latent's."""

    module: nn.Module
    projections: Projections
    place: BlockPosition
    depth: int


class _StopForward(Exception):  # noqa: N818 - it ends a pass, and is no error
    """All that was asked for has been seen: the rest of the pass may be left out."""


def self_attention_layers(unet: Any) -> tuple[SelfAttention, ...]:
    """All self-attention layers of a `UNet2DConditionModel`, from its input to its output."""
    depths = len(unet.down_blocks)
    blocks: list[tuple[Any, BlockPosition, int]] = [
        *((block, "encoder", depth) for depth, block in enumerate(unet.down_blocks)),
        (unet.mid_block, "middle", depths - 1),
        *((block, "decoder", depths - 1 - index) for index, block in enumerate(unet.up_blocks)),
    ]
    return tuple(
        SelfAttention(layer, Projections(layer.heads, layer.to_q, layer.to_k), place, depth)
        for block, place, depth in blocks
        for name, layer in block.named_modules()
        if name.endswith(".attn1")
    )


@contextmanager
def capture_attention(levels: Mapping[int, Sequence[Projections]]) -> Iterator[dict[int, Float[Tensor, "b n n"]]]:
    """The self-attention of each level's layers, averaged over heads and layers, of the pass that runs inside.

    Rows sum to one. The dictionary is complete when the pass has ended, which it does at the last of the layers.
    Besides the averages, in float32, no more than one head's map is held at any time. Raises `SegmentationError` where
    layers were not seen.
    """
    averages: dict[int, Tensor] = {}
    queries: dict[Projections, Tensor] = {}
    unseen = {layer for layers in levels.values() for layer in layers}

    def take_queries(layer: Projections, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        queries[layer] = output

    def take_keys(layer: Projections, level: int, _module: nn.Module, _inputs: object, keys: Tensor) -> None:
        batch, places, _ = keys.shape
        total = averages.setdefault(level, keys.new_zeros(batch, places, places, dtype=torch.float32))
        share = 1 / (layer.heads * len(levels[level]))
        add_attention(total, split_heads(queries.pop(layer), layer.heads), split_heads(keys, layer.heads), share=share)
        unseen.remove(layer)
        if not unseen:
            raise _StopForward

    handles = [
        handle
        for level, layers in levels.items()
        for layer in layers
        for handle in (
            layer.to_q.register_forward_hook(partial(take_queries, layer)),
            layer.to_k.register_forward_hook(partial(take_keys, layer, level)),
        )
    ]
    with _hooked(handles):
        yield averages
    if unseen:
        raise SegmentationError(f"{len(unseen)} layers showed no queries and keys: undo the model's fused projections")


@contextmanager
def capture_output(module: nn.Module) -> Iterator[list[Tensor]]:
    """What `module` puts out in the pass that runs inside, and that ends there."""
    outputs: list[Tensor] = []

    def take(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs.append(output)
        raise _StopForward

    with _hooked([module.register_forward_hook(take)]):
        yield outputs


def split_heads(projected: Float[Tensor, "b n c"], heads: int) -> Float[Tensor, "h b n d"]:
    """Queries or keys of all heads side by side, head by head."""
    return projected.unflatten(2, (heads, -1)).permute(2, 0, 1, 3)


def add_attention(
    total: Float[Tensor, "b n n"], queries: Float[Tensor, "h b n d"], keys: Float[Tensor, "h b n d"], *, share: float
) -> None:
    """Adds `share · Σ_heads softmax(Q Kᵀ / √d)` to `total` in place (Vaswani et al. 2017, Eq. 1), in float32."""
    scale = queries.shape[-1] ** -0.5
    for head_queries, head_keys in zip(queries, keys, strict=True):
        targets = head_keys.float().mT
        for rows, some_queries in zip(total.split(_ROWS, 1), head_queries.split(_ROWS, 1), strict=True):
            rows.add_(torch.softmax(some_queries.float() * scale @ targets, dim=-1), alpha=share)


def check_finite(values: Tensor, model: str) -> None:
    """Raises `SegmentationError` where the model's precision did not suffice."""
    if not bool(values.isfinite().all()):
        raise SegmentationError(f"{model} overflowed: choose the precision bfloat16 or float32")


@contextmanager
def _hooked(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Removes the hooks, however the pass ends."""
    try:
        yield
    except _StopForward:
        pass
    finally:
        for handle in handles:
            handle.remove()
