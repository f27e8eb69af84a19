"""Rows of tokens in the frame's kernels: where they lie, how they are held, norms and products of them.

The residual stream is float32 and may lie in PARTS that add up, so that programs can share a row's hidden values
without meeting: each leaves its part, and whoever reads the stream adds them. A row is held as a tuple of CHUNKS of
BLOCK_C columns, for its length need not be a power of two. Norms have no weights: they are folded into the matrices.
"""

import triton
import triton.language as tl


@triton.jit
def row_offsets(rows, first, count, tokens):
    """Where rows of a batch lie among all tokens, if each sample has `count` rows that begin at token `first`."""
    return rows // count * tokens + first + rows % count


@triton.jit
def columns_of(chunk: tl.constexpr, BLOCK_C: tl.constexpr):
    return chunk * BLOCK_C + tl.arange(0, BLOCK_C)


@triton.jit
def load_rows(pointer, places, known, DIM: tl.constexpr, BLOCK_C: tl.constexpr, CHUNKS: tl.constexpr):
    """Rows of a matrix of DIM columns as a tuple of chunks; zeros past the end."""
    chunks = ()
    for c in tl.static_range(CHUNKS):
        columns = columns_of(c, BLOCK_C)
        mask = known[:, None] & (columns < DIM)[None, :]
        chunks = chunks + (tl.load(pointer + (places[:, None] * DIM + columns[None, :]), mask, other=0.0),)
    return chunks


@triton.jit
def load_stream(
    stream_ptr,
    part_stride,
    places,
    known,
    PARTS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_C: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Rows of the residual stream, its parts added up in order."""
    chunks = load_rows(stream_ptr, places, known, DIM, BLOCK_C, CHUNKS)
    for p in tl.static_range(1, PARTS):
        more = load_rows(stream_ptr + p * part_stride, places, known, DIM, BLOCK_C, CHUNKS)
        sums = ()
        for c in tl.static_range(CHUNKS):
            sums = sums + (chunks[c] + more[c],)
        chunks = sums
    return chunks


@triton.jit
def layer_norm_no_affine(
    chunks, eps, DTYPE: tl.constexpr, DIM: tl.constexpr, BLOCK_C: tl.constexpr, CHUNKS: tl.constexpr
):
    """Rows less their mean, over their deviation. Columns past the end are not zero then: weights there are."""
    total = tl.sum(chunks[0], 1)
    for c in tl.static_range(1, CHUNKS):
        total += tl.sum(chunks[c], 1)
    mean = total / DIM
    squares = tl.zeros_like(mean)
    for c in tl.static_range(CHUNKS):
        centered = tl.where((columns_of(c, BLOCK_C) < DIM)[None, :], chunks[c] - mean[:, None], 0.0)
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
    """Rows, as chunks of inputs, times the `columns` of a matrix (INPUTS, OUTPUTS), in float32."""
    total = tl.zeros((rows[0].shape[0], columns.shape[0]), tl.float32)
    for c in tl.static_range(CHUNKS):
        inputs = columns_of(c, BLOCK_C)
        mask = (inputs < INPUTS)[:, None] & (columns < OUTPUTS)[None, :]
        weight = tl.load(weight_ptr + inputs[:, None] * OUTPUTS + columns[None, :], mask, other=0.0)
        total = tl.dot(rows[c], weight, total, input_precision=PRECISION)
    return total


@triton.jit
def gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
