"""Hands a linear layer's pointers to csrc/linear_kernel.h."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layouts import last_contiguous
from . import library
from .abi import DTYPES


def linear_forward(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, out: Tensor) -> None:
    """f(x) W^T + bias of x (M, K) into `out` (M, N), contiguous, in whose dtype it is computed; f: GELU or nothing."""
    x, weight = last_contiguous(x), weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    library.load().call(
        "fermt_linear_forward",
        *_shape(x, weight, gelu, out.dtype),
        x.data_ptr(),
        weight.data_ptr(),
        _address(bias),
        out.data_ptr(),
    )


def linear_backward(
    grad_out: Tensor,
    x: Tensor,
    weight: Tensor,
    gelu: bool,
    grad_x: Tensor | None,
    grad_weight: Tensor | None,
    grad_bias: Tensor | None,
) -> None:
    """Gradients of `linear_forward` into those of the last three that are there, contiguous."""
    grad_out, x, weight = last_contiguous(grad_out), last_contiguous(x), weight.contiguous()
    if gelu and grad_x is None:
        grad_x = x.new_empty(x.shape)
    if grad_bias is not None and grad_weight is None:
        grad_weight = weight.new_empty(weight.shape)
    activated = grad_out.new_empty(x.shape) if gelu else None
    library.load().call(
        "fermt_linear_backward",
        *_shape(x, weight, gelu, grad_out.dtype),
        grad_out.stride(0),
        grad_out.data_ptr(),
        x.data_ptr(),
        weight.data_ptr(),
        *map(_address, (grad_x, grad_weight, grad_bias, activated)),
    )


def _shape(x: Tensor, weight: Tensor, gelu: bool, dtype: torch.dtype) -> tuple[int, ...]:
    dtypes = (DTYPES[dtype], DTYPES[x.dtype], DTYPES[weight.dtype])
    return (x.shape[0], x.shape[1], weight.shape[0], x.stride(0), int(gelu), *dtypes)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
