"""The specification of the linear layer with an optional GELU of its input."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..torch_private import transformed

aten = torch.ops.aten


def gelu(x: Tensor) -> Tensor:
    """The exact GELU: infinite for infinity, and NaN for -infinity, as in PyTorch's formula.

    On CPUs `F.gelu` may be oneDNN's, which gives NaN for infinity; a compiled or exported graph needs no such care.
    Plain tensors are mended only where their sum shows that there is something to mend.
    """
    result = F.gelu(x)
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return result
    readable = type(x) in (Tensor, nn.Parameter) and not transformed((x,))
    if readable and torch.isfinite(result.detach().sum()):
        return result
    return torch.where(x == torch.inf, x, result)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> Tensor:
    """A linear layer x W^T + bias, or GELU(x) W^T + bias with the exact GELU.

    Args:
        x: (..., K).
        weight: (N, K).
        bias: (N,) or None.
        gelu: whether to apply GELU to x first.
    """
    return F.linear(_activated(x, gelu), weight, bias)


def _activated(x: Tensor, with_gelu: bool) -> Tensor:
    return gelu(x) if with_gelu else x


def linear_forward(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, dtype: torch.dtype, out: Tensor) -> None:
    """Computes `linear` of x (M, K) in `dtype` into `out` (M, N)."""
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
    """Computes the gradients of `linear_forward` into those of the last three that are not None."""
    grad_out, x, weight = grad_out.to(dtype), x.to(dtype), weight.to(dtype)
    if grad_x is not None:
        grad = grad_out @ weight
        grad_x.copy_(aten.gelu_backward(grad, x) if gelu else grad)
    if grad_weight is not None:
        grad_weight.copy_(grad_out.mT @ _activated(x, gelu))
    if grad_bias is not None:
        grad_bias.copy_(grad_out.sum(0))
