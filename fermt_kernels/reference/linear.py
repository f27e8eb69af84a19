"""A linear layer, with a GELU before it or none."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> Tensor:
    """f(x) W^T + bias, where f is the exact GELU or nothing.

    Args:
        x: (..., K).
        weight: (N, K).
        bias: (N,) or None.
    """
    return F.linear(F.gelu(x) if gelu else x, weight, bias)


def linear_forward(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, dtype: torch.dtype, out: Tensor) -> None:
    """`linear` of x (M, K) in `dtype`, written into `out` (M, N)."""
    out.copy_(linear(x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype), gelu=gelu))


def linear_backward(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    gelu: bool,
    dtype: torch.dtype,
    grad_x: Tensor | None,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
) -> None:
    """Gradients of `linear_forward` into those of the last three that are there."""
    grad_out, x, weight = grad_out.to(dtype), x.to(dtype), weight.to(dtype)
    if grad_x is not None:
        grad = grad_out @ weight
        grad_x.copy_(aten.gelu_backward(grad, x) if gelu else grad)
    if grad_weight is not None:
        grad_weight.copy_(grad_out.mT @ (F.gelu(x) if gelu else x))
    if grad_bias is not None:
        grad_bias.copy_(grad_out.sum(0))
