"""Backward kernels of the Dual Attention Unit. Maps are stored as planes, as in the forward pass.

Each tile writes its sums for the weights' gradients to its own row of one table, whose columns are the elements of the
weights in order and then the gate; the last kernel adds the rows. There are no atomics, so results are deterministic.
"""

import triton
import triton.language as tl

from .depthwise import depthwise_convolution, pixel_positions
from .dual_attention_unit_forward import pointwise


@triton.jit
def gate_backward_kernel(
    grad_out_ptr,
    u_ptr,
    a_ptr,
    gate_ptr,
    conv_spatial_weight_ptr,
    conv_spatial_bias_ptr,
    conv1_weight_ptr,
    conv1_bias_ptr,
    proj_2_weight_ptr,
    grad_dilated_ptr,
    grad_u_ptr,
    sums_ptr,
    grad_out_batch_stride,
    grad_out_channel_stride,
    grad_out_row_stride,
    height,
    width,
    pitch,
    origin,
    plane,
    tiles,
    columns,
    conv1_column,
    fc_column,
    proj_2_column,
    gate_column,
    CHANNELS: tl.constexpr,
    CHANNELS_P2: tl.constexpr,
    SIZE: tl.constexpr,
    TAPS_P2: tl.constexpr,
    DILATION: tl.constexpr,
    FC_SIZE: tl.constexpr,
    FC_SIZE_P2: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes the gradients of conv_spatial's output and of the factor u in s f u, and a tile's sums."""
    tile, batch = tl.program_id(0) % tiles, (tl.program_id(0) // tiles).to(tl.int64)
    channels = tl.arange(0, CHANNELS_P2)
    channel_mask = channels < CHANNELS
    at, row, column, pixel_mask = pixel_positions(tile, origin, height, width, pitch, BLOCK)
    mask = channel_mask[:, None] & pixel_mask[None, :]
    offsets = ((batch * CHANNELS + channels) * plane + origin)[:, None] + at[None, :]
    grad_at = grad_out_ptr + batch * grad_out_batch_stride + row.to(tl.int64) * grad_out_row_stride + column
    row_ptr = sums_ptr + (batch * tiles + tile) * columns

    grad_gated = tl.zeros((CHANNELS_P2, BLOCK), tl.float32)
    for o in tl.static_range(CHANNELS):
        grad = tl.load(grad_at + o * grad_out_channel_stride, pixel_mask, other=0.0).to(tl.float32)
        weight = tl.load(proj_2_weight_ptr + o * CHANNELS + channels, channel_mask, other=0.0).to(tl.float32)
        grad_gated += weight[:, None] * grad[None, :]
    u = tl.load(u_ptr + offsets, mask, other=0.0)
    gate = tl.load(gate_ptr + batch * CHANNELS + channels, channel_mask, other=0.0).to(tl.float32)[:, None]
    grad_f = grad_gated * gate * u
    f = tl.zeros((CHANNELS_P2, BLOCK), tl.float32)
    f += tl.load(conv1_bias_ptr + channels, channel_mask, other=0.0).to(tl.float32)[:, None]
    for i in range(CHANNELS):
        dilated = depthwise_convolution(
            a_ptr + (batch * CHANNELS + i) * plane + origin, conv_spatial_weight_ptr, conv_spatial_bias_ptr, i,
            at, pixel_mask, pitch, DILATION, SIZE, TAPS_P2,
        )  # fmt: skip
        weight = tl.load(conv1_weight_ptr + channels * CHANNELS + i, channel_mask, other=0.0).to(tl.float32)
        f += weight[:, None] * dilated[None, :]
        grad_dilated = tl.where(pixel_mask, tl.sum(weight[:, None] * grad_f, 0), 0.0)
        into = grad_dilated_ptr + (batch * CHANNELS + i) * plane + origin + at
        tl.store(into, grad_dilated)
        tl.store(row_ptr + conv1_column + channels * CHANNELS + i, tl.sum(grad_f * dilated[None, :], 1), channel_mask)
    tl.store(row_ptr + conv1_column + CHANNELS * CHANNELS + channels, tl.sum(grad_f, 1), channel_mask)
    tl.store(grad_u_ptr + offsets, grad_gated * gate * f, mask)
    tl.store(row_ptr + gate_column + channels, tl.sum(grad_gated * f * u, 1), channel_mask)
    gated = gate * f * u
    for o in tl.static_range(CHANNELS):
        grad = tl.load(grad_at + o * grad_out_channel_stride, pixel_mask, other=0.0).to(tl.float32)
        tl.store(row_ptr + proj_2_column + o * CHANNELS + channels, tl.sum(gated * grad[None, :], 1), channel_mask)
        tl.store(row_ptr + proj_2_column + CHANNELS * CHANNELS + o, tl.sum(grad, 0))
    # The channel attention has gradients per sample, not per tile: the next kernel writes them to the first row.
    fc = tl.arange(0, FC_SIZE_P2)
    tl.store(row_ptr + fc_column + fc, tl.zeros((FC_SIZE_P2,), tl.float32), fc < FC_SIZE)


@triton.jit
def input_backward_kernel(
    grad_out_ptr,
    x_ptr,
    grad_u_ptr,
    grad_mean_ptr,
    proj_1_weight_ptr,
    proj_1_bias_ptr,
    grad_x_ptr,
    sums_ptr,
    grad_out_batch_stride,
    grad_out_channel_stride,
    grad_out_row_stride,
    x_batch_stride,
    x_channel_stride,
    x_row_stride,
    grad_x_batch_stride,
    grad_x_channel_stride,
    grad_x_row_stride,
    height,
    width,
    pitch,
    origin,
    plane,
    tiles,
    columns,
    CHANNELS: tl.constexpr,
    CHANNELS_P2: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes grad_x = proj_1^T(grad_u * GELU'(proj_1 x)) + grad_out, and a tile's sums for proj_1."""
    tile, batch = tl.program_id(0) % tiles, (tl.program_id(0) // tiles).to(tl.int64)
    channels = tl.arange(0, CHANNELS_P2)
    channel_mask = channels < CHANNELS
    at, row, column, pixel_mask = pixel_positions(tile, origin, height, width, pitch, BLOCK)
    mask = channel_mask[:, None] & pixel_mask[None, :]
    row = row.to(tl.int64)
    x_at = x_ptr + batch * x_batch_stride + row * x_row_stride + column
    grad_at = grad_out_ptr + batch * grad_out_batch_stride + row * grad_out_row_stride + column
    into = grad_x_ptr + batch * grad_x_batch_stride + row * grad_x_row_stride + column
    row_ptr = sums_ptr + (batch * tiles + tile) * columns

    offsets = ((batch * CHANNELS + channels) * plane + origin)[:, None] + at[None, :]
    grad_u = tl.load(grad_u_ptr + offsets, mask, other=0.0)
    grad_u += tl.load(grad_mean_ptr + batch * CHANNELS + channels, channel_mask, other=0.0)[:, None]
    before = pointwise(
        x_at, proj_1_weight_ptr, proj_1_bias_ptr, x_channel_stride, x_ptr, pixel_mask, CHANNELS, CHANNELS_P2, True
    )
    below = 0.5 * (1.0 + tl.erf(before * 0.7071067811865476))
    slope = below + before * (0.3989422804014327 * tl.exp(-0.5 * before * before))
    grad_before = tl.where(mask, grad_u * slope, 0.0)
    for i in tl.static_range(CHANNELS):
        weight = tl.load(proj_1_weight_ptr + channels * CHANNELS + i, channel_mask, other=0.0).to(tl.float32)
        grad = tl.load(grad_at + i * grad_out_channel_stride, pixel_mask, other=0.0).to(tl.float32)
        grad_x = tl.sum(weight[:, None] * grad_before, 0) + grad
        tl.store(into + i * grad_x_channel_stride, grad_x.to(grad_x_ptr.dtype.element_ty), pixel_mask)
        value = tl.load(x_at + i * x_channel_stride, pixel_mask, other=0.0).to(tl.float32)
        tl.store(row_ptr + channels * CHANNELS + i, tl.sum(grad_before * value[None, :], 1), channel_mask)
    tl.store(row_ptr + CHANNELS * CHANNELS + channels, tl.sum(grad_before, 1), channel_mask)


@triton.jit
def store_columns(grad_ptr, columns, totals, first, size):
    """Stores the totals of columns first to first + size; returns the next weight's first column."""
    mask = (columns >= first) & (columns < first + size)
    tl.store(grad_ptr + (columns - first), totals.to(grad_ptr.dtype.element_ty), mask)
    return first + size


@triton.jit
def total_sums_kernel(
    sums_ptr,
    proj_1_weight_ptr,
    proj_1_bias_ptr,
    conv0_weight_ptr,
    conv0_bias_ptr,
    conv_spatial_weight_ptr,
    conv_spatial_bias_ptr,
    conv1_weight_ptr,
    conv1_bias_ptr,
    fc_0_weight_ptr,
    fc_2_weight_ptr,
    proj_2_weight_ptr,
    proj_2_bias_ptr,
    rows,
    columns,
    CHANNELS: tl.constexpr,
    HIDDEN: tl.constexpr,
    SIZE: tl.constexpr,
    SPATIAL_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sums the table's columns over all tiles of all samples into the weights' gradients."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    first = 0
    while first < rows:
        row = (first + tl.arange(0, ROWS)).to(tl.int64)
        first += ROWS
        mask = (row < rows)[:, None] & (column < columns)[None, :]
        sums += tl.load(sums_ptr + (row * columns)[:, None] + column[None, :], mask, other=0.0)
    totals = tl.sum(sums, 0)
    end = store_columns(proj_1_weight_ptr, column, totals, 0, CHANNELS * CHANNELS)
    end = store_columns(proj_1_bias_ptr, column, totals, end, CHANNELS)
    end = store_columns(conv0_weight_ptr, column, totals, end, CHANNELS * SIZE * SIZE)
    end = store_columns(conv0_bias_ptr, column, totals, end, CHANNELS)
    end = store_columns(conv_spatial_weight_ptr, column, totals, end, CHANNELS * SPATIAL_SIZE * SPATIAL_SIZE)
    end = store_columns(conv_spatial_bias_ptr, column, totals, end, CHANNELS)
    end = store_columns(conv1_weight_ptr, column, totals, end, CHANNELS * CHANNELS)
    end = store_columns(conv1_bias_ptr, column, totals, end, CHANNELS)
    end = store_columns(fc_0_weight_ptr, column, totals, end, HIDDEN * CHANNELS)
    end = store_columns(fc_2_weight_ptr, column, totals, end, CHANNELS * HIDDEN)
    end = store_columns(proj_2_weight_ptr, column, totals, end, CHANNELS * CHANNELS)
    store_columns(proj_2_bias_ptr, column, totals, end, CHANNELS)
