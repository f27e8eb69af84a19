"""Functions on rows of tokens that the frame's kernels share: addressing, loading, layer norm, matrix product, GELU.

The residual stream is float32 and may be stored as PARTS whose sum it is: programs that share the hidden values of a
row each write one part, and the next kernel adds them. A row is held as a tuple of CHUNKS of BLOCK_C columns, because
its length need not be a power of two. Layer norms have no weight and bias: these are folded into the matrices.
"""

import triton
import triton.language as tl


@triton.jit
def row_offsets(rows, first, count, tokens):
    """Indices among all tokens of the rows of a batch; each sample has `count` rows that start at token `first`."""
    return rows // count * tokens + first + rows % count


@triton.jit
def column_indices(chunk: tl.constexpr, BLOCK_C: tl.constexpr):
    """Indices of a chunk's columns."""
    return chunk * BLOCK_C + tl.arange(0, BLOCK_C)


@triton.jit
def load_rows(pointer, offsets, row_mask, DIM: tl.constexpr, BLOCK_C: tl.constexpr, CHUNKS: tl.constexpr):
    """Loads rows of a matrix of DIM columns as a tuple of chunks; zeros past the end."""
    chunks = ()
    for c in tl.static_range(CHUNKS):
        columns = column_indices(c, BLOCK_C)
        mask = row_mask[:, None] & (columns < DIM)[None, :]
        chunks = chunks + (tl.load(pointer + (offsets[:, None] * DIM + columns[None, :]), mask, other=0.0),)
    return chunks


@triton.jit
def load_stream(
    stream_ptr,
    part_stride,
    offsets,
    row_mask,
    PARTS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Loads rows of the residual stream, adding its parts in order."""
    chunks = load_rows(stream_ptr, offsets, row_mask, DIM, BLOCK_C, CHUNKS)
    for p in tl.static_range(1, PARTS):
        more = load_rows(stream_ptr + p * part_stride, offsets, row_mask, DIM, BLOCK_C, CHUNKS)
        sums = ()
        for c in tl.static_range(CHUNKS):
            sums = sums + (chunks[c] + more[c],)
        chunks = sums
    return chunks


@triton.jit
def layer_norm_no_affine(
    chunks, eps, DTYPE: tl.constexpr, DIM: tl.constexpr, BLOCK_C: tl.constexpr, CHUNKS: tl.constexpr
):
    """Layer norm without weight and bias. Columns past the end are not zero; the weights that meet them are."""
    total = tl.sum(chunks[0], 1)
    for c in tl.static_range(1, CHUNKS):
        total += tl.sum(chunks[c], 1)
    mean = total / DIM
    squares = tl.zeros_like(mean)
    for c in tl.static_range(CHUNKS):
        centered = tl.where((column_indices(c, BLOCK_C) < DIM)[None, :], chunks[c] - mean[:, None], 0.0)
        squares += tl.sum(centered * centered, 1)
    inverse = 1.0 / tl.sqrt(squares / DIM + eps)
    result = ()
    for c in tl.static_range(CHUNKS):
        result = result + (((chunks[c] - mean[:, None]) * inverse[:, None]).to(DTYPE),)
    return result


@triton.jit
def product(
    rows,
    weight_ptr,
    columns,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Product of rows, given as chunks of inputs, with `columns` of a matrix (INPUTS, OUTPUTS), in float32."""
    total = tl.zeros((rows[0].shape[0], columns.shape[0]), tl.float32)
    for c in tl.static_range(CHUNKS):
        inputs = column_indices(c, BLOCK_C)
        mask = (inputs < INPUTS)[:, None] & (columns < OUTPUTS)[None, :]
        weight = tl.load(weight_ptr + inputs[:, None] * OUTPUTS + columns[None, :], mask, other=0.0)
        total = tl.dot(rows[c], weight, total, input_precision=PRECISION)
    return total


@triton.jit
def gelu(x):
    """The exact GELU."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
