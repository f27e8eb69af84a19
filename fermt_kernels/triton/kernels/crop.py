"""Square crops of one frame, resized in OpenCV's fixed point: weights in 1/2048, and products cut to integers.

What is guaranteed: one gray level. Positions are rounded as OpenCV's are, in float64 and then to float32, as long as
the compiler fuses no product with a sum, which `taps` sees to; all else is exact or in integers, so that the crop is
OpenCV's bit for bit. Fused, a position could be the next float32, in squares of more than 2048 pixels a side: a weight
1/2048 off, a pixel one gray level.
"""

import triton
import triton.language as tl

WHOLE = tl.constexpr(2048)  # the weights of a pixel's two taps add up to it
ROUND = tl.constexpr(12582912.0)  # 1.5 * 2^23: a float32 plus it has no fraction; rounded to nearest even


@triton.jit
def place(start, side, index, length):
    """Where the square's row or column `index` lies in the image, and whether it is not black.

    As in the authors' code, an image's last row and column count as outside. A side below 1 puts it before the start.
    """
    at = start + tl.minimum(tl.maximum(index, 0), side - 1)
    return at, (at >= tl.maximum(start, 0)) & (at < length - 1)


@triton.jit
def taps(start, side, size, outputs, length):
    """The two image rows (or columns) of each of `outputs`: places, whether they are not black, the second's weight."""
    scale = 1.0 / (size / side.to(tl.float64))  # in this order: its rounding is OpenCV's
    # The product is not negative, but the compiler does not know: the maximum keeps it from a fused multiply-add.
    position = (tl.maximum((outputs.to(tl.float64) + 0.5) * scale, 0.0) - 0.5).to(tl.float32)
    low = tl.floor(position)
    weight = (((position - low) * WHOLE + ROUND) - ROUND).to(tl.int32)
    first = low.to(tl.int64)
    at_first, seen_first = place(start, side, first, length)
    at_second, seen_second = place(start, side, first + 1, length)
    return at_first, seen_first, at_second, seen_second, weight


@triton.jit
def line(row_ptr, row_seen, x0, x0_seen, x1, x1_seen, x1_weight):
    """Each column's two pixels of an image row, weighed: (ROWS, COLUMNS) in 1/2048 gray levels."""
    left = tl.load(row_ptr + x0[None, :], row_seen & x0_seen[None, :], other=0).to(tl.int32)
    right = tl.load(row_ptr + x1[None, :], row_seen & x1_seen[None, :], other=0).to(tl.int32)
    return left * WHOLE + (right - left) * x1_weight[None, :]


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
):
    """ROWS x COLUMNS pixels, all channels, of one square's crop."""
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

    known = (rows < size)[:, None] & (columns < size)[None, :]
    out_at = out_ptr + ((square * size + rows[:, None]) * size + columns[None, :]) * 3
    for channel in tl.static_range(3):
        channel_ptr = image_ptr + channel * image_strides[2]
        upper_ptr = channel_ptr + (y0 * image_strides[0])[:, None]
        lower_ptr = channel_ptr + (y1 * image_strides[0])[:, None]
        upper = line(upper_ptr, y0_seen[:, None], x0, x0_seen, x1, x1_seen, x1_weight)
        lower = line(lower_ptr, y1_seen[:, None], x0, x0_seen, x1, x1_seen, x1_weight)
        above = ((upper >> 4) * (-y1_weight + WHOLE)[:, None]) >> 16  # in quarters of a gray level
        below = ((lower >> 4) * y1_weight[:, None]) >> 16
        tl.store(out_at + channel, ((above + below + 2) >> 2).to(tl.uint8), known)
