"""Hands attention's pointers and strides to csrc/attention_kernel.h."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int64, c_void_p

from torch import Tensor

from ..patterns import key_spans
from . import library


class _ForwardArgs(ctypes.Structure):
    """`fermt_attention_forward_args` of csrc/abi.h."""

    _fields_ = (
        ("struct_size", c_int64),
        ("parallel_for", c_void_p),
        *((name, c_void_p) for name in ("q", "k", "v", "out", "lse")),
        *((name, c_int64) for name in ("batch", "heads", "tokens", "head_dim", "num_template")),
        *((name, c_int64 * 2) for name in ("template_keys", "search_keys")),
        *((name, c_int64 * 3) for name in ("q_strides", "k_strides", "v_strides", "out_strides")),
        ("scale", c_float),
    )


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, num_template: int, pattern: str, scale: float
) -> None:
    """Attention of (B, H, N, D) into `out` (any strides, last dimension contiguous) and `lse` (B, H, N), contiguous."""
    q, k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (q, k, v))
    lib = library.load()
    spans = key_spans(pattern, num_template, q.shape[2])
    args = _ForwardArgs(
        ctypes.sizeof(_ForwardArgs),
        lib.parallel_for,
        *(t.data_ptr() for t in (q, k, v, out, lse)),
        *q.shape,
        num_template,
        *spans,
        *(t.stride()[:3] for t in (q, k, v, out)),
        scale,
    )
    lib.call("fermt_attention_forward", args)
