"""The Dual Attention Unit as one op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import checks
from ..backends import BACKENDS, constant_size, resolve, resolve_backward
from .registration import define, effective_dtype, needs_gradient, register_gradient


class DAUWeights(NamedTuple):
    """The tensors of a Dual Attention Unit over C channels, under the authors' names (dots become underscores).

    `conv0` is depth-wise, K x K; `conv_spatial` is depth-wise with dilation (K + 1) / 2: 3 for the model's K of 5.
    """

    proj_1_weight: Tensor  # (C, C, 1, 1)
    proj_1_bias: Tensor  # (C,)
    conv0_weight: Tensor  # (C, 1, K, K)
    conv0_bias: Tensor  # (C,)
    conv_spatial_weight: Tensor  # (C, 1, K', K')
    conv_spatial_bias: Tensor  # (C,)
    conv1_weight: Tensor  # (C, C, 1, 1)
    conv1_bias: Tensor  # (C,)
    fc_0_weight: Tensor  # (hidden, C)
    fc_2_weight: Tensor  # (C, hidden)
    proj_2_weight: Tensor  # (C, C, 1, 1)
    proj_2_bias: Tensor  # (C,)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], prefix: str = "") -> DAUWeights:
        """The weights under the authors' keys, such as `<prefix>spatial_gating_unit.conv0.weight`.

        Raises:
            KeyError: a key is missing; the message names it.
        """
        return cls(*(state[prefix + key] for key in STATE_KEYS.values()))


STATE_KEYS = {
    field: ("" if field.startswith("proj") else "spatial_gating_unit.")
    + field.replace("fc_", "fc.").replace("_weight", ".weight").replace("_bias", ".bias")
    for field in DAUWeights._fields
}


def dual_attention_unit(x: Tensor, weights: DAUWeights, *, backend: str = "auto") -> Tensor:
    """proj_2(s * f * u) + x: spatial attention f and channel attention s of u = GELU(proj_1(x)) (Eq. 4 of the paper).

    f = conv1(conv_spatial(conv0(u))), where every padded convolution sees zeros outside the image;
    s = sigmoid(fc_2(relu(fc_0(mean over the image of u)))).

    Args:
        x: (B, C, H, W); float32, bfloat16, float16 or float64.
        weights: the twelve tensors, in x's dtype and on its device.
        backend: "auto" or a name from `fermt_kernels.backends()`. A name never falls back.

    Returns:
        (B, C, H, W) in x's dtype, contiguous.

    Raises:
        TypeError, ValueError: an input is not of the form above; the message carries the value.
        RuntimeError: the named backend cannot run this, with the reason.
    """
    if len(weights) != len(DAUWeights._fields):
        raise ValueError(f"dual_attention_unit: weights must be {len(DAUWeights._fields)} tensors, got {len(weights)}")
    checks.dual_attention_unit("dual_attention_unit", x, DAUWeights._fields, weights)
    size, differentiated = constant_size("dual_attention_unit", x.shape[1]), needs_gradient(x, *weights)
    name = resolve("dual_attention_unit", backend, x.device.type, effective_dtype(x), differentiated, size)
    return torch.ops.fermt.dual_attention_unit(x, *weights, name)


def _fake(x, *weights_and_backend):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape)


def _forward(x, *weights_and_backend):  # type: ignore[no-untyped-def]
    *weights, backend = weights_and_backend
    out = _fake(x)
    BACKENDS[backend].dual_attention_unit_forward(x, weights, out)
    return out


def _backward_fake(grad_out, x, *weights_and_backend):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape), *(weight.new_empty(weight.shape) for weight in weights_and_backend[:-1])


def _backward(grad_out, x, *weights_and_backend):  # type: ignore[no-untyped-def]
    *weights, backend = weights_and_backend
    grad_x, *grads = _backward_fake(grad_out, x, *weights_and_backend)
    BACKENDS[backend].dual_attention_unit_backward(grad_out, x, weights, grad_x, grads)
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
