"""The channel attention of a sample, s = sigmoid(fc_2 relu(fc_0 mean u)), and its gradients.

Computed in float64: these few values affect every pixel, and terms of the gradient cancel.
"""

import triton
import triton.language as tl


@triton.jit
def channel_attention(
    u_sums_ptr,
    fc_0_weight_ptr,
    fc_2_weight_ptr,
    mean_ptr,
    gate_ptr,
    batch,
    tiles,
    pixels,
    CHANNELS: tl.constexpr,
    CHANNELS_P2: tl.constexpr,
    HIDDEN: tl.constexpr,
    HIDDEN_P2: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Computes a sample's mean of u from its tiles' sums, and s = sigmoid(fc_2 relu(fc_0 mean))."""
    rows, channels, hiddens = tl.arange(0, ROWS), tl.arange(0, CHANNELS_P2), tl.arange(0, HIDDEN_P2)
    sums = tl.zeros((ROWS, CHANNELS_P2), tl.float64)
    first = 0
    while first < tiles:
        tile = first + rows
        first += ROWS
        mask = (tile < tiles)[:, None] & (channels < CHANNELS)[None, :]
        sums += tl.load(u_sums_ptr + ((batch * tiles + tile) * CHANNELS)[:, None] + channels[None, :], mask, other=0.0)
    mean = tl.sum(sums, 0) / pixels
    both = (hiddens < HIDDEN)[:, None] & (channels < CHANNELS)[None, :]
    fc_0 = tl.load(fc_0_weight_ptr + hiddens[:, None] * CHANNELS + channels[None, :], both, other=0.0).to(tl.float64)
    fc_2 = tl.load(fc_2_weight_ptr + channels[None, :] * HIDDEN + hiddens[:, None], both, other=0.0).to(tl.float64)
    hidden = tl.sum(fc_0 * mean[None, :], 1)
    hidden = tl.where(hidden <= 0, 0.0, hidden)  # not maximum, which would hide a NaN
    gate = tl.sigmoid(tl.sum(fc_2 * hidden[:, None], 0))
    tl.store(mean_ptr + batch * CHANNELS + channels, mean, channels < CHANNELS)
    tl.store(gate_ptr + batch * CHANNELS + channels, gate, channels < CHANNELS)


@triton.jit
def channel_backward_kernel(
    sums_ptr,
    mean_ptr,
    gate_ptr,
    fc_0_weight_ptr,
    fc_2_weight_ptr,
    grad_mean_ptr,
    height,
    width,
    tiles,
    columns,
    fc_column,
    gate_column,
    CHANNELS: tl.constexpr,
    CHANNELS_P2: tl.constexpr,
    HIDDEN: tl.constexpr,
    HIDDEN_P2: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Computes a sample's gradients of fc_0, fc_2 and the mean of u."""
    batch = tl.program_id(0).to(tl.int64)
    rows, channels, hiddens = tl.arange(0, ROWS), tl.arange(0, CHANNELS_P2), tl.arange(0, HIDDEN_P2)
    channel_mask = channels < CHANNELS
    row_ptr = sums_ptr + batch * tiles * columns
    sums = tl.zeros((ROWS, CHANNELS_P2), tl.float64)
    first = 0
    while first < tiles:
        tile = first + rows
        first += ROWS
        mask = (tile < tiles)[:, None] & channel_mask[None, :]
        sums += tl.load(row_ptr + (tile * columns + gate_column)[:, None] + channels[None, :], mask, other=0.0)
    grad_gate = tl.sum(sums, 0)
    mean = tl.load(mean_ptr + batch * CHANNELS + channels, channel_mask, other=0.0)
    gate = tl.load(gate_ptr + batch * CHANNELS + channels, channel_mask, other=0.0)
    both = (hiddens < HIDDEN)[:, None] & channel_mask[None, :]
    fc_0_offsets = hiddens[:, None] * CHANNELS + channels[None, :]
    fc_2_offsets = channels[None, :] * HIDDEN + hiddens[:, None]
    fc_0 = tl.load(fc_0_weight_ptr + fc_0_offsets, both, other=0.0).to(tl.float64)
    fc_2 = tl.load(fc_2_weight_ptr + fc_2_offsets, both, other=0.0).to(tl.float64)
    hidden = tl.sum(fc_0 * mean[None, :], 1)
    grad_logit = grad_gate * gate * (1.0 - gate)
    grad_hidden = tl.where(hidden <= 0, 0.0, tl.sum(fc_2 * grad_logit[None, :], 1))  # 0 times NaN would be NaN
    hidden = tl.where(hidden <= 0, 0.0, hidden)
    grad_mean = tl.sum(fc_0 * grad_hidden[:, None], 0) / (height * width)
    tl.store(grad_mean_ptr + batch * CHANNELS + channels, grad_mean.to(tl.float32), channel_mask)
    tl.store(row_ptr + fc_column + fc_0_offsets, (grad_hidden[:, None] * mean[None, :]).to(tl.float32), both)
    tl.store(
        row_ptr + fc_column + HIDDEN * CHANNELS + fc_2_offsets,
        (hidden[:, None] * grad_logit[None, :]).to(tl.float32),
        both,
    )
