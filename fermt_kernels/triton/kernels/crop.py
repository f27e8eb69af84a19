"""Square crops of one frame, resized in OpenCV's fixed-point arithmetic: weights in 1/2048, truncated products.

The result is OpenCV's bit for bit as long as the compiler fuses no product with a sum when it computes positions, in
float64 and then float32; `taps` keeps it from doing so. Everything else is exact or in integers. With a fused product,
positions in squares of more than 2048 pixels a side could round to the next float32, which changes a weight by 1/2048
and a pixel by one gray level: that is the guarantee.
"""

import triton
import triton.language as tl

WEIGHT_ONE = tl.constexpr(2048)  # weights are integers; this is a weight of 1
ROUND = tl.constexpr(12582912.0)  # 1.5 * 2^23: a float32 plus it has no fraction; rounded to nearest even


@triton.jit
def image_index(start, side, index, length):
    """Image row or column of row or column `index` of a square, and whether it is inside the image.

    As in the authors' code, an image's last row and column count as outside. With a side below 1 all are outside.
    """
    at = start + tl.minimum(tl.maximum(index, 0), side - 1)
    return at, (at >= tl.maximum(start, 0)) & (at < length - 1)


@triton.jit
def taps(start, side, size, outputs, length):
    """The two image rows (or columns) that each of `outputs` reads: index, whether inside, and the second's weight."""
    scale = 1.0 / (size / side.to(tl.float64))  # in this order: its rounding is OpenCV's
    # The product is not negative, but the compiler does not know: the maximum keeps it from a fused multiply-add.
    position = (tl.maximum((outputs.to(tl.float64) + 0.5) * scale, 0.0) - 0.5).to(tl.float32)
    low = tl.floor(position)
    weight = (((position - low) * WEIGHT_ONE + ROUND) - ROUND).to(tl.int32)
    first = low.to(tl.int64)
    at_first, seen_first = image_index(start, side, first, length)
    at_second, seen_second = image_index(start, side, first + 1, length)
    return at_first, seen_first, at_second, seen_second, weight


@triton.jit
def line(row_ptr, row_seen, x0, x0_seen, x1, x1_seen, x1_weight):
    """Interpolates an image row horizontally: (ROWS, COLUMNS) in 1/2048 gray levels."""
    left = tl.load(row_ptr + x0[None, :], row_seen & x0_seen[None, :], other=0).to(tl.int32)
    right = tl.load(row_ptr + x1[None, :], row_seen & x1_seen[None, :], other=0).to(tl.int32)
    return left * WEIGHT_ONE + (right - left) * x1_weight[None, :]


@triton.jit
def crop_kernel(
    image_ptr,
    squares_ptr,
    out_ptr,
    image_strides,
    height,
    width,
    size,
    row_blocks,
    column_blocks,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    REVERSED: tl.constexpr,
):
    """Computes ROWS x COLUMNS pixels, all channels, of one square's crop; channels in reverse order if REVERSED."""
    block = tl.program_id(0) % (row_blocks * column_blocks)
    square = (tl.program_id(0) // (row_blocks * column_blocks)).to(tl.int64)
    left = tl.load(squares_ptr + square * 3).to(tl.int64)
    top = tl.load(squares_ptr + square * 3 + 1).to(tl.int64)
    side = tl.load(squares_ptr + square * 3 + 2).to(tl.int64)
    rows = block // column_blocks * ROWS + tl.arange(0, ROWS)
    columns = block % column_blocks * COLUMNS + tl.arange(0, COLUMNS)
    y0, y0_seen, y1, y1_seen, y1_weight = taps(top, side, size, rows, height)
    x0, x0_seen, x1, x1_seen, x1_weight = taps(left, side, size, columns, width)
    x0, x1 = x0 * image_strides[1], x1 * image_strides[1]

    mask = (rows < size)[:, None] & (columns < size)[None, :]
    out_at = out_ptr + ((square * size + rows[:, None]) * size + columns[None, :]) * 3
    for channel in tl.static_range(3):
        channel_ptr = image_ptr + channel * image_strides[2]
        upper_ptr = channel_ptr + (y0 * image_strides[0])[:, None]
        lower_ptr = channel_ptr + (y1 * image_strides[0])[:, None]
        upper = line(upper_ptr, y0_seen[:, None], x0, x0_seen, x1, x1_seen, x1_weight)
        lower = line(lower_ptr, y1_seen[:, None], x0, x0_seen, x1, x1_seen, x1_weight)
        above = ((upper >> 4) * (-y1_weight + WEIGHT_ONE)[:, None]) >> 16  # in quarters of a gray level
        below = ((lower >> 4) * y1_weight[:, None]) >> 16
        tl.store(out_at + (2 - channel if REVERSED else channel), ((above + below + 2) >> 2).to(tl.uint8), mask)
