"""First and last kernel of the Dual Attention Unit forward; the depth-wise convolution runs between them.

Maps are stored as planes: rows one after the other with a margin of zeros between them, above and below, so that no
tap needs a bounds check. All channels of a tile are one tensor (CHANNELS_P2, BLOCK).
"""

import triton
import triton.language as tl

from .depthwise import depthwise_convolution, pixel_positions


@triton.jit
def load_pixels(image_ptr, normalize_ptr, channel, pixel_mask, CHANNELS: tl.constexpr, NORMALIZED: tl.constexpr):
    """Loads a channel's pixels; unless NORMALIZED, scales and shifts them by `normalize_ptr` (2, CHANNELS)."""
    value = tl.load(image_ptr, pixel_mask, other=0).to(tl.float32)
    if NORMALIZED:
        return value
    else:
        return value * tl.load(normalize_ptr + channel) + tl.load(normalize_ptr + CHANNELS + channel)


@triton.jit
def pointwise(
    image_ptr,
    weight_ptr,
    bias_ptr,
    channel_stride,
    normalize_ptr,
    pixel_mask,
    CHANNELS: tl.constexpr,
    CHANNELS_P2: tl.constexpr,
    NORMALIZED: tl.constexpr,
):
    """1x1 convolution of pixels, whose channel 0 is at `image_ptr`: (CHANNELS_P2, BLOCK)."""
    channels = tl.arange(0, CHANNELS_P2)
    channel_mask = channels < CHANNELS
    result = tl.load(bias_ptr + channels, channel_mask, other=0.0).to(tl.float32)[:, None]
    for i in tl.static_range(CHANNELS):
        weight = tl.load(weight_ptr + channels * CHANNELS + i, channel_mask, other=0.0).to(tl.float32)
        value = load_pixels(image_ptr + i * channel_stride, normalize_ptr, i, pixel_mask, CHANNELS, NORMALIZED)
        result += weight[:, None] * value[None, :]
    return result


@triton.jit
def activation_kernel(
    x_ptr,
    proj_1_weight_ptr,
    proj_1_bias_ptr,
    u_ptr,
    u_sums_ptr,
    normalize_ptr,
    x_batch_stride,
    x_channel_stride,
    x_row_stride,
    x_column_stride,
    height,
    width,
    pitch,
    origin,
    plane,
    tiles,
    CHANNELS: tl.constexpr,
    CHANNELS_P2: tl.constexpr,
    NORMALIZED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes u = GELU(proj_1 x) on one tile of all channels, and the tile's sums of u."""
    tile, batch = tl.program_id(0) % tiles, (tl.program_id(0) // tiles).to(tl.int64)
    channels = tl.arange(0, CHANNELS_P2)
    channel_mask = channels < CHANNELS
    at, row, column, pixel_mask = pixel_positions(tile, origin, height, width, pitch, BLOCK)
    x_at = x_ptr + batch * x_batch_stride + row.to(tl.int64) * x_row_stride + column * x_column_stride
    before = pointwise(
        x_at, proj_1_weight_ptr, proj_1_bias_ptr, x_channel_stride, normalize_ptr, pixel_mask,
        CHANNELS, CHANNELS_P2, NORMALIZED,
    )  # fmt: skip
    u = 0.5 * before * (1.0 + tl.erf(before * 0.7071067811865476))
    u = tl.where(pixel_mask[None, :], u, 0.0)
    planes = (batch * CHANNELS + channels) * plane + origin
    tl.store(u_ptr + planes[:, None] + at[None, :], u, channel_mask[:, None])
    tl.store(u_sums_ptr + (batch * tiles + tile) * CHANNELS + channels, tl.sum(u, 1), channel_mask)


@triton.jit
def output_kernel(
    x_ptr,
    u_ptr,
    a_ptr,
    gate_ptr,
    conv_spatial_weight_ptr,
    conv_spatial_bias_ptr,
    conv1_weight_ptr,
    conv1_bias_ptr,
    proj_2_weight_ptr,
    proj_2_bias_ptr,
    out_ptr,
    normalize_ptr,
    x_batch_stride,
    x_channel_stride,
    x_row_stride,
    x_column_stride,
    out_batch_stride,
    out_channel_stride,
    out_row_stride,
    height,
    width,
    pitch,
    origin,
    plane,
    first_tile,
    tiles,
    CHANNELS: tl.constexpr,
    CHANNELS_P2: tl.constexpr,
    SIZE: tl.constexpr,
    TAPS_P2: tl.constexpr,
    DILATION: tl.constexpr,
    NORMALIZED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes out = proj_2(s f u) + x with f = conv1(conv_spatial a) on one tile of all channels."""
    tile, batch = tl.program_id(0) % tiles + first_tile, (tl.program_id(0) // tiles).to(tl.int64)
    channels = tl.arange(0, CHANNELS_P2)
    channel_mask = channels < CHANNELS
    at, row, column, pixel_mask = pixel_positions(tile, origin, height, width, pitch, BLOCK)
    f = tl.zeros((CHANNELS_P2, BLOCK), tl.float32)
    f += tl.load(conv1_bias_ptr + channels, channel_mask, other=0.0).to(tl.float32)[:, None]
    for i in range(CHANNELS):
        dilated = depthwise_convolution(
            a_ptr + (batch * CHANNELS + i) * plane + origin, conv_spatial_weight_ptr, conv_spatial_bias_ptr, i,
            at, pixel_mask, pitch, DILATION, SIZE, TAPS_P2,
        )  # fmt: skip
        weight = tl.load(conv1_weight_ptr + channels * CHANNELS + i, channel_mask, other=0.0).to(tl.float32)
        f += weight[:, None] * dilated[None, :]
    planes = (batch * CHANNELS + channels) * plane + origin
    mask = channel_mask[:, None] & pixel_mask[None, :]
    u = tl.load(u_ptr + planes[:, None] + at[None, :], mask, other=0.0)
    gate = tl.load(gate_ptr + batch * CHANNELS + channels, channel_mask, other=0.0).to(tl.float32)
    gated = gate[:, None] * f * u
    x_at = x_ptr + batch * x_batch_stride + row.to(tl.int64) * x_row_stride + column * x_column_stride
    out_at = out_ptr + batch * out_batch_stride + row.to(tl.int64) * out_row_stride + column
    for o in tl.static_range(CHANNELS):
        weight = tl.load(proj_2_weight_ptr + o * CHANNELS + channels, channel_mask, other=0.0).to(tl.float32)
        mixed = tl.sum(weight[:, None] * gated, 0) + tl.load(proj_2_bias_ptr + o).to(tl.float32)
        out = mixed + load_pixels(x_at + o * x_channel_stride, normalize_ptr, o, pixel_mask, CHANNELS, NORMALIZED)
        tl.store(out_at + o * out_channel_stride, out.to(out_ptr.dtype.element_ty), pixel_mask)
