"""Depth-wise convolution over padded planes, and its gradients."""

import triton
import triton.language as tl

from .channel_attention import channel_attention


@triton.jit
def pixel_positions(tile, origin, height, width, pitch, BLOCK: tl.constexpr):
    """Positions of a tile relative to the image's first pixel, their rows and columns, and which are pixels."""
    at = tile * BLOCK + tl.arange(0, BLOCK) - origin
    row = at // pitch
    column = at - row * pitch
    pixel_mask = (at >= 0) & (row < height) & (column < width)
    return at, row, column, pixel_mask


@triton.jit
def load_taps(image_ptr, at, pixel_mask, pitch, DILATION: tl.constexpr, SIZE: tl.constexpr, TAPS_P2: tl.constexpr):
    """Loads the inputs of a SIZE x SIZE kernel at each pixel: (TAPS_P2, BLOCK). A negative DILATION flips it."""
    taps = tl.arange(0, TAPS_P2)
    offsets = ((taps // SIZE - SIZE // 2) * pitch + (taps % SIZE - SIZE // 2)) * DILATION
    mask = (taps < SIZE * SIZE)[:, None] & pixel_mask[None, :]
    return tl.load(image_ptr + (at[None, :] + offsets[:, None]), mask, other=0.0)


@triton.jit
def load_weights(weight_ptr, channel, SIZE: tl.constexpr, TAPS_P2: tl.constexpr):
    """Loads a channel's kernel: (TAPS_P2,)."""
    taps = tl.arange(0, TAPS_P2)
    return tl.load(weight_ptr + channel * (SIZE * SIZE) + taps, taps < SIZE * SIZE, other=0.0).to(tl.float32)


@triton.jit
def depthwise_convolution(
    image_ptr,
    weight_ptr,
    bias_ptr,
    channel,
    at,
    pixel_mask,
    pitch,
    DILATION: tl.constexpr,
    SIZE: tl.constexpr,
    TAPS_P2: tl.constexpr,
):
    """Depth-wise convolution of one channel, whose plane starts at `image_ptr`: (BLOCK,)."""
    tapped = load_taps(image_ptr, at, pixel_mask, pitch, DILATION, SIZE, TAPS_P2)
    weight = load_weights(weight_ptr, channel, SIZE, TAPS_P2)
    return tl.sum(weight[:, None] * tapped, 0) + tl.load(bias_ptr + channel).to(tl.float32)


@triton.jit
def depthwise_kernel(
    u_ptr,
    conv0_weight_ptr,
    conv0_bias_ptr,
    a_ptr,
    u_sums_ptr,
    fc_0_weight_ptr,
    fc_2_weight_ptr,
    mean_ptr,
    gate_ptr,
    height,
    width,
    pitch,
    origin,
    plane,
    tiles,
    CHANNELS: tl.constexpr,
    CHANNELS_P2: tl.constexpr,
    HIDDEN: tl.constexpr,
    HIDDEN_P2: tl.constexpr,
    SIZE: tl.constexpr,
    TAPS_P2: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes a = conv0 u on one tile of one channel; the first tile of a sample also computes its gate."""
    tile, image = tl.program_id(0) % tiles, (tl.program_id(0) // tiles).to(tl.int64)
    channel = image % CHANNELS
    if (tile == 0) & (channel == 0):
        channel_attention(
            u_sums_ptr, fc_0_weight_ptr, fc_2_weight_ptr, mean_ptr, gate_ptr, image // CHANNELS, tiles, height * width,
            CHANNELS, CHANNELS_P2, HIDDEN, HIDDEN_P2, ROWS,
        )  # fmt: skip
    at, _, _, pixel_mask = pixel_positions(tile, origin, height, width, pitch, BLOCK)
    u_plane = u_ptr + image * plane + origin
    a = depthwise_convolution(
        u_plane, conv0_weight_ptr, conv0_bias_ptr, channel, at, pixel_mask, pitch, 1, SIZE, TAPS_P2
    )
    tl.store(a_ptr + image * plane + origin + at, tl.where(pixel_mask, a, 0.0))


@triton.jit
def depthwise_backward_kernel(
    grad_ptr,
    input_ptr,
    weight_ptr,
    grad_input_ptr,
    sums_ptr,
    height,
    width,
    pitch,
    origin,
    plane,
    tiles,
    columns,
    first_column,
    CHANNELS: tl.constexpr,
    SIZE: tl.constexpr,
    TAPS_P2: tl.constexpr,
    DILATION: tl.constexpr,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradient of a depth-wise convolution's input, accumulated if ADD, and a tile's sums for its weights.

    The gradient of a tap's weight is the sum over q of input[q] * grad[q - tap], whose grad the flipped kernel reads.
    """
    tile, image = tl.program_id(0) % tiles, (tl.program_id(0) // tiles).to(tl.int64)
    channel, taps = image % CHANNELS, tl.arange(0, TAPS_P2)
    at, _, _, pixel_mask = pixel_positions(tile, origin, height, width, pitch, BLOCK)
    tapped = load_taps(grad_ptr + image * plane + origin, at, pixel_mask, pitch, -DILATION, SIZE, TAPS_P2)
    grad_input = tl.sum(load_weights(weight_ptr, channel, SIZE, TAPS_P2)[:, None] * tapped, 0)
    into = grad_input_ptr + image * plane + origin + at
    if ADD:
        grad_input += tl.load(into, pixel_mask, other=0.0)
    tl.store(into, tl.where(pixel_mask, grad_input, 0.0))

    inputs = tl.load(input_ptr + image * plane + origin + at, pixel_mask, other=0.0)
    grad = tl.load(grad_ptr + image * plane + origin + at, pixel_mask, other=0.0)
    row_ptr = sums_ptr + (image // CHANNELS * tiles + tile) * columns + first_column
    tl.store(row_ptr + channel * (SIZE * SIZE) + taps, tl.sum(tapped * inputs[None, :], 1), taps < SIZE * SIZE)
    tl.store(row_ptr + CHANNELS * SIZE * SIZE + channel, tl.sum(grad, 0))
