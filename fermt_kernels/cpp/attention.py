"""Attention by the compiled kernels: pointers and strides for the library."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..layouts import last_contiguous
from ..spec.patterns import key_spans
from . import library
from .abi import DTYPES, tensor_fields


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, num_template: int, pattern: str, scale: float
) -> None:
    """Computes attention of q, k, v (B, H, N, D) into `out` (last dimension contiguous) and `lse` (B, H, N)."""
    q, k, v = last_contiguous(q), last_contiguous(k), last_contiguous(v)
    library.load().call(
        "fermt_attention_forward",
        **_shape(q, num_template, pattern, scale),
        q=tensor_fields(q),
        k=tensor_fields(k),
        v=tensor_fields(v),
        out=tensor_fields(out),
        lse=lse.data_ptr(),
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
    """Computes the gradients of attention into `grad_q`, `grad_k` and `grad_v`, whose last dimension is contiguous."""
    grad_out, q, k, v, out = (last_contiguous(t) for t in (grad_out, q, k, v, out))
    library.load().call(
        "fermt_attention_backward",
        **_shape(q, num_template, pattern, scale),
        grad_out=tensor_fields(grad_out),
        q=tensor_fields(q),
        k=tensor_fields(k),
        v=tensor_fields(v),
        out=tensor_fields(out),
        lse=lse.data_ptr(),
        grad_q=tensor_fields(grad_q),
        grad_k=tensor_fields(grad_k),
        grad_v=tensor_fields(grad_v),
    )


def _shape(q: Tensor, num_template: int, pattern: str, scale: float) -> dict[str, Any]:
    """The fields of `AttentionShape`."""
    batch, heads, tokens, head_dim = q.shape
    template_keys, search_keys = key_spans(pattern, num_template, tokens)
    return {
        "batch": batch,
        "heads": heads,
        "tokens": tokens,
        "head_dim": head_dim,
        "num_template": num_template,
        "template_keys": template_keys,
        "search_keys": search_keys,
        "scale": scale,
        "dtype": DTYPES[q.dtype],
    }
