"""The one rule of accuracy: at most twice the eager reference's error, plus one rounding."""

from __future__ import annotations

import torch
from torch import Tensor


def errors(actual: Tensor, truth: Tensor) -> tuple[float, float]:
    """Largest and root-mean-square difference, in float64; infinities that agree count as no difference."""
    if actual.numel() == 0:
        return 0.0, 0.0
    a, t = actual.double(), truth.double()
    difference = torch.where(a == t, torch.zeros_like(t), a - t)
    return difference.abs().max().item(), difference.square().mean().sqrt().item()


def inaccuracy(actual: Tensor, eager: Tensor, truth: Tensor) -> str | None:
    """Why `actual` is not accurate enough, or None.

    Args:
        actual: the result under test.
        eager: the eager reference's result in the same dtype.
        truth: the reference's result in float64 on the same inputs.

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
    size = torch.where(finite, truth, torch.zeros_like(truth))
    zero = torch.zeros_like(truth)
    roundoff = torch.finfo(actual.dtype).eps / 2
    for name, got, yardstick, scale in zip(
        ("largest", "rms"), errors(actual, truth), errors(eager, truth), errors(size, zero), strict=True
    ):
        bound = 2 * yardstick + roundoff * scale
        if not got <= bound:
            return f"{name} error {got:.3g} exceeds {bound:.3g} (eager's is {yardstick:.3g})"
    return None


def assert_accurate(actual: Tensor, eager: Tensor, truth: Tensor, name: str = "result") -> None:
    """Fails with the reason if `inaccuracy` finds one."""
    if reason := inaccuracy(actual, eager, truth):
        raise AssertionError(f"{name}: {reason}")
