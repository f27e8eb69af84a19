"""Hands attention's pointers and strides to csrc/attention_{forward,backward}_kernel.h."""

from __future__ import annotations

from ctypes import sizeof

from torch import Tensor

from ..patterns import key_spans
from . import library
from .abi import DTYPES, AttentionBackwardArgs, AttentionForwardArgs, last_contiguous, tensor_arg


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, num_template: int, pattern: str, scale: float
) -> None:
    """Attention of (B, H, N, D) into `out` (last dimension contiguous) and `lse` (B, H, N), contiguous."""
    lib = library.load()
    q, k, v = last_contiguous(q), last_contiguous(k), last_contiguous(v)
    args = AttentionForwardArgs(
        sizeof(AttentionForwardArgs),
        lib.parallel_for,
        _shape(q, num_template, pattern, scale),
        *(tensor_arg(t) for t in (q, k, v, out)),
        lse.data_ptr(),
    )
    lib.call("fermt_attention_forward", args)


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
    lib = library.load()
    grad_out, q, k, v, out = (last_contiguous(t) for t in (grad_out, q, k, v, out))
    args = AttentionBackwardArgs(
        sizeof(AttentionBackwardArgs),
        lib.parallel_for,
        _shape(q, num_template, pattern, scale),
        *(tensor_arg(t) for t in (grad_out, q, k, v, out)),
        lse.data_ptr(),
        *(tensor_arg(t) for t in (grad_q, grad_k, grad_v)),
    )
    lib.call("fermt_attention_backward", args)


def _shape(q: Tensor, num_template: int, pattern: str, scale: float) -> tuple:
    return (*q.shape, num_template, *key_spans(pattern, num_template, q.shape[2]), scale, DTYPES[q.dtype])
