"""Attention backward for any length, in two kernels and without atomics; formulas as in attention_backward.py.

The first kernel computes dQ and statistics of each row of P, the second dK and dV. In float32 each row of P is divided
by its sum (ROW_SUMS), which is 1 up to the rounding of lse: that rounding would otherwise be the largest error.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .attention_primitives import (
    head_pointer,
    inverse_row_sums,
    load_lse_log2,
    load_rows,
    probabilities,
    query_block,
    repeat_last,
    score_gradients,
    store_rows,
    token_block,
)


@triton.jit
def attention_backward_queries_kernel(
    grad_out_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    lse_ptr,
    delta_ptr,
    inverse_sum_ptr,
    grad_q_ptr,
    grad_out_strides,
    q_strides,
    k_strides,
    v_strides,
    out_strides,
    grad_q_strides,
    heads,
    tokens,
    num_template,
    spans,
    blocks,
    scale,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ROW_SUMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Computes dQ of one block of queries, and each row's delta and inverse sum of P for the next kernel."""
    index = tl.program_id(0)
    head_index = (index // blocks).to(tl.int64)
    batch, head = head_index // heads, head_index % heads
    first, query_stop, key_start, key_stop = query_block(index % blocks, num_template, tokens, spans, BLOCK_M)
    rows = first + tl.arange(0, BLOCK_M)
    statistics = head_index * tokens + rows
    q_base = head_pointer(q_ptr, q_strides, batch, head)
    k_base = head_pointer(k_ptr, k_strides, batch, head)
    v_base = head_pointer(v_ptr, v_strides, batch, head)
    out_base = head_pointer(out_ptr, out_strides, batch, head)
    grad_out_base = head_pointer(grad_out_ptr, grad_out_strides, batch, head)
    q = load_rows(q_base, q_strides, repeat_last(rows, query_stop), query_stop, HEAD_DIM, BLOCK_D, False)
    grad_out = load_rows(grad_out_base, grad_out_strides, rows, query_stop, HEAD_DIM, BLOCK_D, False)
    out = load_rows(out_base, out_strides, rows, query_stop, HEAD_DIM, BLOCK_D, False)
    delta = tl.sum(grad_out.to(tl.float32) * out.to(tl.float32), 1)
    tl.store(delta_ptr + statistics, delta, mask=rows < query_stop)
    lse_log2 = load_lse_log2(lse_ptr + head_index * tokens, repeat_last(rows, query_stop), query_stop)
    if ROW_SUMS:
        inverse_sum = inverse_row_sums(
            q, lse_log2, k_base, k_strides, key_start, key_stop, scale_log2,
            HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, PRECISION,
        )  # fmt: skip
        tl.store(inverse_sum_ptr + statistics, inverse_sum, mask=rows < query_stop)
    single = key_stop - key_start == 1
    grad_q = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(key_start, key_stop, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        k = load_rows(k_base, k_strides, keys, key_stop, HEAD_DIM, BLOCK_D, False)
        v = load_rows(v_base, v_strides, keys, key_stop, HEAD_DIM, BLOCK_D, False)
        p = probabilities(q, k, scale_log2, lse_log2, (keys < key_stop)[None, :], PRECISION)
        if ROW_SUMS:
            p *= inverse_sum[:, None]
        grad_s = score_gradients(p, grad_out, v, delta, single, PRECISION)
        grad_q = tl.dot(grad_s.to(k.dtype), k, grad_q, input_precision=PRECISION)
    grad_q_base = head_pointer(grad_q_ptr, grad_q_strides, batch, head)
    store_rows(grad_q_base, grad_q_strides, rows, query_stop, grad_q * scale, HEAD_DIM, BLOCK_D)


@triton.jit
def attention_backward_keys_kernel(
    grad_out_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    lse_ptr,
    delta_ptr,
    inverse_sum_ptr,
    grad_k_ptr,
    grad_v_ptr,
    grad_out_strides,
    q_strides,
    k_strides,
    v_strides,
    grad_k_strides,
    grad_v_strides,
    heads,
    tokens,
    num_template,
    spans,
    blocks,
    scale,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ROW_SUMS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Computes dK and dV of one block of keys of one group, over the queries of each group that sees them."""
    index = tl.program_id(0)
    head_index = (index // blocks).to(tl.int64)
    batch, head = head_index // heads, head_index % heads
    start, stop, _ = token_block(index % blocks, num_template, tokens, BLOCK_N)
    keys = start + tl.arange(0, BLOCK_N)
    q_base = head_pointer(q_ptr, q_strides, batch, head)
    grad_out_base = head_pointer(grad_out_ptr, grad_out_strides, batch, head)
    k = load_rows(head_pointer(k_ptr, k_strides, batch, head), k_strides, keys, stop, HEAD_DIM, BLOCK_D, False)
    v = load_rows(head_pointer(v_ptr, v_strides, batch, head), v_strides, keys, stop, HEAD_DIM, BLOCK_D, False)
    grad_k = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    grad_v = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for group in tl.static_range(2):
        key_start, key_stop = spans[2 * group], spans[2 * group + 1]
        query_start = num_template * group
        query_stop = num_template + (tokens - num_template) * group
        single = key_stop - key_start == 1
        seen = (start >= key_start) & (start < key_stop)
        for first in range(query_start, tl.where(seen, query_stop, query_start), BLOCK_M):
            rows = first + tl.arange(0, BLOCK_M)
            statistics = head_index * tokens + rows
            q = load_rows(q_base, q_strides, repeat_last(rows, query_stop), query_stop, HEAD_DIM, BLOCK_D, False)
            grad_out = load_rows(grad_out_base, grad_out_strides, rows, query_stop, HEAD_DIM, BLOCK_D, False)
            lse_log2 = load_lse_log2(lse_ptr + head_index * tokens, repeat_last(rows, query_stop), query_stop)
            delta = tl.load(delta_ptr + statistics, mask=rows < query_stop, other=0.0)
            p = probabilities(q, k, scale_log2, lse_log2, (keys < stop)[None, :], PRECISION)
            if ROW_SUMS:
                p *= tl.load(inverse_sum_ptr + statistics, mask=rows < query_stop, other=1.0)[:, None]
            grad_s = score_gradients(p, grad_out, v, delta, single, PRECISION)
            grad_v = tl.dot(tl.trans(p.to(v.dtype)), grad_out, grad_v, input_precision=PRECISION)
            grad_k = tl.dot(tl.trans(grad_s.to(v.dtype)), q, grad_k, input_precision=PRECISION)
    grad_k_base = head_pointer(grad_k_ptr, grad_k_strides, batch, head)
    grad_v_base = head_pointer(grad_v_ptr, grad_v_strides, batch, head)
    store_rows(grad_k_base, grad_k_strides, keys, stop, grad_k * scale, HEAD_DIM, BLOCK_D)
    store_rows(grad_v_base, grad_v_strides, keys, stop, grad_v, HEAD_DIM, BLOCK_D)
