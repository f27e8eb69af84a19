"""The head: its 3x3 convolutions as products over nine neighbors, and boxes from its maps."""

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
    """ReLU of a 3x3 convolution at cells `index` of all samples' maps (cells, input_width), zeros around each.

    The weights of a group are (9 INPUTS, OUTPUTS), the nine places row by row; BLOCK_K divides INPUTS.
    """
    known, inside = index < rows, outputs < OUTPUTS
    row, column = index // side % side, index % side
    steps: tl.constexpr = INPUTS // BLOCK_K
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(9 * steps):
        place = step // steps
        down, right = place // 3 - 1, place % 3 - 1
        met = known & (row + down >= 0) & (row + down < side) & (column + right >= 0) & (column + right < side)
        inputs = step % steps * BLOCK_K + tl.arange(0, BLOCK_K)
        cells = index + down * side + right
        x_at = input_ptr + (cells[:, None] * input_width + first_input + inputs[None, :])
        x = tl.load(x_at, met[:, None], other=0.0)
        weight_at = weight_ptr + ((group * 9 * INPUTS + place * INPUTS + inputs)[:, None] * OUTPUTS + outputs[None, :])
        weight = tl.load(weight_at, inside[None, :], other=0.0)
        total = tl.dot(x, weight, total, input_precision=PRECISION)
    total += tl.load(bias_ptr + group * OUTPUTS + outputs, inside, other=0.0)[None, :]
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
    """A convolution and its ReLU for all groups: group g reads INPUTS maps from g * group_inputs, writes OUTPUTS."""
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
    """The last 3x3 convolution of a group and its 1x1, of at most two outputs: float32 maps (B, maps, cells).

    `output_table_ptr` (groups, 2, 2): which map an output is, -1 for none, and whether it is a sigmoid (if
    APPLY_SIGMOID), kept `limit` away from 0 and 1.
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
        place = tl.load(output_table_ptr + group * 4 + o * 2)
        weight = tl.load(last_weight_ptr + (group * 2 + o) * OUTPUTS + outputs, outputs < OUTPUTS, other=0.0)
        value = tl.sum(features * weight[None, :], 1) + tl.load(last_bias_ptr + group * 2 + o)
        if APPLY_SIGMOID:
            squashed = 1.0 / (1.0 + tl.exp(-value))
            squashed = tl.where(squashed < limit, limit, tl.where(squashed > 1.0 - limit, 1.0 - limit, squashed))
            value = tl.where(tl.load(output_table_ptr + group * 4 + o * 2 + 1) > 0, squashed, value)
        at = maps_ptr + (index // cells * maps + place) * cells + index % cells
        tl.store(at, value, index < tl.where(place >= 0, rows, 0))


@triton.jit
def center_box_kernel(
    maps_ptr,
    window_ptr,
    box_ptr,
    side,
    CELLS_P2: tl.constexpr,
):
    """A sample's box, cx, cy, w, h in [0, 1], where score times window is largest, and its largest score: 5 floats.

    Maps are score, width, height, and the offsets in x and y.
    """
    batch, cells = tl.program_id(0), side * side
    index = tl.arange(0, CELLS_P2)
    known = index < cells
    score = tl.load(maps_ptr + batch * 5 * cells + index, known, other=float("-inf"))
    window = tl.load(window_ptr + index, known, other=1.0)
    cell = tl.argmax(tl.where(known, score * window, float("-inf")), 0)
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
    """Soft-max of a sample's two maps, in place, and the box between their mean cells; the lesser of their maxima."""
    batch, cells = tl.program_id(0), side * side
    index = tl.arange(0, CELLS_P2)
    known = index < cells
    top_left = soft_max(maps_ptr + batch * 2 * cells, index, known)
    bottom_right = soft_max(maps_ptr + (batch * 2 + 1) * cells, index, known)
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
def soft_max(pointer, index, known):
    """Of the numbers at `pointer`, which it replaces."""
    values = tl.load(pointer + index, known, other=float("-inf"))
    values = tl.exp(values - tl.max(values, 0))
    values = values / tl.sum(values, 0)
    tl.store(pointer + index, values, known)
    return values
