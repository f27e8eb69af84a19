"""The Dual Attention Unit by the compiled kernels: pointers and strides for the library."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..layouts import last_contiguous
from ..spec.dual_attention_unit import DAUWeights
from . import library
from .abi import DTYPES, tensor_fields


def dual_attention_unit_forward(x: Tensor, weights: DAUWeights, out: Tensor) -> None:
    """Computes the unit on x (B, C, H, W) into `out`; weights in any dtype."""
    x, floats = last_contiguous(x), _floats(weights)
    library.load().call(
        "fermt_dual_attention_unit_forward",
        **_shape(x, weights),
        x=tensor_fields(x),
        weights=_pointers(floats),
        out=tensor_fields(out),
    )


def dual_attention_unit_backward(
    grad_out: Tensor, x: Tensor, weights: DAUWeights, grad_x: Tensor, grads: DAUWeights
) -> None:
    """Computes the unit's gradients into `grad_x` and `grads`."""
    x, grad_out, floats = last_contiguous(x), last_contiguous(grad_out), _floats(weights)
    float_grads = [
        grad if grad.dtype == torch.float32 else grad.new_empty(grad.shape, dtype=torch.float32) for grad in grads
    ]
    library.load().call(
        "fermt_dual_attention_unit_backward",
        **_shape(x, weights),
        grad_out=tensor_fields(grad_out),
        x=tensor_fields(x),
        weights=_pointers(floats),
        grad_x=tensor_fields(grad_x),
        grad_weights=_pointers(float_grads),
    )
    for grad, computed in zip(grads, float_grads, strict=True):
        if grad is not computed:
            grad.copy_(computed)


def _floats(weights: DAUWeights) -> list[Tensor]:
    """The weights as contiguous float32 tensors; copied only where they are not."""
    return [weight.float().contiguous() for weight in weights]


def _pointers(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    return tuple(tensor.data_ptr() for tensor in tensors)


def _shape(x: Tensor, weights: DAUWeights) -> dict[str, int]:
    """The fields of `UnitShape`."""
    batch, channels, height, width = x.shape
    sizes = weights.sizes
    return {
        "batch": batch,
        "channels": channels,
        "height": height,
        "width": width,
        "kernel": sizes.kernel,
        "dilated_kernel": sizes.dilated_kernel,
        "hidden": sizes.hidden,
        "dtype": DTYPES[x.dtype],
    }
