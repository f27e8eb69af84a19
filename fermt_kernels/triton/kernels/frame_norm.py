"""The last layer norm, and the corner head's weighting of search tokens."""

import triton
import triton.language as tl

from .frame_rows import column_indices, layer_norm_no_affine, load_stream, row_offsets


@triton.jit
def norm_kernel(
    stream_ptr,
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
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """The last layer norm, with weight and bias, of rows of the stream; `out_ptr` is compact."""
    index = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_mask = index < rows
    offsets = row_offsets(index, first, count, tokens)
    chunks = load_stream(stream_ptr, part_stride, offsets, row_mask, PARTS, DIM, BLOCK_C, CHUNKS)
    normed = layer_norm_no_affine(chunks, eps, tl.float32, DIM, BLOCK_C, CHUNKS)
    for c in tl.static_range(CHUNKS):
        columns = column_indices(c, BLOCK_C)
        col_mask = columns < DIM
        weight = tl.load(weight_ptr + columns, col_mask, other=0.0)
        out = normed[c] * weight[None, :] + tl.load(bias_ptr + columns, col_mask, other=0.0)[None, :]
        out_at = out_ptr + index[:, None] * DIM + columns[None, :]
        tl.store(out_at, out.to(out_ptr.dtype.element_ty), row_mask[:, None] & col_mask[None, :])


@triton.jit
def reweight_kernel(
    template_ptr,
    search_ptr,
    out_ptr,
    num_template,
    num_search,
    DIM: tl.constexpr,
    DIM_P2: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Multiplies search tokens by their dot product with their sample's mean template token."""
    blocks = tl.cdiv(num_search, BLOCK_M)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    columns = tl.arange(0, DIM_P2)
    col_mask = columns < DIM
    total = tl.zeros((DIM_P2,), tl.float32)
    for start in range(0, num_template, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        at = template_ptr + (batch * num_template + rows)[:, None] * DIM + columns[None, :]
        total += tl.sum(tl.load(at, (rows < num_template)[:, None] & col_mask[None, :], other=0.0).to(tl.float32), 0)
    rows = tl.program_id(0) % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    offsets = (batch * num_search + rows)[:, None] * DIM + columns[None, :]
    mask = (rows < num_search)[:, None] & col_mask[None, :]
    tokens = tl.load(search_ptr + offsets, mask, other=0.0).to(tl.float32)
    similarity = tl.sum(tokens * (total / num_template)[None, :], 1)
    tl.store(out_ptr + offsets, (tokens * similarity[:, None]).to(out_ptr.dtype.element_ty), mask)
