"""Functions that the attention kernels share: addressing, loading and storing rows, probabilities, score gradients.

Strides are (batch, head, token); spans are (template key start, stop, search key start, stop).
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def head_pointer(pointer, strides, batch, head):
    """Pointer to a head; batch and head are int64, because a tensor can have more than 2^31 elements."""
    return pointer + batch * strides[0] + head * strides[1]


@triton.jit
def token_block(block, num_template, tokens, BLOCK: tl.constexpr):
    """First token of a block, the end of its group, and whether that is the template's, whose blocks come first."""
    template_blocks = tl.cdiv(num_template, BLOCK)
    is_template = block < template_blocks
    first = tl.where(is_template, block * BLOCK, num_template + (block - template_blocks) * BLOCK)
    return first, tl.where(is_template, num_template, tokens), is_template


@triton.jit
def query_block(block, num_template, tokens, spans, BLOCK_M: tl.constexpr):
    """First query, end of the group's queries, and span of keys of a query block; template blocks come first."""
    first, stop, is_template = token_block(block, num_template, tokens, BLOCK_M)
    key_start = tl.where(is_template, spans[0], spans[2])
    key_stop = tl.where(is_template, spans[1], spans[3])
    return first, stop, key_start, key_stop


@triton.jit
def load_rows(base, strides, rows, row_stop, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, EVEN: tl.constexpr):
    """Loads (rows, BLOCK_D) of a head; zeros from `row_stop` on and past the head dim. EVEN: nothing is masked."""
    dims = tl.arange(0, BLOCK_D)
    pointers = base + rows.to(tl.int64)[:, None] * strides[2] + dims[None, :]
    if EVEN:
        return tl.load(pointers)
    else:
        return tl.load(pointers, mask=(rows < row_stop)[:, None] & (dims < HEAD_DIM)[None, :], other=0.0)


@triton.jit
def repeat_last(rows, row_stop):
    """Rows of queries, the last one again from `row_stop` on, so that it adds no NaN of its own.

    A row of zeros would: its score with an infinite key is NaN, and so then is what 0 times it adds to the gradients.
    """
    return tl.maximum(tl.minimum(rows, row_stop - 1), 0)  # 0, which is masked, where there are none


@triton.jit
def store_rows(base, strides, rows, row_stop, values, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Stores (rows, BLOCK_D) of a head, converted to the pointer's dtype."""
    dims = tl.arange(0, BLOCK_D)
    pointers = base + rows.to(tl.int64)[:, None] * strides[2] + dims[None, :]
    mask = (rows < row_stop)[:, None] & (dims < HEAD_DIM)[None, :]
    tl.store(pointers, values.to(base.dtype.element_ty), mask=mask)


@triton.jit
def load_lse_log2(lse_ptr, rows, row_stop):
    """Loads lse in base 2; infinity, which gives probability 0, from `row_stop` on."""
    return tl.load(lse_ptr + rows, mask=rows < row_stop, other=float("inf")) * LOG2E


@triton.jit
def probabilities(q, k, scale_log2, lse_log2, seen, PRECISION: tl.constexpr):
    """Probabilities exp(scale q k^T - lse) where `seen` (1, keys) is true, else 0."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
    return tl.where(seen, tl.exp2(tl.fma(scores, scale_log2, -lse_log2[:, None])), 0.0)


@triton.jit
def inverse_row_sums(
    q,
    lse_log2,
    k_base,
    k_strides,
    key_start,
    key_stop,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Inverse of each row's sum of P over its keys; 1 for a row that sees no keys or is past the end."""
    total = tl.zeros([BLOCK_M], tl.float32)
    for start in range(key_start, key_stop, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        k = load_rows(k_base, k_strides, keys, key_stop, HEAD_DIM, BLOCK_D, False)
        total += tl.sum(probabilities(q, k, scale_log2, lse_log2, (keys < key_stop)[None, :], PRECISION), 1)
    return tl.where(total > 0, 1.0 / total, 1.0)


@triton.jit
def score_gradients(p, grad_out, v, delta, single, PRECISION: tl.constexpr):
    """Gradient dS of the scores from P; 0 over a single key, whose probability is 1 whatever its score, or NaN."""
    grad_s = p * (tl.dot(grad_out, tl.trans(v), input_precision=PRECISION) - delta[:, None])
    return tl.where(single, 0.0 * grad_s, grad_s)
