"""Weights and sizes of a model in the form that the frame's kernels read. Imports no triton."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..spec.dual_attention_unit import DAUWeights
from ..spec.heads import HEADS
from ..spec.schedule import TemplateSchedule


class Linear(NamedTuple):
    """A weight (inputs, outputs) in the dtype of the products and a float32 bias; with a leading dimension for groups.

    Inputs of a 3x3 convolution are its nine taps row by row, each with all channels.
    """

    weight: Tensor
    bias: Tensor


class LayerWeights(NamedTuple):
    """The linear layers of a transformer block, with its layer norms folded in."""

    qkv: Linear
    proj: Linear
    fc1: Linear
    fc2: Linear


class FrameWeights(NamedTuple):
    """A model's weights. Norms, positions, the DAU and the head's 1x1 convolutions are float32 whatever the dtype."""

    normalize: Tensor | None  # (2, 3): scale and shift of the crops' bytes; None if the embedding has them folded in
    unit: DAUWeights | None
    template_positions: Tensor  # (n, dim)
    search_positions: Tensor  # (m, dim)
    embedding: Linear
    layers: tuple[LayerWeights, ...]
    norm: Linear  # weight and bias of the last layer norm, both (dim,)
    convolutions: tuple[Linear, ...]  # 3x3, branches as groups; the first, which all share, as one group
    last: Linear  # (branches, 2, inputs), (branches, 2): zeros where a branch has one output
    output_table: Tensor  # int32 (branches, 2, 2): each output's channel of the maps, or -1; whether it is a sigmoid

    def to(self, device: torch.device) -> FrameWeights:
        """The same weights on `device`, contiguous."""
        return FrameWeights(*(_moved(field, device) for field in self))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device).contiguous()
    if isinstance(value, tuple):
        moved = [_moved(item, device) for item in value]
        return type(value)(*moved) if hasattr(value, "_fields") else tuple(moved)
    return value


class FrameSizes(NamedTuple):
    """Sizes and choices of a model."""

    dim: int
    heads: int
    hidden: int  # of the MLP
    patch: int
    template_size: int  # pixels along a side
    search_size: int
    patterns: tuple[str, ...]  # of each layer
    head: str  # a key of `HEADS`
    reweight: bool
    eps: float  # of the layer norms
    scale: float  # of the attention scores

    @property
    def num_template(self) -> int:
        """Template tokens, n."""
        return (self.template_size // self.patch) ** 2

    @property
    def grid(self) -> int:
        """Cells along a side of the head's maps."""
        return self.search_size // self.patch

    @property
    def num_search(self) -> int:
        """Search tokens, m."""
        return self.grid**2

    @property
    def map_channels(self) -> int:
        """Channels of the head's maps."""
        return HEADS[self.head].map_channels

    @property
    def schedule(self) -> TemplateSchedule:
        """Which layers need the template tokens."""
        return _schedule(self.patterns, self.reweight)

    @property
    def last_cached_layer(self) -> int:
        """The last layer whose queries, keys and values of template tokens are cached; at least the first layer."""
        schedule = self.schedule
        return max(0, min(schedule.first_dynamic_layer, schedule.last_template_layer, schedule.depth - 1))

    @property
    def cached_layers(self) -> int:
        """Number of layers whose queries, keys and values of template tokens are cached: the first ones."""
        return self.last_cached_layer + 1

    def cache_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of one target's cache: template tokens before `last_cached_layer`, and the layers' projections."""
        return self.num_template * self.dim * (torch.float32.itemsize + 3 * self.cached_layers * dtype.itemsize)


@lru_cache(maxsize=64)  # every frame needs it
def _schedule(patterns: tuple[str, ...], reweight: bool) -> TemplateSchedule:
    return TemplateSchedule(patterns, reweight)
