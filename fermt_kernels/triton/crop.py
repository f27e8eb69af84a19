"""Launch of the crop kernel: one launch for all targets of a frame."""

from __future__ import annotations

from torch import Tensor
from triton import cdiv

from .kernels.crop import crop_kernel
from .launch import Tuning, launch

ROWS, COLUMNS = 8, 64  # pixels of a program: a warp's loads run along a row, and one 256 x 256 crop gives 128 programs
TUNING = Tuning(num_warps=4)


def crop_forward(image: Tensor, squares: Tensor, out: Tensor, reverse: bool = False) -> None:
    """Computes crops of image (H, W, 3) at squares (B, 3) into `out` (B, S, S, 3); squares are not read back.

    With `reverse` the crops' channels are in reverse order: RGB of a BGR image.
    """
    size = out.shape[1]
    blocks = cdiv(size, ROWS), cdiv(size, COLUMNS)
    launch(
        crop_kernel,
        (squares.shape[0] * blocks[0] * blocks[1],),
        {
            "image_ptr": image,
            "squares_ptr": squares.contiguous(),
            "out_ptr": out,
            "image_strides": image.stride(),
            "height": image.shape[0],
            "width": image.shape[1],
            "size": size,
            "row_blocks": blocks[0],
            "column_blocks": blocks[1],
        },
        {"ROWS": ROWS, "COLUMNS": COLUMNS, "REVERSED": reverse},
        TUNING,
    )
