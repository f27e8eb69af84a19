"""The patch embedding of an image of any strides and dtype, plus position embeddings."""

import triton
import triton.language as tl

from .frame_rows import row_offsets


@triton.jit
def embedding_kernel(
    image_ptr,
    weight_ptr,
    bias_ptr,
    position_ptr,
    out_ptr,
    image_batch_stride,
    image_channel_stride,
    image_row_stride,
    image_column_stride,
    rows,
    first,
    count,
    tokens,
    side,
    PATCH: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Writes the stream's rows of `count` tokens a sample; a patch's values are in the order channel, row, column."""
    index = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    outputs = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_mask, col_mask = index < rows, outputs < DIM
    token = index % count
    corner = index // count * image_batch_stride + token // side * PATCH * image_row_stride
    corner += token % side * PATCH * image_column_stride
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, 3 * PATCH * PATCH, BLOCK_K):
        inputs = start + tl.arange(0, BLOCK_K)
        input_mask = inputs < 3 * PATCH * PATCH
        pixel = inputs // (PATCH * PATCH) * image_channel_stride + inputs // PATCH % PATCH * image_row_stride
        pixel += inputs % PATCH * image_column_stride
        pixels = tl.load(
            image_ptr + (corner[:, None] + pixel[None, :]), row_mask[:, None] & input_mask[None, :], other=0.0
        )
        weight_at = weight_ptr + (inputs[:, None] * DIM + outputs[None, :])
        weight = tl.load(weight_at, input_mask[:, None] & col_mask[None, :], other=0.0)
        total = tl.dot(pixels.to(weight.dtype), weight, total, input_precision=PRECISION)
    mask = row_mask[:, None] & col_mask[None, :]
    total += tl.load(bias_ptr + outputs, col_mask, other=0.0)[None, :]
    total += tl.load(position_ptr + (token[:, None] * DIM + outputs[None, :]), mask, other=0.0)
    offsets = row_offsets(index, first, count, tokens)
    tl.store(out_ptr + (offsets[:, None] * DIM + outputs[None, :]), total, mask)
