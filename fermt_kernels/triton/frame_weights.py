"""What the frame's kernels read of a model, and which of its tokens a frame has to compute. Imports no triton."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..patterns import key_spans


class Linear(NamedTuple):
    """A matrix (inputs, outputs) in the dtype of the products, and a bias in float32; of g groups, one more dimension.

    A 3x3 convolution's inputs are the nine places row by row, and each place's channels.
    """

    weight: Tensor
    bias: Tensor


class LayerWeights(NamedTuple):
    """A layer, its norms folded in; the fields' names are those of the steps that read them."""

    qkv: Linear
    proj: Linear
    fc1: Linear
    fc2: Linear


class FrameWeights(NamedTuple):
    """A model on a device. Norms, positions, the unit and the head's 1x1 convolutions are float32 in any case."""

    normalize: Tensor | None  # (2, 3): scale and shift of the crops' bytes; None if the embedding has them folded in
    unit: tuple[Tensor, ...] | None  # of the Dual Attention Unit, in the order of `DAUWeights`
    template_positions: Tensor  # (n, dim)
    search_positions: Tensor  # (m, dim)
    embedding: Linear
    layers: tuple[LayerWeights, ...]
    norm: Linear  # scaling and shift, both (dim,)
    convolutions: tuple[Linear, ...]  # all branches' as groups; the first, of one input, as one group
    last: Linear  # (branches, 2, inputs), (branches, 2): zeros where a branch has one output
    places: Tensor  # int32 (branches, 2, 2): an output's map, or -1; and whether it is a sigmoid

    def to(self, device: torch.device) -> FrameWeights:
        return FrameWeights(*(_moved(field, device) for field in self))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device).contiguous()
    if isinstance(value, tuple):
        moved = [_moved(item, device) for item in value]
        return type(value)(*moved) if hasattr(value, "_fields") else tuple(moved)
    return value


class FrameSizes(NamedTuple):
    """A model's numbers."""

    dim: int
    heads: int
    hidden: int
    patch: int
    template_size: int  # pixels along a side
    search_size: int
    patterns: tuple[str, ...]  # a layer each
    head: str
    reweight: bool
    maps: int  # channels of the head's maps
    eps: float
    scale: float
    limit: float  # how near to 0 and 1 a sigmoid of the head may come

    @property
    def num_template(self) -> int:
        return (self.template_size // self.patch) ** 2

    @property
    def grid(self) -> int:
        return self.search_size // self.patch

    @property
    def num_search(self) -> int:
        return self.grid**2

    @property
    def needed(self) -> int:
        """The last layer that reads the template: its keys and values, or, of the layer after the last, its tokens."""
        if self.reweight:
            return len(self.patterns)
        return max((layer for layer, pattern in enumerate(self.patterns) if _sees(pattern)[1][0]), default=0)

    @property
    def frozen(self) -> int:
        """The last layer whose input of the template does not depend on the frame, or is not needed after it."""
        depends = (layer for layer, pattern in enumerate(self.patterns) if _sees(pattern)[0][1])
        return min(next(depends, self.needed), self.needed, len(self.patterns) - 1)

    @property
    def cached(self) -> int:
        """Layers whose queries, keys and values of the template are computed once for a target: the first ones."""
        return self.frozen + 1

    def cache_bytes(self, dtype: torch.dtype) -> int:
        """Of one target: its stream before the layer `frozen`, and queries, keys and values of the layers cached."""
        return self.num_template * self.dim * (torch.float32.itemsize + 3 * self.cached * dtype.itemsize)


def _sees(pattern: str) -> tuple[tuple[bool, bool], tuple[bool, bool]]:
    """Whether the template's queries see the template, the search region; and whether the search region's do."""
    template, search = key_spans(pattern, 1, 2)  # one token a group
    return (0 in range(*template), 1 in range(*template)), (0 in range(*search), 1 in range(*search))
