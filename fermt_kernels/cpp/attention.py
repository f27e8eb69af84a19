"""Hands attention's pointers and strides to csrc/ops/attention_{forward,backward}.h."""

from __future__ import annotations

from torch import Tensor

from ..layouts import last_contiguous
from ..patterns import key_spans
from . import library
from .abi import DTYPES, tensor_fields


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, num_template: int, pattern: str, scale: float
) -> None:
    """Attention of (B, H, N, D) into `out` (last dimension contiguous) and `lse` (B, H, N), contiguous."""
    q, k, v = last_contiguous(q), last_contiguous(k), last_contiguous(v)
    library.load().call(
        "fermt_attention_forward",
        *_shape(q, num_template, pattern, scale),
        *tensor_fields(q),
        *tensor_fields(k),
        *tensor_fields(v),
        *tensor_fields(out),
        lse.data_ptr(),
    )


def attention_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    num_template: int,
    pattern: str,
    scale: float,
) -> None:
    """Gradients of attention into `grad_q`, `grad_k`, `grad_v` (last dimension contiguous)."""
    grad_out, q, k, v, out = (last_contiguous(t) for t in (grad_out, q, k, v, out))
    library.load().call(
        "fermt_attention_backward",
        *_shape(q, num_template, pattern, scale),
        *tensor_fields(grad_out),
        *tensor_fields(q),
        *tensor_fields(k),
        *tensor_fields(v),
        *tensor_fields(out),
        lse.data_ptr(),
        *tensor_fields(grad_q),
        *tensor_fields(grad_k),
        *tensor_fields(grad_v),
    )


def _shape(q: Tensor, num_template: int, pattern: str, scale: float) -> tuple[float, ...]:
    template_keys, search_keys = key_spans(pattern, num_template, q.shape[2])
    return (*q.shape, num_template, *template_keys, *search_keys, scale, DTYPES[q.dtype])
