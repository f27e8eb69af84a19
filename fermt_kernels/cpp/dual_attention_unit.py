"""Hands the Dual Attention Unit's pointers to csrc/dual_attention_unit_{forward,backward}_kernel.h."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import sizeof

import torch
from torch import Tensor

from . import library
from .abi import DTYPES, UnitBackwardArgs, UnitForwardArgs, last_contiguous, tensor_arg


def dual_attention_unit_forward(x: Tensor, weights: Sequence[Tensor], out: Tensor) -> None:
    """The unit on x (B, C, H, W) into `out`; weights in the order of `DAUWeights`, any dtype."""
    lib = library.load()
    x, floats = last_contiguous(x), _floats(weights)
    args = UnitForwardArgs(
        sizeof(UnitForwardArgs),
        lib.parallel_for,
        _shape(x, weights),
        tensor_arg(x),
        tuple(w.data_ptr() for w in floats),
        tensor_arg(out),
    )
    lib.call("fermt_dual_attention_unit_forward", args)


def dual_attention_unit_backward(
    grad_out: Tensor, x: Tensor, weights: Sequence[Tensor], grad_x: Tensor, grads: Sequence[Tensor]
) -> None:
    """Gradients of the unit into `grad_x` and `grads` (the weights' order)."""
    lib = library.load()
    x, grad_out, floats = last_contiguous(x), last_contiguous(grad_out), _floats(weights)
    float_grads = [
        grad if grad.dtype == torch.float32 else grad.new_empty(grad.shape, dtype=torch.float32) for grad in grads
    ]
    args = UnitBackwardArgs(
        sizeof(UnitBackwardArgs),
        lib.parallel_for,
        _shape(x, weights),
        tensor_arg(grad_out),
        tensor_arg(x),
        tuple(w.data_ptr() for w in floats),
        tensor_arg(grad_x),
        tuple(grad.data_ptr() for grad in float_grads),
    )
    lib.call("fermt_dual_attention_unit_backward", args)
    for grad, computed in zip(grads, float_grads, strict=True):
        if grad is not computed:
            grad.copy_(computed)


def _floats(weights: Sequence[Tensor]) -> list[Tensor]:
    """The weights as the library wants them; those that are so already are not copied."""
    return [weight.float().contiguous() for weight in weights]


def _shape(x: Tensor, weights: Sequence[Tensor]) -> tuple[int, ...]:
    kernel, dilated_kernel, hidden = weights[2].shape[-1], weights[4].shape[-1], weights[8].shape[0]
    return (*x.shape, kernel, dilated_kernel, hidden, DTYPES[x.dtype])
