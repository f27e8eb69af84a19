"""The Dual Attention Unit as one operator, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import checks, reference
from ..backends import BACKENDS, constant_size, resolve, resolve_backward
from ..spec.dual_attention_unit import DAUWeights
from .registration import define, effective_dtype, needs_gradient, register_gradient
from .transforms import in_plain_pytorch


def dual_attention_unit(x: Tensor, weights: DAUWeights, *, backend: str = "auto") -> Tensor:
    """The Dual Attention Unit, proj_2(s * f * u) + x with u = GELU(proj_1(x)) (Eq. 4 of the paper).

    f is the spatial attention, s the channel attention:
    f = conv1(conv_spatial(conv0(u))), where every padded convolution sees zeros outside the image;
    s = sigmoid(fc_2(relu(fc_0(mean over the image of u)))).

    Args:
        x: (B, C, H, W); float32, bfloat16, float16 or float64.
        weights: the twelve tensors, in x's dtype and on its device.
        backend: "auto" or a name from `fermt_kernels.backends()`. A named backend never falls back to another.

    Returns:
        (B, C, H, W) in x's dtype, contiguous.

    Raises:
        TypeError, ValueError: an argument is not as described above; the message carries its value.
        RuntimeError: the named backend cannot run this; the message has the reason.
    """
    checks.not_symbolic("dual_attention_unit", x)
    if len(weights) != len(DAUWeights._fields):
        raise ValueError(f"dual_attention_unit: weights must be {len(DAUWeights._fields)} tensors, got {len(weights)}")
    checks.dual_attention_unit("dual_attention_unit", x, DAUWeights(*weights))
    if in_plain_pytorch("dual_attention_unit", backend, x, *weights):
        cast = [tensor.to(effective_dtype(tensor)) for tensor in (x, *weights)]
        return reference.dual_attention_unit(cast[0], cast[1:])
    size, differentiated = constant_size("dual_attention_unit", x.shape[1]), needs_gradient(x, *weights)
    name = resolve("dual_attention_unit", backend, x.device.type, effective_dtype(x), differentiated, size)
    return torch.ops.fermt.dual_attention_unit(x, *weights, name)


def _fake(x, *weights_and_backend):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape)


def _forward(x, *weights_and_backend):  # type: ignore[no-untyped-def]
    *weights, backend = weights_and_backend
    out = _fake(x)
    BACKENDS[backend].dual_attention_unit_forward(x, DAUWeights(*weights), out)
    return out


def _backward_fake(grad_out, x, *weights_and_backend):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape), *(weight.new_empty(weight.shape) for weight in weights_and_backend[:-1])


def _backward(grad_out, x, *weights_and_backend):  # type: ignore[no-untyped-def]
    *weights, backend = weights_and_backend
    grad_x, *grads = _backward_fake(grad_out, x, *weights_and_backend)
    BACKENDS[backend].dual_attention_unit_backward(grad_out, x, DAUWeights(*weights), grad_x, DAUWeights(*grads))
    return grad_x, *grads


_WEIGHTS = ", ".join(f"Tensor {field}" for field in DAUWeights._fields)
define(f"dual_attention_unit(Tensor x, {_WEIGHTS}, str backend) -> Tensor", _forward, _fake)
define(
    f"dual_attention_unit_backward(Tensor grad_out, Tensor x, {_WEIGHTS}, str backend)"
    f" -> ({', '.join(['Tensor'] * (1 + len(DAUWeights._fields)))})",
    _backward,
    _backward_fake,
)


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, forward_backend = inputs
    ctx.save_for_backward(*tensors)
    x = tensors[0]
    ctx.backend = resolve_backward("dual_attention_unit", forward_backend, x.device.type, x.dtype)


def _gradient(ctx: Any, grad_out: Tensor) -> tuple:
    return *torch.ops.fermt.dual_attention_unit_backward(grad_out, *ctx.saved_tensors, ctx.backend), None


register_gradient("dual_attention_unit", _gradient, _setup_context)
