"""Square crops of an image for any number of targets in one call."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backends import BACKENDS, resolve

MAX_SIZE = 4096  # up to it OpenCV's two weights of a pixel, each rounded, add up to 1
MAX_SIDE = 2**31 - 1
SQUARE_DTYPES = (torch.int32, torch.int64)


def crop(image: Tensor, squares: Tensor, size: int, *, out: Tensor | None = None, backend: str = "auto") -> Tensor:
    """Cuts squares out of one image and resizes them bilinearly, as OpenCV's INTER_LINEAR does on uint8.

    Outside the image a crop is black; as in the authors' code, the image's last row and column count as outside. The
    reference equals `cv2.resize`; other backends are guaranteed to be within one gray level of it.

    Args:
        image: (H, W, 3) uint8, at least 2 x 2 pixels, any strides.
        squares: (B, 3), int32 or int64: left, top and side of each in pixels of the image. Squares on a GPU are not
            read back for an image on a GPU: one with a side below 1, or outside the image, gives a black crop.
        size: side of a crop in pixels, 1 to 4096.
        out: the result's memory: uint8 (B, size, size, 3), contiguous, on the image's device; allocated if None.
        backend: "auto" or a name from `fermt_kernels.backends()`. A named backend never falls back to another.

    Returns:
        `out`, (B, size, size, 3) uint8.

    Raises:
        TypeError, ValueError: an argument is not as described above; or, unless the squares are not read back, a square
            has a side below 1 or lies outside the image. The message carries the value.
        RuntimeError: the named backend cannot run this; the message has the reason.
    """
    check_image("crop", image)
    if isinstance(squares, Tensor) and image.device.type == "cpu":
        squares = squares.cpu()
    check_squares("crop", squares, image)
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"crop: size must be an int, got {size!r}")
    if not 1 <= size <= MAX_SIZE:
        raise ValueError(f"crop: size must lie in [1, {MAX_SIZE}], in pixels; got {size}")
    name = resolve("crop", backend, image.device.type, image.dtype, False)
    shape = (len(squares), size, size, 3)
    if out is None:
        out = image.new_empty(shape)
    else:
        _check_out(out, shape, image.device)
    BACKENDS[name].crop_forward(image, squares.to(image.device), out)
    return out


def check_image(op: str, image: Tensor) -> None:
    """TypeError or ValueError, in the name of `op`, unless the image has the form that `crop` expects."""
    if not isinstance(image, Tensor):
        raise TypeError(f"{op}: image must be a uint8 tensor (H, W, 3), got {type(image).__name__}")
    if image.dtype != torch.uint8:
        raise TypeError(f"{op}: image must be uint8, got {image.dtype}")
    if image.dim() != 3 or image.shape[2] != 3 or min(image.shape) < 2:
        raise ValueError(
            f"{op}: image must have shape (H, W, 3), at least 2 x 2 pixels; got shape {tuple(image.shape)}"
        )


def check_squares(op: str, squares: Tensor, image: Tensor) -> None:
    """The same of squares; the values of those on a GPU are not looked at, for that would wait for it."""
    if not isinstance(squares, Tensor):
        raise TypeError(f"{op}: squares must be an int32 or int64 tensor (B, 3), got {type(squares).__name__}")
    if squares.dtype not in SQUARE_DTYPES:
        raise TypeError(f"{op}: squares must be int32 or int64, got {squares.dtype}")
    if squares.dim() != 2 or squares.shape[1] != 3:
        raise ValueError(
            f"{op}: squares must have shape (B, 3), left, top and side of each; got shape {tuple(squares.shape)}"
        )
    if squares.device.type != "cpu":
        return
    height, width, _ = image.shape
    for i, (left, top, side) in enumerate(squares.tolist()):
        found = f"square {i} = (left, top, side) = {(left, top, side)}"
        if not 1 <= side <= MAX_SIDE:
            raise ValueError(f"{op}: {found} must have a side from 1 to {MAX_SIDE} pixels")
        if left + side <= 0 or top + side <= 0 or left >= width - 1 or top >= height - 1:
            raise ValueError(
                f"{op}: {found} does not meet the image of {width} x {height} pixels, of which the last row and "
                "column do not count"
            )


def _check_out(out: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(f"crop: out must be a uint8 tensor {shape}, got {type(out).__name__}")
    if out.dtype != torch.uint8:
        raise TypeError(f"crop: out must be uint8, got {out.dtype}")
    if out.shape != shape or not out.is_contiguous():
        raise ValueError(
            f"crop: out must have shape {shape} and be contiguous; got shape {tuple(out.shape)}, strides {out.stride()}"
        )
    if out.device != device:
        raise ValueError(f"crop: out must be on {device}, where the image is; got {out.device}")
