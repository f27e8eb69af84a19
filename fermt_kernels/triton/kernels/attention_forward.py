"""Attention forward: each program computes one block of queries of one group and head over the keys they see."""

from __future__ import annotations

import triton
import triton.language as tl

from .attention_primitives import head_pointer, load_rows, query_block, store_rows
from .dependent_launch import wait_for_last_launch


@triton.jit
def attention_forward_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    lse_ptr,
    q_strides,
    k_strides,
    v_strides,
    out_strides,
    heads,
    tokens,
    num_template,
    spans,
    blocks,
    abs_scale,
    abs_scale_log2,
    NEGATED: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    EVEN_QUERIES: tl.constexpr,
    EVEN_KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Attention with online soft-max in base 2; scores are scaled in the exponent, one multiply-add each.

    The maximum is of unscaled scores, so that q is negated for a negative scale. `blocks` is the number of query blocks
    of a head. In float32 the maximum is subtracted before scaling: the largest probability is then exactly 1, and a row
    that sees one key gets its value to the bit, as in eager PyTorch.
    """
    wait_for_last_launch(DEPENDENT)
    exact: tl.constexpr = q_ptr.dtype.element_ty == tl.float32
    index = tl.program_id(0)
    head_index = (index // blocks).to(tl.int64)
    batch, head = head_index // heads, head_index % heads
    first, query_stop, key_start, key_stop = query_block(index % blocks, num_template, tokens, spans, BLOCK_M)
    rows = first + tl.arange(0, BLOCK_M)
    q_base = head_pointer(q_ptr, q_strides, batch, head)
    q = load_rows(q_base, q_strides, rows, query_stop, HEAD_DIM, BLOCK_D, EVEN_QUERIES)
    if NEGATED:
        q = -q
    k_base = head_pointer(k_ptr, k_strides, batch, head)
    v_base = head_pointer(v_ptr, v_strides, batch, head)

    largest = tl.full([BLOCK_M], -3.0e38, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(key_start, key_stop, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        k = load_rows(k_base, k_strides, keys, key_stop, HEAD_DIM, BLOCK_D, EVEN_KEYS)
        v = load_rows(v_base, v_strides, keys, key_stop, HEAD_DIM, BLOCK_D, EVEN_KEYS)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if not EVEN_KEYS:
            scores = tl.where((keys < key_stop)[None, :], scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        if exact:
            p = tl.exp2((scores - larger[:, None]) * abs_scale_log2)
        else:
            p = tl.exp2(tl.fma(scores, abs_scale_log2, -(larger * abs_scale_log2)[:, None]))
        if not EVEN_KEYS:
            p = tl.where((keys < key_stop)[None, :], p, 0.0)
        correction = tl.exp2((largest - larger) * abs_scale_log2)
        total = total * correction + tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc * correction[:, None], input_precision=PRECISION)
        largest = larger

    sees_keys = key_stop > key_start
    total = tl.where(sees_keys, total, 1.0)
    lse = tl.where(sees_keys, largest * abs_scale + tl.log(total), float("-inf"))
    tl.store(lse_ptr + head_index * tokens + rows, lse, mask=rows < query_stop)
    out_base = head_pointer(out_ptr, out_strides, batch, head)
    if exact:
        acc = tl.div_rn(acc, tl.broadcast_to(total[:, None], acc.shape))  # "/" is not rounded correctly on a GPU
    else:
        acc *= (1.0 / total)[:, None]
    store_rows(out_base, out_strides, rows, query_stop, acc, HEAD_DIM, BLOCK_D)
