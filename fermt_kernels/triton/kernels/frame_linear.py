"""Linear layers of the frame: layer norm and linear, and linear plus residual."""

import triton
import triton.language as tl

from .dependent_launch import wait_for_last_launch
from .frame_rows import column_indices, gelu, layer_norm_no_affine, load_stream, product, row_offsets


@triton.jit
def norm_linear_kernel(
    stream_ptr,
    sum_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    part_stride,
    rows,
    first,
    count,
    tokens,
    eps,
    PARTS: tl.constexpr,
    ACTIVATED: tl.constexpr,
    DIM: tl.constexpr,
    OUTPUTS: tl.constexpr,
    SHARE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
    PRECISION: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Layer norm, linear layer and, if ACTIVATED, GELU of SHARE outputs; share 0 also stores the stream's sum."""
    wait_for_last_launch(DEPENDENT)
    index = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    share = tl.program_id(1)
    row_mask = index < rows
    offsets = row_offsets(index, first, count, tokens)
    chunks = load_stream(stream_ptr, part_stride, offsets, row_mask, PARTS, DIM, BLOCK_C, CHUNKS)
    if PARTS > 1 and share == 0:
        for c in tl.static_range(CHUNKS):
            columns = column_indices(c, BLOCK_C)
            mask = row_mask[:, None] & (columns < DIM)[None, :]
            tl.store(sum_ptr + (offsets[:, None] * DIM + columns[None, :]), chunks[c], mask)
    normed = layer_norm_no_affine(chunks, eps, weight_ptr.dtype.element_ty, DIM, BLOCK_C, CHUNKS)
    for start in range(0, SHARE, BLOCK_N):
        outputs = share * SHARE + start + tl.arange(0, BLOCK_N)
        col_mask = outputs < OUTPUTS
        total = product(normed, weight_ptr, outputs, OUTPUTS, DIM, BLOCK_C, CHUNKS, PRECISION)
        total += tl.load(bias_ptr + outputs, col_mask, other=0.0)[None, :]
        if ACTIVATED:
            total = gelu(total)
        out_at = out_ptr + (offsets[:, None] * OUTPUTS + outputs[None, :])
        tl.store(out_at, total.to(out_ptr.dtype.element_ty), row_mask[:, None] & col_mask[None, :])


@triton.jit
def linear_kernel(
    input_ptr,
    stream_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    rows,
    first,
    count,
    tokens,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Linear layer plus residual. A tile is read before it is written, so that `out_ptr` may be the stream."""
    wait_for_last_launch(DEPENDENT)
    index = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    outputs = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_mask, col_mask = index < rows, outputs < OUTPUTS
    offsets = row_offsets(index, first, count, tokens)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, INPUTS, BLOCK_K):
        inputs = start + tl.arange(0, BLOCK_K)
        input_mask = inputs < INPUTS
        x = tl.load(
            input_ptr + (offsets[:, None] * INPUTS + inputs[None, :]),
            row_mask[:, None] & input_mask[None, :],
            other=0.0,
        )
        weight_at = weight_ptr + (inputs[:, None] * OUTPUTS + outputs[None, :])
        weight = tl.load(weight_at, input_mask[:, None] & col_mask[None, :], other=0.0)
        total = tl.dot(x, weight, total, input_precision=PRECISION)
    total += tl.load(bias_ptr + outputs, col_mask, other=0.0)[None, :]
    at, mask = offsets[:, None] * OUTPUTS + outputs[None, :], row_mask[:, None] & col_mask[None, :]
    total += tl.load(stream_ptr + at, mask, other=0.0)
    tl.store(out_ptr + at, total, mask)
