"""What follows attention in a layer, a block of rows a program: the hidden values never leave it."""

import triton
import triton.language as tl

from .frame_rows import columns_of, gelu, layer_norm_no_affine, load_rows, product, row_offsets


@triton.jit
def add_mlp(
    x,
    fc1_weight_ptr,
    fc1_bias_ptr,
    fc2_weight_ptr,
    fc2_bias_ptr,
    out_ptr,
    part_stride,
    places,
    known,
    eps,
    DIM: tl.constexpr,
    HIDDEN: tl.constexpr,
    SHARE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """x + fc2 GELU(fc1 norm(x)) by SHARE of the hidden values; program j of a row writes part j, x being in part 0."""
    share = tl.program_id(1)
    normed = layer_norm_no_affine(x, eps, fc1_weight_ptr.dtype.element_ty, DIM, BLOCK_C, CHUNKS)
    totals = ()
    for c in tl.static_range(CHUNKS):
        columns = columns_of(c, BLOCK_C)
        whole = x[c] + tl.load(fc2_bias_ptr + columns, columns < DIM, other=0.0)[None, :]
        totals = totals + (whole if SHARE >= HIDDEN else tl.where(share == 0, whole, 0.0),)
    for start in range(0, SHARE, BLOCK_N):
        hiddens = share * SHARE + start + tl.arange(0, BLOCK_N)
        inside = hiddens < HIDDEN
        hidden = product(normed, fc1_weight_ptr, hiddens, HIDDEN, DIM, BLOCK_C, CHUNKS, PRECISION)
        hidden = gelu(hidden + tl.load(fc1_bias_ptr + hiddens, inside, other=0.0)[None, :])
        hidden = hidden.to(fc2_weight_ptr.dtype.element_ty)
        more = ()
        for c in tl.static_range(CHUNKS):
            outputs = columns_of(c, BLOCK_C)
            given = inside[:, None] & (outputs < DIM)[None, :]
            weight = tl.load(fc2_weight_ptr + (hiddens[:, None] * DIM + outputs[None, :]), given, other=0.0)
            more = more + (tl.dot(hidden, weight, totals[c], input_precision=PRECISION),)
        totals = more
    for c in tl.static_range(CHUNKS):
        columns = columns_of(c, BLOCK_C)
        out_at = out_ptr + share * part_stride + (places[:, None] * DIM + columns[None, :])
        tl.store(out_at, totals[c], known[:, None] & (columns < DIM)[None, :])


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
):
    """A layer's second half. Rows are read before they are written: with one share `out_ptr` may be the stream."""
    index = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    known = index < rows
    places = row_offsets(index, first, count, tokens)
    x = load_rows(stream_ptr, places, known, DIM, BLOCK_C, CHUNKS)
    add_mlp(
        x, fc1_weight_ptr, fc1_bias_ptr, fc2_weight_ptr, fc2_bias_ptr, out_ptr, part_stride, places, known, eps,
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
):
    """All that follows attention: its projection joins the stream first, in every share again."""
    index = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    known = index < rows
    places = row_offsets(index, first, count, tokens)
    heads = load_rows(heads_ptr, places, known, DIM, BLOCK_C, CHUNKS)
    x = ()
    for c in tl.static_range(CHUNKS):
        columns = columns_of(c, BLOCK_C)
        projected = product(heads, proj_weight_ptr, columns, DIM, DIM, BLOCK_C, CHUNKS, PRECISION)
        projected += tl.load(proj_bias_ptr + columns, columns < DIM, other=0.0)[None, :]
        mask = known[:, None] & (columns < DIM)[None, :]
        x = x + (projected + tl.load(stream_ptr + (places[:, None] * DIM + columns[None, :]), mask, other=0.0),)
    add_mlp(
        x, fc1_weight_ptr, fc1_bias_ptr, fc2_weight_ptr, fc2_bias_ptr, out_ptr, part_stride, places, known, eps,
        DIM, HIDDEN, SHARE, BLOCK_N, BLOCK_C, CHUNKS, PRECISION,
    )  # fmt: skip
