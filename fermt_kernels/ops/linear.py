"""A linear layer, with an optional GELU of its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import checks, reference
from ..backends import AUTO, BACKENDS, requested, resolve
from .registration import define, effective_dtype, needs_gradient, register_gradient
from .transforms import REFERENCE, in_plain_pytorch


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    gelu: bool = False,
    out_dtype: torch.dtype | None = None,
    backend: str = "auto",
) -> Tensor:
    """A linear layer x W^T + bias, or GELU(x) W^T + bias with the exact GELU.

    Only x is saved for the gradient; GELU(x) is recomputed. On GPUs, and wherever no kernel of this package takes the
    input, this calls `torch.nn.functional.linear`.

    Args:
        x: (..., K); float32, bfloat16, float16 or float64.
        weight: (N, K), on x's device and, unless autocast is on, in its dtype.
        bias: (N,) or None, likewise.
        gelu: whether to apply GELU to x first.
        out_dtype: dtype of the result; if None, that of the products: x's dtype, or autocast's. Sums are float32, so
            that torch.float32 under autocast returns them unrounded, as a float32 residual stream needs.
        backend: "auto" or a name from `fermt_kernels.backends()`; "triton" has no linear kernel and runs PyTorch's.

    Returns:
        (..., N). Gradients have the dtypes of x, weight and bias.

    Raises:
        TypeError, ValueError: an argument is not as described above; the message carries its value.
        RuntimeError: the named backend cannot run this; the message has the reason.
    """
    checks.not_symbolic("linear", x, weight, bias)
    checks.linear("linear", x, weight, bias, out_dtype)
    tensors = (x, weight) if bias is None else (x, weight, bias)
    name = requested(backend)
    if (name != AUTO and "linear_forward" not in BACKENDS[name].SUPPORTS) or in_plain_pytorch(
        "linear", backend, *tensors
    ):
        name = REFERENCE
    else:
        name = resolve("linear", backend, x.device.type, effective_dtype(x), needs_gradient(*tensors))
    if name == REFERENCE:
        out = reference.linear(x, weight, bias, gelu=gelu)
        return out if out_dtype is None else out.to(out_dtype)
    rows, dtype = x.reshape(-1, x.shape[-1]), effective_dtype(x)
    stored = torch.float32 if out_dtype == torch.float64 else out_dtype or dtype  # kernels sum in float32
    out = torch.ops.fermt.linear(rows, weight, bias, gelu, dtype, stored, name)
    return out.view(*x.shape[:-1], weight.shape[0]).to(out_dtype or dtype)


def _fake(x, weight, bias, gelu, dtype, out_dtype, backend):  # type: ignore[no-untyped-def]
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=out_dtype)


def _forward(x, weight, bias, gelu, dtype, out_dtype, backend):  # type: ignore[no-untyped-def]
    out = _fake(x, weight, bias, gelu, dtype, out_dtype, backend)
    BACKENDS[backend].linear_forward(x, weight, bias, gelu, dtype, out)
    return out


def _backward_fake(grad_out, x, weight, gelu, dtype, needs_grad, backend):  # type: ignore[no-untyped-def]
    like = ((x, x.shape), (weight, weight.shape), (weight, weight.shape[:1]))
    return tuple(t.new_empty(shape if need else (0,)) for (t, shape), need in zip(like, needs_grad, strict=True))


def _backward(grad_out, x, weight, gelu, dtype, needs_grad, backend):  # type: ignore[no-untyped-def]
    grads = _backward_fake(grad_out, x, weight, gelu, dtype, needs_grad, backend)
    wanted = (grad if need else None for grad, need in zip(grads, needs_grad, strict=True))
    BACKENDS[backend].linear_backward(grad_out, x, weight, gelu, dtype, *wanted)
    return grads


# Autocast casts no input: the kernels convert what they read, and each gradient has its tensor's dtype.
define(
    "linear(Tensor x, Tensor weight, Tensor? bias, bool gelu, ScalarType dtype, ScalarType out_dtype, str backend)"
    " -> Tensor",
    _forward,
    _fake,
    autocast=False,
)
define(
    "linear_backward(Tensor grad_out, Tensor x, Tensor weight, bool gelu, ScalarType dtype, bool[3] needs_grad,"
    " str backend) -> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
    autocast=False,
)


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weight, _, ctx.gelu, ctx.dtype, _, ctx.backend = inputs
    ctx.save_for_backward(x, weight)


def _gradient(ctx: Any, grad_out: Tensor) -> tuple:
    needs_grad = list(ctx.needs_input_grad[:3])
    grads = torch.ops.fermt.linear_backward(grad_out, *ctx.saved_tensors, ctx.gelu, ctx.dtype, needs_grad, ctx.backend)
    return *(grad if need else None for grad, need in zip(grads, needs_grad, strict=True)), None, None, None, None


register_gradient("linear", _gradient, _setup_context)
