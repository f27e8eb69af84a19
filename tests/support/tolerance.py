"""The one rule of accuracy: at most twice the eager reference's error, plus one rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def errors(actual: Tensor, truth: Tensor) -> tuple[float, float]:
    """Largest and root-mean-square difference, in float64; infinities that agree count as no difference."""
    if actual.numel() == 0:
        return 0.0, 0.0
    a, t = actual.double(), truth.double()
    difference = torch.where(a == t, torch.zeros_like(t), a - t)
    return difference.abs().max().item(), difference.square().mean().sqrt().item()


def inaccuracy(actual: Tensor, eager: Tensor, truth: Tensor, *, draws: bool = False) -> str | None:
    """Why `actual` is not accurate enough, or None.

    Args:
        actual: the result under test.
        eager: the eager reference's result in the same dtype.
        truth: the reference's result in float64 on the same inputs.
        draws: the first dimension counts independent draws (`over_draws`); each is measured in units of its own
            largest truth, lest the one with the largest numbers decide alone.

    The bound holds for the largest and for the rms error: 2 * eager's + unit roundoff * (largest, rms) truth.
    """
    if actual.shape != truth.shape or eager.shape != truth.shape:
        return f"shapes differ: actual {tuple(actual.shape)}, eager {tuple(eager.shape)}, truth {tuple(truth.shape)}"
    if actual.dtype != eager.dtype or truth.dtype != torch.float64:
        return f"dtypes: actual {actual.dtype}, eager {eager.dtype}, truth {truth.dtype} (must be float64)"
    finite = torch.isfinite(truth)
    agree = torch.where(finite, torch.isfinite(actual), actual.double() == truth)
    if not agree.all():
        return f"{(~agree).sum().item()} of {truth.numel()} values are not finite where the truth is, or not as it is"
    roundoff = torch.finfo(actual.dtype).eps / 2
    size = torch.where(finite, truth, torch.zeros_like(truth))
    unit = torch.ones((), dtype=torch.float64)
    if draws and truth.numel():
        largest = size.flatten(1).abs().amax(dim=1)
        unit = largest.masked_fill(largest == 0, 1).view(-1, *(1 for _ in truth.shape[1:]))
    actual, eager, truth, size = (t.double() / unit for t in (actual, eager, truth, size))
    for name, got, yardstick, scale in zip(
        ("largest", "rms"),
        errors(actual, truth),
        errors(eager, truth),
        errors(size, torch.zeros_like(size)),
        strict=True,
    ):
        bound = 2 * yardstick + roundoff * scale
        if not got <= bound:
            return f"{name} error {got:.3g} exceeds {bound:.3g} (eager's is {yardstick:.3g})"
    return None


def over_draws(compute: Callable[[int], Sequence[Tensor]], draws: int) -> list[Tensor]:
    """Each result of `compute(seed)`, stacked over draws.

    The largest error of one draw hangs on a single unlucky rounding (of one row's lse, say), eager's as well as ours;
    over several draws both meet their worst, and the rule compares that. The fewer numbers a result has, the more
    draws it takes.
    """
    seeds = range(draws)
    return [torch.stack(results) for results in zip(*(compute(seed) for seed in seeds), strict=True)]


def assert_accurate(actual: Tensor, eager: Tensor, truth: Tensor, name: str = "result", *, draws: bool = False) -> None:
    """Fails with the reason if `inaccuracy` finds one."""
    if reason := inaccuracy(actual, eager, truth, draws=draws):
        raise AssertionError(f"{name}: {reason}")
