"""The MLP of a layer, with or without attention's projection before it; hidden values stay in registers."""

import triton
import triton.language as tl

from .dependent_launch import wait_for_last_launch
from .frame_rows import column_indices, gelu, layer_norm_no_affine, load_rows, product, row_offsets


@triton.jit
def add_mlp(
    x,
    fc1_weight_ptr,
    fc1_bias_ptr,
    fc2_weight_ptr,
    fc2_bias_ptr,
    out_ptr,
    part_stride,
    offsets,
    row_mask,
    eps,
    DIM: tl.constexpr,
    HIDDEN: tl.constexpr,
    SHARE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Computes x + fc2 GELU(fc1 norm(x)) over SHARE hidden values. Program j writes part j; x is added to part 0."""
    share = tl.program_id(1)
    normed = layer_norm_no_affine(x, eps, fc1_weight_ptr.dtype.element_ty, DIM, BLOCK_C, CHUNKS)
    totals = ()
    for c in tl.static_range(CHUNKS):
        columns = column_indices(c, BLOCK_C)
        whole = x[c] + tl.load(fc2_bias_ptr + columns, columns < DIM, other=0.0)[None, :]
        totals = totals + (whole if SHARE >= HIDDEN else tl.where(share == 0, whole, 0.0),)
    for start in range(0, SHARE, BLOCK_N):
        hiddens = share * SHARE + start + tl.arange(0, BLOCK_N)
        col_mask = hiddens < HIDDEN
        hidden = product(normed, fc1_weight_ptr, hiddens, HIDDEN, DIM, BLOCK_C, CHUNKS, PRECISION)
        hidden = gelu(hidden + tl.load(fc1_bias_ptr + hiddens, col_mask, other=0.0)[None, :])
        hidden = hidden.to(fc2_weight_ptr.dtype.element_ty)
        more = ()
        for c in tl.static_range(CHUNKS):
            outputs = column_indices(c, BLOCK_C)
            input_mask = col_mask[:, None] & (outputs < DIM)[None, :]
            weight = tl.load(fc2_weight_ptr + (hiddens[:, None] * DIM + outputs[None, :]), input_mask, other=0.0)
            more = more + (tl.dot(hidden, weight, totals[c], input_precision=PRECISION),)
        totals = more
    for c in tl.static_range(CHUNKS):
        columns = column_indices(c, BLOCK_C)
        out_at = out_ptr + share * part_stride + (offsets[:, None] * DIM + columns[None, :])
        tl.store(out_at, totals[c], row_mask[:, None] & (columns < DIM)[None, :])


@triton.jit
def mlp_kernel(
    stream_ptr,
    fc1_weight_ptr,
    fc1_bias_ptr,
    fc2_weight_ptr,
    fc2_bias_ptr,
    out_ptr,
    part_stride,
    rows,
    first,
    count,
    tokens,
    eps,
    DIM: tl.constexpr,
    HIDDEN: tl.constexpr,
    SHARE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
    PRECISION: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """The MLP with its residual. Rows are read before they are written: with one share `out_ptr` may be the stream."""
    wait_for_last_launch(DEPENDENT)
    index = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_mask = index < rows
    offsets = row_offsets(index, first, count, tokens)
    x = load_rows(stream_ptr, offsets, row_mask, DIM, BLOCK_C, CHUNKS)
    add_mlp(
        x, fc1_weight_ptr, fc1_bias_ptr, fc2_weight_ptr, fc2_bias_ptr, out_ptr, part_stride, offsets, row_mask, eps,
        DIM, HIDDEN, SHARE, BLOCK_N, BLOCK_C, CHUNKS, PRECISION,
    )  # fmt: skip


@triton.jit
def proj_mlp_kernel(
    heads_ptr,
    proj_weight_ptr,
    proj_bias_ptr,
    stream_ptr,
    fc1_weight_ptr,
    fc1_bias_ptr,
    fc2_weight_ptr,
    fc2_bias_ptr,
    out_ptr,
    part_stride,
    rows,
    first,
    count,
    tokens,
    eps,
    DIM: tl.constexpr,
    HIDDEN: tl.constexpr,
    SHARE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
    PRECISION: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Attention's projection with its residual, recomputed in every share, and the MLP with its residual."""
    wait_for_last_launch(DEPENDENT)
    index = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_mask = index < rows
    offsets = row_offsets(index, first, count, tokens)
    heads = load_rows(heads_ptr, offsets, row_mask, DIM, BLOCK_C, CHUNKS)
    x = ()
    for c in tl.static_range(CHUNKS):
        columns = column_indices(c, BLOCK_C)
        projected = product(heads, proj_weight_ptr, columns, DIM, DIM, BLOCK_C, CHUNKS, PRECISION)
        projected += tl.load(proj_bias_ptr + columns, columns < DIM, other=0.0)[None, :]
        mask = row_mask[:, None] & (columns < DIM)[None, :]
        x = x + (projected + tl.load(stream_ptr + (offsets[:, None] * DIM + columns[None, :]), mask, other=0.0),)
    add_mlp(
        x, fc1_weight_ptr, fc1_bias_ptr, fc2_weight_ptr, fc2_bias_ptr, out_ptr, part_stride, offsets, row_mask, eps,
        DIM, HIDDEN, SHARE, BLOCK_N, BLOCK_C, CHUNKS, PRECISION,
    )  # fmt: skip
