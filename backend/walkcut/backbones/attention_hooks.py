"""Forward hooks that capture self-attention and features of a network, removed after the pass.

They are placed on the projections to queries and keys, and so work with every attention processor of diffusers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from walkcut.errors import SegmentationError

BlockPosition = Literal["encoder", "middle", "decoder"]

_MIN_FOCUS = 1e-3  # so that rows can be normalised where all heads are uniform
_BLOCK_ROWS = 512  # of a map computed at a time: fits the caches, and is small beside the whole map


@dataclass(frozen=True, eq=False)
class Projections:
    """Projections of an attention layer to the queries and keys of all heads."""

    heads: int
    to_q: nn.Module
    to_k: nn.Module


@dataclass(frozen=True)
class SelfAttention:
    """A self-attention layer of a U-Net; its grid has sides `2^depth` times shorter than the latent's."""

    module: nn.Module
    projections: Projections
    position: BlockPosition
    depth: int


class _StopForward(Exception):  # noqa: N818 - it ends a pass, and is no error
    """Ends a forward pass once everything requested has been captured."""


def self_attention_layers(unet: Any) -> tuple[SelfAttention, ...]:
    """Return all self-attention layers of a `UNet2DConditionModel`, from input to output."""
    depths = len(unet.down_blocks)
    blocks: list[tuple[Any, BlockPosition, int]] = [
        *((block, "encoder", depth) for depth, block in enumerate(unet.down_blocks)),
        (unet.mid_block, "middle", depths - 1),
        *((block, "decoder", depths - 1 - index) for index, block in enumerate(unet.up_blocks)),
    ]
    return tuple(
        SelfAttention(layer, Projections(layer.heads, layer.to_q, layer.to_k), position, depth)
        for block, position, depth in blocks
        for name, layer in block.named_modules()
        if name.endswith(".attn1")
    )


@contextmanager
def capture_attention(
    levels: Mapping[int, Sequence[Projections]], *, by_entropy: bool = False
) -> Iterator[dict[int, Float[Tensor, "b n n"]]]:
    """Capture the self-attention of each level's layers, averaged over heads and layers, in the pass run inside.

    With `by_entropy`, heads count by their `focus`. The dictionary is complete after the pass, which is stopped at the
    last of the layers. Rows sum to 1, in float32; besides the averages only part of one head's map is held at a time.
    Raises `SegmentationError` where a layer was not called.
    """
    averages: dict[int, Tensor] = {}
    queries: dict[Projections, Tensor] = {}
    missing = {layer for layers in levels.values() for layer in layers}

    def take_queries(layer: Projections, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        queries[layer] = output

    def take_keys(layer: Projections, level: int, _module: nn.Module, _inputs: object, keys: Tensor) -> None:
        batch, patches, _ = keys.shape
        total = averages.setdefault(level, keys.new_zeros(batch, patches, patches, dtype=torch.float32))
        by_head = (part.unflatten(2, (layer.heads, -1)).permute(2, 0, 1, 3) for part in (queries.pop(layer), keys))
        add_attention(total, *by_head, weight=1 / (layer.heads * len(levels[level])), by_entropy=by_entropy)
        missing.remove(layer)
        if not missing:
            raise _StopForward

    with ExitStack() as stack, suppress(_StopForward):
        for level, layers in levels.items():
            for layer in layers:
                stack.enter_context(layer.to_q.register_forward_hook(partial(take_queries, layer)))
                stack.enter_context(layer.to_k.register_forward_hook(partial(take_keys, layer, level)))
        yield averages
    for total in averages.values() if by_entropy else ():
        total.div_(total.sum(-1, keepdim=True))
    if missing:
        raise SegmentationError(f"{len(missing)} layers gave no queries and keys: undo the model's fused projections")


@contextmanager
def capture_output(module: nn.Module) -> Iterator[list[Tensor]]:
    """Capture the output of `module` in the pass run inside, which is stopped there."""
    outputs: list[Tensor] = []

    def take(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs.append(output)
        raise _StopForward

    with module.register_forward_hook(take), suppress(_StopForward):
        yield outputs


def add_attention(
    total: Float[Tensor, "b n n"],
    queries: Float[Tensor, "h b n d"],
    keys: Float[Tensor, "h b n d"],
    *,
    weight: float,
    by_entropy: bool = False,
) -> None:
    """Add `weight · Σ_heads softmax(Q Kᵀ / √d)` to `total` in place (Vaswani et al. 2017, Eq. 1), in float32.

    With `by_entropy`, each row is also multiplied by its `focus`.
    """
    scale = queries.shape[-1] ** -0.5
    for head_queries, head_keys in zip(queries, keys, strict=True):
        targets = head_keys.float().mT
        for rows, row_queries in zip(total.split(_BLOCK_ROWS, 1), head_queries.split(_BLOCK_ROWS, 1), strict=True):
            attention = torch.softmax(row_queries.float() * scale @ targets, dim=-1)
            rows.add_(attention * focus(attention) if by_entropy else attention, alpha=weight)


def focus(attention: Float[Tensor, "*b n"]) -> Float[Tensor, "*b 1"]:
    """Return `1 - H / log n` with the entropy `H` of each row: 1 for a single target, and hardly more than 0 for all.

    What attends everywhere alike says nothing of what belongs together; the entropy tells heads apart (Clark et al.,
    What Does BERT Look At?, 2019, section 3.3).
    """
    entropy = torch.special.entr(attention).sum(-1, keepdim=True)
    return (1 - entropy / math.log(max(2, attention.shape[-1]))).clamp_min(_MIN_FOCUS)


def check_finite(values: Tensor, model: str) -> None:
    """Raise `SegmentationError` for values that overflowed the model's precision."""
    if not bool(values.isfinite().all()):
        raise SegmentationError(f"{model} overflowed: set the precision to bfloat16 or float32")
