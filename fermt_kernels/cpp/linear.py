"""Hands a linear layer's pointers to csrc/ops/linear.h."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layouts import last_contiguous
from . import library
from .abi import DTYPES


def linear_forward(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, dtype: torch.dtype, out: Tensor) -> None:
    """f(x) W^T + bias of x (M, K) into `out` (M, N), contiguous; f is GELU or nothing, `dtype` what is multiplied."""
    x, weight = last_contiguous(x), weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    library.load().call(
        "fermt_linear_forward",
        *_shape(x, weight, gelu, dtype, out),
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
    dtype: torch.dtype,
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
    activated = x.new_empty(x.shape, dtype=dtype) if gelu or x.dtype != dtype else None
    library.load().call(
        "fermt_linear_backward",
        *_shape(x, weight, gelu, dtype, grad_out),
        grad_out.stride(0),
        grad_out.data_ptr(),
        x.data_ptr(),
        weight.data_ptr(),
        *map(_address, (grad_x, grad_weight, grad_bias, activated)),
    )


def _shape(x: Tensor, weight: Tensor, gelu: bool, dtype: torch.dtype, out: Tensor) -> tuple[int, ...]:
    dtypes = (DTYPES[kind] for kind in (dtype, x.dtype, weight.dtype, out.dtype))
    return (x.shape[0], x.shape[1], weight.shape[0], x.stride(0), int(gelu), *dtypes)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
