"""The one factory of test inputs: every layout that a caller may hand to an op, drawn deterministically."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Shape = tuple[int, int, int, int]


def _packed(shape: Shape) -> tuple[Tensor, ...]:
    """Views of one projection (B, N, 3 C), as a transformer has them."""
    batch, heads, tokens, dim = shape
    return torch.randn(batch, tokens, 3, heads, dim).permute(2, 0, 3, 1, 4).unbind(0)


def _each(make: Callable[[Shape], Tensor]) -> Callable[[Shape], tuple[Tensor, ...]]:
    return lambda shape: tuple(make(shape) for _ in range(3))


def _sliced(shape: Shape) -> Tensor:
    """A window of a larger tensor."""
    return torch.randn(*(size + 3 for size in shape))[1:-2, 1:-2, 1:-2, 1:-2]


def _transposed(shape: Shape) -> Tensor:
    """The last two dimensions swapped: the last is not contiguous."""
    batch, heads, tokens, dim = shape
    return torch.randn(batch, heads, dim, tokens).transpose(2, 3)


def _expanded(shape: Shape) -> Tensor:
    """One sample for the whole batch, with stride 0."""
    return torch.randn(1, *shape[1:]).expand(shape)


LAYOUTS: dict[str, Callable[[Shape], tuple[Tensor, ...]]] = {
    "contiguous": _each(torch.randn),
    "packed": _packed,
    "sliced": _each(_sliced),
    "transposed": _each(_transposed),
    "expanded": _each(_expanded),
}


def attention_inputs(
    shape: Shape, layout: str = "contiguous", dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of `shape` (B, H, N, D) in one of `LAYOUTS`; the layout survives the dtype."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = LAYOUTS[layout](shape)
    # Tensor.to keeps strides for dense tensors only, so a window or an expansion is cast before it is cut.
    if dtype == torch.float32:
        q, k, v = drawn
    else:
        q, k, v = (
            torch.empty_strided(t.shape, t.stride(), dtype=dtype).copy_(t)
            if 0 not in t.stride()
            else t[:1].to(dtype).expand(t.shape)
            for t in drawn
        )
    return q, k, v


def unit_inputs(
    shape: Shape, hidden: int = 1, kernel: int = 5, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, list[Tensor]]:
    """An image (B, C, H, W) and the twelve weights of a Dual Attention Unit for it."""
    generator = torch.Generator().manual_seed(seed)
    channels = shape[1]

    def draw(*sizes: int) -> Tensor:
        fan_in = max(1, torch.Size(sizes[1:]).numel())
        return (torch.randn(sizes, generator=generator) * fan_in**-0.5).to(dtype)

    pointwise, depthwise = (channels, channels, 1, 1), (channels, 1, kernel, kernel)
    shapes = [pointwise, depthwise, depthwise, pointwise]
    weights = [tensor for sizes in shapes for tensor in (draw(*sizes), draw(channels))]
    weights += [draw(hidden, channels), draw(channels, hidden), draw(*pointwise), draw(channels)]
    return torch.randn(shape, generator=generator).to(dtype), weights
