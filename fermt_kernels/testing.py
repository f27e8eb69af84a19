"""The accuracy rule, by which a result is as accurate as eager PyTorch, and inputs for it. Must be imported by name.

from fermt_kernels.testing import assert_accurate
assert_accurate(actual, eager, truth)   # eager: the same in eager PyTorch, same dtype; truth: the same in float64

The rule: the largest and the rms error are at most twice eager's, plus that of the truth rounded to the dtype.
docs/accuracy.md says why, and what `families` are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = [
    "LAYOUTS",
    "NEIGHBORS",
    "assert_accurate",
    "attention_inputs",
    "errors",
    "inaccuracy",
    "linear_inputs",
    "over_families",
    "shaken",
    "unit_inputs",
]

Shape = tuple[int, int, int, int]
NEIGHBORS = 8  # of a family
FACTOR = 2.0  # times eager's error
SPREAD = 2.0**-5  # relative, between neighbors: a few steps of bfloat16, so that they differ in any dtype


def errors(actual: Tensor, truth: Tensor) -> tuple[float, float]:
    """Largest and root-mean-square difference, in float64; infinities that agree count as no difference."""
    if actual.numel() == 0:
        return 0.0, 0.0
    a, t = actual.double(), truth.double()
    difference = torch.where(a == t, torch.zeros_like(t), a - t)
    return difference.abs().max().item(), difference.square().mean().sqrt().item()


def _spread_of_families(truth: Tensor) -> Tensor:
    """The rms deviation of each family's truth from its mean over neighbors, 1 where it is 0; shaped to divide by."""
    deviation = (truth - truth.mean(dim=1, keepdim=True)).flatten(1).square().mean(dim=1).sqrt()
    return deviation.masked_fill(deviation == 0, 1).view(-1, *(1 for _ in truth.shape[1:]))


def inaccuracy(actual: Tensor, eager: Tensor, truth: Tensor, *, families: bool = False) -> str | None:
    """Why `actual` is not accurate enough, or None.

    Args:
        actual: the result under test.
        eager: the eager reference's result in the same dtype.
        truth: the reference's result in float64 on the same inputs.
        families: the first two dimensions are families and their neighbors (`over_families`). Each family's errors
            are divided by the spread of its truth, which measures its condition: else the worst would decide alone.

    The bound holds for the largest and for the rms error: 2 * eager's + that of the truth rounded to the dtype.
    """
    if actual.shape != truth.shape or eager.shape != truth.shape:
        return f"shapes differ: actual {tuple(actual.shape)}, eager {tuple(eager.shape)}, truth {tuple(truth.shape)}"
    if actual.dtype != eager.dtype or truth.dtype != torch.float64:
        return f"dtypes: actual {actual.dtype}, eager {eager.dtype}, truth {truth.dtype} (must be float64)"
    finite = torch.isfinite(truth)
    agree = torch.where(finite, torch.isfinite(actual), actual.double() == truth)
    if not agree.all():
        return f"{(~agree).sum().item()} of {truth.numel()} values are not finite where the truth is, or not as it is"
    rounded = truth.to(actual.dtype).double()
    rounded = torch.where(torch.isfinite(rounded), rounded, truth)
    results = [actual.double(), eager.double(), rounded, truth]
    if families and truth.numel():
        unit = _spread_of_families(torch.where(finite, truth, torch.zeros_like(truth)))
        results = [result / unit for result in results]
    got, yardstick, rounding = (errors(result, results[-1]) for result in results[:-1])
    for name, error, eagers, once in zip(("largest", "rms"), got, yardstick, rounding, strict=True):
        bound = FACTOR * eagers + once
        if not error <= bound:
            return f"{name} error {error:.3g} exceeds {bound:.3g} (eager's is {eagers:.3g}, a rounding's {once:.3g})"
    return None


def assert_accurate(
    actual: Tensor, eager: Tensor, truth: Tensor, name: str = "result", *, families: bool = False
) -> None:
    """Fails with the reason if `inaccuracy` finds one."""
    if reason := inaccuracy(actual, eager, truth, families=families):
        raise AssertionError(f"{name}: {reason}")


def over_families(
    compute: Callable[[int, int], Sequence[Tensor]], families: int, neighbors: int = NEIGHBORS
) -> list[Tensor]:
    """Each result of `compute(seed, neighbor)`, stacked: (families, neighbors, ...).

    Neighbors are one problem, its inputs shaken by a few percent: equally conditioned, but rounded anew, and added in
    any order as it were. The fewer numbers a result has, the more of them it takes to know an error's size.
    """
    drawn = [compute(seed, neighbor) for seed in range(families) for neighbor in range(neighbors)]
    return [torch.stack(results).unflatten(0, (families, neighbors)) for results in zip(*drawn, strict=True)]


def shaken(tensor: Tensor, seed: int, neighbor: int) -> Tensor:
    """`tensor` with each number changed by up to `SPREAD` of it, in a way of its own for each seed and neighbor.

    Neighbor 0 is `tensor` itself.
    """
    if neighbor == 0:
        return tensor
    generator = torch.Generator(device="cpu").manual_seed((seed + 1) * NEIGHBORS**3 + neighbor)
    return tensor * (
        1 + SPREAD * (2 * torch.rand(tensor.shape, generator=generator, dtype=torch.float32, device="cpu") - 1)
    ).to(tensor.dtype)


def _packed(shape: Shape) -> tuple[Tensor, ...]:
    """Views of one projection (B, N, 3 C), as a transformer has them."""
    batch, heads, tokens, dim = shape
    return torch.randn(batch, tokens, 3, heads, dim, dtype=torch.float32, device="cpu").permute(2, 0, 3, 1, 4).unbind(0)


def _each(make: Callable[[Shape], Tensor]) -> Callable[[Shape], tuple[Tensor, ...]]:
    return lambda shape: tuple(make(shape) for _ in range(3))


def _contiguous(shape: Shape) -> Tensor:
    return torch.randn(shape, dtype=torch.float32, device="cpu")


def _sliced(shape: Shape) -> Tensor:
    """A window of a larger tensor."""
    return torch.randn(*(size + 3 for size in shape), dtype=torch.float32, device="cpu")[1:-2, 1:-2, 1:-2, 1:-2]


def _transposed(shape: Shape) -> Tensor:
    """The last two dimensions swapped: the last is not contiguous."""
    batch, heads, tokens, dim = shape
    return torch.randn(batch, heads, dim, tokens, dtype=torch.float32, device="cpu").transpose(2, 3)


def _expanded(shape: Shape) -> Tensor:
    """One sample for the whole batch, with stride 0."""
    return torch.randn(1, *shape[1:], dtype=torch.float32, device="cpu").expand(shape)


LAYOUTS: dict[str, Callable[[Shape], tuple[Tensor, ...]]] = {
    "contiguous": _each(_contiguous),
    "packed": _packed,
    "sliced": _each(_sliced),
    "transposed": _each(_transposed),
    "expanded": _each(_expanded),
}


def attention_inputs(
    shape: Shape, layout: str = "contiguous", dtype: torch.dtype = torch.float32, seed: int = 0, neighbor: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of `shape` (B, H, N, D) in one of `LAYOUTS`; the layout survives the dtype."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = LAYOUTS[layout](shape)
    if dtype == torch.float32 and neighbor == 0:
        q, k, v = drawn
        return q, k, v

    # Tensor.to keeps strides for dense tensors only, so a window or an expansion is cast before it is cut.
    def cast(t: Tensor, part: int) -> Tensor:
        if 0 in t.stride():
            return shaken(t[:1], 3 * seed + part, neighbor).to(dtype).expand(t.shape)
        return torch.empty_strided(t.shape, t.stride(), dtype=dtype, device=t.device).copy_(
            shaken(t, 3 * seed + part, neighbor)
        )

    q, k, v = (cast(t, part) for part, t in enumerate(drawn))
    return q, k, v


def _finished(drawn: Sequence[Tensor], dtype: torch.dtype, seed: int, neighbor: int) -> list[Tensor]:
    return [shaken(t, len(drawn) * seed + part, neighbor).to(dtype) for part, t in enumerate(drawn)]


def unit_inputs(
    shape: Shape,
    hidden: int = 1,
    kernel: int = 5,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    neighbor: int = 0,
) -> tuple[Tensor, list[Tensor]]:
    """An image (B, C, H, W) and the twelve weights of a Dual Attention Unit for it."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    channels = shape[1]

    def draw(*sizes: int) -> Tensor:
        fan_in = max(1, torch.Size(sizes[1:]).numel())
        return torch.randn(sizes, generator=generator, dtype=torch.float32, device="cpu") * fan_in**-0.5

    pointwise, depthwise = (channels, channels, 1, 1), (channels, 1, kernel, kernel)
    shapes = [pointwise, depthwise, depthwise, pointwise]
    weights = [tensor for sizes in shapes for tensor in (draw(*sizes), draw(channels))]
    weights += [draw(hidden, channels), draw(channels, hidden), draw(*pointwise), draw(channels)]
    image = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    *weights, image = _finished([*weights, image], dtype, seed, neighbor)
    return image, weights


def linear_inputs(
    rows: int, inner: int, outputs: int, dtype: torch.dtype = torch.float32, seed: int = 0, neighbor: int = 0
) -> list[Tensor]:
    """x (M, K), weight (N, K) and bias (N,) of a linear layer, and the gradient of its output (M, N)."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    shapes = ((rows, inner), (outputs, inner), (outputs,), (rows, outputs))
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu") for shape in shapes]
    drawn[1] *= inner**-0.5
    return _finished(drawn, dtype, seed, neighbor)
