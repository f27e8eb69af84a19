"""Hands the Dual Attention Unit's pointers to csrc/ops/dual_attention_unit_{forward,backward}.h."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..layouts import last_contiguous
from . import library
from .abi import DTYPES, tensor_fields


def dual_attention_unit_forward(x: Tensor, weights: Sequence[Tensor], out: Tensor) -> None:
    """The unit on x (B, C, H, W) into `out`; weights in the order of `DAUWeights`, any dtype."""
    x, floats = last_contiguous(x), _floats(weights)
    library.load().call(
        "fermt_dual_attention_unit_forward",
        *_shape(x, weights),
        *tensor_fields(x),
        *(weight.data_ptr() for weight in floats),
        *tensor_fields(out),
    )


def dual_attention_unit_backward(
    grad_out: Tensor, x: Tensor, weights: Sequence[Tensor], grad_x: Tensor, grads: Sequence[Tensor]
) -> None:
    """Gradients of the unit into `grad_x` and `grads` (the weights' order)."""
    x, grad_out, floats = last_contiguous(x), last_contiguous(grad_out), _floats(weights)
    float_grads = [
        grad if grad.dtype == torch.float32 else grad.new_empty(grad.shape, dtype=torch.float32) for grad in grads
    ]
    library.load().call(
        "fermt_dual_attention_unit_backward",
        *_shape(x, weights),
        *tensor_fields(grad_out),
        *tensor_fields(x),
        *(weight.data_ptr() for weight in floats),
        *tensor_fields(grad_x),
        *(grad.data_ptr() for grad in float_grads),
    )
    for grad, computed in zip(grads, float_grads, strict=True):
        if grad is not computed:
            grad.copy_(computed)


def _floats(weights: Sequence[Tensor]) -> list[Tensor]:
    """The weights as the library wants them; those that are so already are not copied."""
    return [weight.float().contiguous() for weight in weights]


def _shape(x: Tensor, weights: Sequence[Tensor]) -> tuple[int, ...]:
    kernel, dilated_kernel, hidden = weights[2].shape[-1], weights[4].shape[-1], weights[8].shape[0]
    return (*x.shape, kernel, dilated_kernel, hidden, DTYPES[x.dtype])
