"""First and last pass of the Dual Attention Unit; between them lies the depth-wise convolution.

Maps between passes lie in planes: an image's rows one after the other with a margin of zeros between them, and more
above and below, so that no tap asks where the image ends. All channels of a tile are one tensor (CHANNELS_P2, BLOCK).
"""

import triton
import triton.language as tl

from .depthwise import convolved, pixels_of


@triton.jit
def pixels(image_ptr, normalize_ptr, channel, inside, CHANNELS: tl.constexpr, NORMALIZED: tl.constexpr):
    """A channel's pixels; scaled and shifted by `normalize_ptr` (2, CHANNELS) if they are not NORMALIZED yet."""
    value = tl.load(image_ptr, inside, other=0).to(tl.float32)
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
    inside,
    CHANNELS: tl.constexpr,
    CHANNELS_P2: tl.constexpr,
    NORMALIZED: tl.constexpr,
):
    """A 1x1 convolution of the pixels that `image_ptr` points at in channel 0: (CHANNELS_P2, BLOCK)."""
    channels = tl.arange(0, CHANNELS_P2)
    known = channels < CHANNELS
    result = tl.load(bias_ptr + channels, known, other=0.0).to(tl.float32)[:, None]
    for i in tl.static_range(CHANNELS):
        weight = tl.load(weight_ptr + channels * CHANNELS + i, known, other=0.0).to(tl.float32)
        value = pixels(image_ptr + i * channel_stride, normalize_ptr, i, inside, CHANNELS, NORMALIZED)
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
    """u = GELU(proj_1 x) on one tile of all channels' planes, and the tile's sums of u."""
    tile, batch = tl.program_id(0) % tiles, (tl.program_id(0) // tiles).to(tl.int64)
    channels = tl.arange(0, CHANNELS_P2)
    known = channels < CHANNELS
    at, row, column, inside = pixels_of(tile, origin, height, width, pitch, BLOCK)
    x_at = x_ptr + batch * x_batch_stride + row.to(tl.int64) * x_row_stride + column * x_column_stride
    before = pointwise(
        x_at, proj_1_weight_ptr, proj_1_bias_ptr, x_channel_stride, normalize_ptr, inside,
        CHANNELS, CHANNELS_P2, NORMALIZED,
    )  # fmt: skip
    u = 0.5 * before * (1.0 + tl.erf(before * 0.7071067811865476))
    u = tl.where(inside[None, :], u, 0.0)
    planes = (batch * CHANNELS + channels) * plane + origin
    tl.store(u_ptr + planes[:, None] + at[None, :], u, known[:, None])
    tl.store(u_sums_ptr + (batch * tiles + tile) * CHANNELS + channels, tl.sum(u, 1), known)


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
    """out = proj_2(s f u) + x with f = conv1(conv_spatial a), on one tile of all channels."""
    tile, batch = tl.program_id(0) % tiles + first_tile, (tl.program_id(0) // tiles).to(tl.int64)
    channels = tl.arange(0, CHANNELS_P2)
    known = channels < CHANNELS
    at, row, column, inside = pixels_of(tile, origin, height, width, pitch, BLOCK)
    f = tl.zeros((CHANNELS_P2, BLOCK), tl.float32)
    f += tl.load(conv1_bias_ptr + channels, known, other=0.0).to(tl.float32)[:, None]
    for i in range(CHANNELS):
        dilated = convolved(
            a_ptr + (batch * CHANNELS + i) * plane + origin, conv_spatial_weight_ptr, conv_spatial_bias_ptr, i,
            at, inside, pitch, DILATION, SIZE, TAPS_P2,
        )  # fmt: skip
        weight = tl.load(conv1_weight_ptr + channels * CHANNELS + i, known, other=0.0).to(tl.float32)
        f += weight[:, None] * dilated[None, :]
    planes = (batch * CHANNELS + channels) * plane + origin
    mask = known[:, None] & inside[None, :]
    u = tl.load(u_ptr + planes[:, None] + at[None, :], mask, other=0.0)
    gate = tl.load(gate_ptr + batch * CHANNELS + channels, known, other=0.0).to(tl.float32)
    gated = gate[:, None] * f * u
    x_at = x_ptr + batch * x_batch_stride + row.to(tl.int64) * x_row_stride + column * x_column_stride
    out_at = out_ptr + batch * out_batch_stride + row.to(tl.int64) * out_row_stride + column
    for o in tl.static_range(CHANNELS):
        weight = tl.load(proj_2_weight_ptr + o * CHANNELS + channels, known, other=0.0).to(tl.float32)
        mixed = tl.sum(weight[:, None] * gated, 0) + tl.load(proj_2_bias_ptr + o).to(tl.float32)
        out = mixed + pixels(x_at + o * x_channel_stride, normalize_ptr, o, inside, CHANNELS, NORMALIZED)
        tl.store(out_at + o * out_channel_stride, out.to(out_ptr.dtype.element_ty), inside)
