"""The head: 3x3 convolutions as sums of nine matrix products, the 1x1 convolutions, and boxes from the maps."""

import triton
import triton.language as tl


@triton.jit
def convolved_tile(
    input_ptr,
    weight_ptr,
    bias_ptr,
    index,
    rows,
    side,
    group,
    outputs,
    input_width,
    first_input,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """ReLU of a zero-padded 3x3 convolution at cells `index` of all samples' maps (cells, input_width).

    The weights of a group are (9 INPUTS, OUTPUTS), taps row by row; BLOCK_K divides INPUTS.
    """
    row_mask, col_mask = index < rows, outputs < OUTPUTS
    row, column = index // side % side, index % side
    steps: tl.constexpr = INPUTS // BLOCK_K
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(9 * steps):
        tap = step // steps
        down, right = tap // 3 - 1, tap % 3 - 1
        tap_mask = row_mask & (row + down >= 0) & (row + down < side) & (column + right >= 0) & (column + right < side)
        inputs = step % steps * BLOCK_K + tl.arange(0, BLOCK_K)
        cells = index + down * side + right
        x_at = input_ptr + (cells[:, None] * input_width + first_input + inputs[None, :])
        x = tl.load(x_at, tap_mask[:, None], other=0.0)
        weight_at = weight_ptr + ((group * 9 * INPUTS + tap * INPUTS + inputs)[:, None] * OUTPUTS + outputs[None, :])
        weight = tl.load(weight_at, col_mask[None, :], other=0.0)
        total = tl.dot(x, weight, total, input_precision=PRECISION)
    total += tl.load(bias_ptr + group * OUTPUTS + outputs, col_mask, other=0.0)[None, :]
    return tl.where(total <= 0, 0.0, total)  # not maximum, which would hide a NaN


@triton.jit
def convolution_kernel(
    input_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    rows,
    side,
    input_width,
    group_inputs,
    groups,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A 3x3 convolution and ReLU of all groups: group g reads INPUTS channels from g * group_inputs on."""
    index = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    group = tl.program_id(2)
    outputs = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = convolved_tile(
        input_ptr, weight_ptr, bias_ptr, index, rows, side, group, outputs, input_width, group * group_inputs,
        INPUTS, OUTPUTS, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION,
    )  # fmt: skip
    out_at = out_ptr + (index[:, None] * (groups * OUTPUTS) + group * OUTPUTS + outputs[None, :])
    tl.store(out_at, total.to(out_ptr.dtype.element_ty), (index < rows)[:, None] & (outputs < OUTPUTS)[None, :])


@triton.jit
def maps_kernel(
    input_ptr,
    weight_ptr,
    bias_ptr,
    last_weight_ptr,
    last_bias_ptr,
    output_table_ptr,
    maps_ptr,
    rows,
    side,
    input_width,
    maps,
    limit,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    APPLY_SIGMOID: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The last 3x3 convolution of a group and its 1x1 convolution of one or two outputs: float32 (B, maps, cells).

    `output_table_ptr` (groups, 2, 2): the channel of each output, or -1; and whether it is a sigmoid, which is clamped
    to [limit, 1 - limit]. The latter is read only if APPLY_SIGMOID.
    """
    index = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    group = tl.program_id(1)
    outputs = tl.arange(0, BLOCK_N)
    features = convolved_tile(
        input_ptr, weight_ptr, bias_ptr, index, rows, side, group, outputs, input_width, group * INPUTS,
        INPUTS, OUTPUTS, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION,
    )  # fmt: skip
    cells = side * side
    for o in tl.static_range(2):
        channel = tl.load(output_table_ptr + group * 4 + o * 2)
        weight = tl.load(last_weight_ptr + (group * 2 + o) * OUTPUTS + outputs, outputs < OUTPUTS, other=0.0)
        value = tl.sum(features * weight[None, :], 1) + tl.load(last_bias_ptr + group * 2 + o)
        if APPLY_SIGMOID:
            sigmoid = 1.0 / (1.0 + tl.exp(-value))
            sigmoid = tl.where(sigmoid < limit, limit, tl.where(sigmoid > 1.0 - limit, 1.0 - limit, sigmoid))
            value = tl.where(tl.load(output_table_ptr + group * 4 + o * 2 + 1) > 0, sigmoid, value)
        at = maps_ptr + (index // cells * maps + channel) * cells + index % cells
        tl.store(at, value, index < tl.where(channel >= 0, rows, 0))


@triton.jit
def center_box_kernel(
    maps_ptr,
    window_ptr,
    box_ptr,
    side,
    CELLS_P2: tl.constexpr,
):
    """Decodes a sample's box at the cell where score times window is largest: cx, cy, w, h in [0, 1], largest score.

    The maps are score, width, height, and the offsets in x and y.
    """
    batch, cells = tl.program_id(0), side * side
    index = tl.arange(0, CELLS_P2)
    cell_mask = index < cells
    score = tl.load(maps_ptr + batch * 5 * cells + index, cell_mask, other=float("-inf"))
    window = tl.load(window_ptr + index, cell_mask, other=1.0)
    cell = tl.argmax(tl.where(cell_mask, score * window, float("-inf")), 0)
    at = maps_ptr + batch * 5 * cells + cell
    width, height = tl.load(at + cells), tl.load(at + 2 * cells)
    offset_x, offset_y = tl.load(at + 3 * cells), tl.load(at + 4 * cells)
    out = box_ptr + batch * 5
    tl.store(out, ((cell % side).to(tl.float32) + offset_x) / side)
    tl.store(out + 1, ((cell // side).to(tl.float32) + offset_y) / side)
    tl.store(out + 2, width)
    tl.store(out + 3, height)
    tl.store(out + 4, tl.max(score, 0))


@triton.jit
def corner_box_kernel(
    maps_ptr,
    box_ptr,
    side,
    CELLS_P2: tl.constexpr,
):
    """Soft-max of a sample's two maps, in place; the box between their mean cells; the lesser maximum as score."""
    batch, cells = tl.program_id(0), side * side
    index = tl.arange(0, CELLS_P2)
    cell_mask = index < cells
    top_left = softmax(maps_ptr + batch * 2 * cells, index, cell_mask)
    bottom_right = softmax(maps_ptr + (batch * 2 + 1) * cells, index, cell_mask)
    x, y = (index % side).to(tl.float32) / side, (index // side).to(tl.float32) / side
    left, top = tl.sum(top_left * x, 0), tl.sum(top_left * y, 0)
    right, bottom = tl.sum(bottom_right * x, 0), tl.sum(bottom_right * y, 0)
    out = box_ptr + batch * 5
    tl.store(out, 0.5 * (left + right))
    tl.store(out + 1, 0.5 * (top + bottom))
    tl.store(out + 2, right - left)
    tl.store(out + 3, bottom - top)
    tl.store(out + 4, tl.minimum(tl.max(top_left, 0), tl.max(bottom_right, 0)))


@triton.jit
def softmax(pointer, index, cell_mask):
    """Soft-max of the values at `pointer`, in place; returns them too."""
    values = tl.load(pointer + index, cell_mask, other=float("-inf"))
    values = tl.exp(values - tl.max(values, 0))
    values = values / tl.sum(values, 0)
    tl.store(pointer + index, values, cell_mask)
    return values
