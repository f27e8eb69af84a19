"""A linear layer by the compiled kernels: pointers and strides for the library."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layouts import last_contiguous
from . import library
from .abi import DTYPES


def linear_forward(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, dtype: torch.dtype, out: Tensor) -> None:
    """Computes f(x) W^T + bias of x (M, K) into `out` (M, N), contiguous.

    f is GELU or the identity; values are rounded to `dtype` and multiplied.
    """
    x, weight = last_contiguous(x), weight.contiguous()
    bias = None if bias is None else bias.contiguous()
    library.load().call(
        "fermt_linear_forward",
        **_shape(x, weight, gelu, dtype, out),
        x=x.data_ptr(),
        weight=weight.data_ptr(),
        bias=_address(bias),
        out=out.data_ptr(),
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
    """Computes the gradients of `linear_forward` into those of the last three that are not None, contiguous."""
    grad_out, x, weight = last_contiguous(grad_out), last_contiguous(x), weight.contiguous()
    if gelu and grad_x is None:
        grad_x = x.new_empty(x.shape)
    if grad_bias is not None and grad_weight is None:
        grad_weight = weight.new_empty(weight.shape)
    activated = x.new_empty(x.shape, dtype=dtype) if gelu or x.dtype != dtype else None
    library.load().call(
        "fermt_linear_backward",
        **_shape(x, weight, gelu, dtype, grad_out),
        grad_out_stride=grad_out.stride(0),
        grad_out=grad_out.data_ptr(),
        x=x.data_ptr(),
        weight=weight.data_ptr(),
        grad_x=_address(grad_x),
        grad_weight=_address(grad_weight),
        grad_bias=_address(grad_bias),
        activated=_address(activated),
    )


def _shape(x: Tensor, weight: Tensor, gelu: bool, dtype: torch.dtype, out: Tensor) -> dict[str, int]:
    """The fields of `LinearShape`; `out` is the output or its gradient."""
    return {
        "rows": x.shape[0],
        "inputs": x.shape[1],
        "outputs": weight.shape[0],
        "x_stride": x.stride(0),
        "gelu": int(gelu),
        "dtype": DTYPES[dtype],
        "x_dtype": DTYPES[x.dtype],
        "weight_dtype": DTYPES[weight.dtype],
        "out_dtype": DTYPES[out.dtype],
    }


def _address(tensor: Tensor | None) -> int:
    """The tensor's address, or null for None."""
    return 0 if tensor is None else tensor.data_ptr()
