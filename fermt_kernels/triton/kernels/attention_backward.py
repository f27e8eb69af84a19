"""Attention backward for groups that fit one program, without atomics; probabilities are recomputed from lse.

P = exp(scale Q K^T - lse)     dP = dO V^T     dS = P (dP - delta), delta = rowsum(dO O)
dQ = scale dS K                dK = scale dS^T Q               dV = P^T dO
"""

from __future__ import annotations

import triton
import triton.language as tl

from .attention_primitives import (
    head_pointer,
    load_lse_log2,
    load_rows,
    probabilities,
    repeat_last,
    score_gradients,
    store_rows,
    token_block,
)


@triton.jit
def attention_backward_kernel(
    grad_out_ptr,
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    lse_ptr,
    grad_q_ptr,
    grad_k_ptr,
    grad_v_ptr,
    grad_out_strides,
    q_strides,
    k_strides,
    v_strides,
    out_strides,
    grad_q_strides,
    grad_k_strides,
    grad_v_strides,
    heads,
    tokens,
    num_template,
    spans,
    scale,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_TEMPLATE: tl.constexpr,
    BLOCK_SEARCH: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Computes dQ, dK and dV of one head. The queries stay in registers; a block of keys is of one group."""
    head_index = tl.program_id(0).to(tl.int64)
    batch, head = head_index // heads, head_index % heads
    q_base = head_pointer(q_ptr, q_strides, batch, head)
    k_base = head_pointer(k_ptr, k_strides, batch, head)
    v_base = head_pointer(v_ptr, v_strides, batch, head)
    out_base = head_pointer(out_ptr, out_strides, batch, head)
    grad_out_base = head_pointer(grad_out_ptr, grad_out_strides, batch, head)
    grad_q_base = head_pointer(grad_q_ptr, grad_q_strides, batch, head)
    grad_k_base = head_pointer(grad_k_ptr, grad_k_strides, batch, head)
    grad_v_base = head_pointer(grad_v_ptr, grad_v_strides, batch, head)

    rows_t = tl.arange(0, BLOCK_TEMPLATE)
    rows_s = num_template + tl.arange(0, BLOCK_SEARCH)
    q_t = load_rows(q_base, q_strides, repeat_last(rows_t, num_template), num_template, HEAD_DIM, BLOCK_D, False)
    q_s = load_rows(q_base, q_strides, repeat_last(rows_s, tokens), tokens, HEAD_DIM, BLOCK_D, False)
    grad_out_t = load_rows(grad_out_base, grad_out_strides, rows_t, num_template, HEAD_DIM, BLOCK_D, False)
    grad_out_s = load_rows(grad_out_base, grad_out_strides, rows_s, tokens, HEAD_DIM, BLOCK_D, False)
    out_t = load_rows(out_base, out_strides, rows_t, num_template, HEAD_DIM, BLOCK_D, False)
    out_s = load_rows(out_base, out_strides, rows_s, tokens, HEAD_DIM, BLOCK_D, False)
    delta_t = tl.sum(grad_out_t.to(tl.float32) * out_t.to(tl.float32), 1)
    delta_s = tl.sum(grad_out_s.to(tl.float32) * out_s.to(tl.float32), 1)
    lse_t = load_lse_log2(lse_ptr + head_index * tokens, repeat_last(rows_t, num_template), num_template)
    lse_s = load_lse_log2(lse_ptr + head_index * tokens, repeat_last(rows_s, tokens), tokens)
    single_t = spans[1] - spans[0] == 1
    single_s = spans[3] - spans[2] == 1
    grad_q_t = tl.zeros([BLOCK_TEMPLATE, BLOCK_D], tl.float32)
    grad_q_s = tl.zeros([BLOCK_SEARCH, BLOCK_D], tl.float32)
    for block in range(tl.cdiv(num_template, BLOCK_N) + tl.cdiv(tokens - num_template, BLOCK_N)):
        start, stop, _ = token_block(block, num_template, tokens, BLOCK_N)
        keys = start + tl.arange(0, BLOCK_N)
        k = load_rows(k_base, k_strides, keys, stop, HEAD_DIM, BLOCK_D, False)
        v = load_rows(v_base, v_strides, keys, stop, HEAD_DIM, BLOCK_D, False)
        inside = (keys < stop)[None, :]
        grad_k = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        grad_v = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
        if (start >= spans[0]) & (start < spans[1]) & (num_template > 0):
            p = probabilities(q_t, k, scale_log2, lse_t, inside, PRECISION)
            grad_s = score_gradients(p, grad_out_t, v, delta_t, single_t, PRECISION)
            grad_v = tl.dot(tl.trans(p.to(v.dtype)), grad_out_t, grad_v, input_precision=PRECISION)
            grad_k = tl.dot(tl.trans(grad_s.to(v.dtype)), q_t, grad_k, input_precision=PRECISION)
            grad_q_t = tl.dot(grad_s.to(v.dtype), k, grad_q_t, input_precision=PRECISION)
        if (start >= spans[2]) & (start < spans[3]) & (num_template < tokens):
            p = probabilities(q_s, k, scale_log2, lse_s, inside, PRECISION)
            grad_s = score_gradients(p, grad_out_s, v, delta_s, single_s, PRECISION)
            grad_v = tl.dot(tl.trans(p.to(v.dtype)), grad_out_s, grad_v, input_precision=PRECISION)
            grad_k = tl.dot(tl.trans(grad_s.to(v.dtype)), q_s, grad_k, input_precision=PRECISION)
            grad_q_s = tl.dot(grad_s.to(v.dtype), k, grad_q_s, input_precision=PRECISION)
        store_rows(grad_k_base, grad_k_strides, keys, stop, grad_k * scale, HEAD_DIM, BLOCK_D)
        store_rows(grad_v_base, grad_v_strides, keys, stop, grad_v, HEAD_DIM, BLOCK_D)
    store_rows(grad_q_base, grad_q_strides, rows_t, num_template, grad_q_t * scale, HEAD_DIM, BLOCK_D)
    store_rows(grad_q_base, grad_q_strides, rows_s, tokens, grad_q_s * scale, HEAD_DIM, BLOCK_D)
