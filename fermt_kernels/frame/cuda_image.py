"""Whole images on a GPU, at addresses that stay, for CUDA graphs that cut crops out of them."""

from __future__ import annotations

import torch
from torch import Tensor

from .cuda_graph import WHOLE, Upload

SIZES = 2  # of images that are kept, with their graphs: a video has one


class StaticImage:
    """The memory of one image: `pixels`, uint8 (H, W, 3) on the GPU, BGR if `bgr` and otherwise RGB."""

    def __init__(self, height: int, width: int, bgr: bool, device: torch.device, uploads: bool) -> None:
        self.bgr = bgr
        self.pixels = torch.empty((height, width, 3), dtype=torch.uint8, device=device)
        self._upload = Upload(self.pixels) if uploads else None

    def put(self, image: Tensor, squares: Tensor) -> None:
        """Copies what is in the squares (B, 3) of an image of this size, from the CPU or the GPU.

        Squares on a GPU are not read back, and all of the image is copied. Elsewhere older pixels stay.
        """
        part = _around(squares, *self.pixels.shape[:2]) if squares.device.type == "cpu" else WHOLE
        if self._upload is not None and image.device.type == "cpu":
            self._upload(image[part], part)
        else:
            self.pixels[part].copy_(image[part])


class StaticImages:
    """Static images of the sizes that came last. Who wants a graph kept no longer than its image knows it by that."""

    def __init__(self, device: torch.device, uploads: bool) -> None:
        self._device, self._uploads = device, uploads
        self._kept: dict[tuple[int, int, bool], StaticImage] = {}  # the last used last

    def of(self, height: int, width: int, bgr: bool) -> StaticImage:
        """The image of that size."""
        key = height, width, bgr
        image = self._kept.pop(key, None)
        if image is None:
            if len(self._kept) == SIZES:
                self._drop(next(iter(self._kept)))
            with torch.inference_mode(False):  # inference tensors could not be written to outside it
                image = StaticImage(*key, self._device, self._uploads)
        self._kept[key] = image
        return image

    def _drop(self, key: tuple[int, int, bool]) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # its graphs must not go while they run
        del self._kept[key]


def _around(squares: Tensor, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle that has all that squares (B, 3) on the CPU have of an image."""
    rows = squares.tolist()
    left, top = (max(0, min(row[i] for row in rows)) for i in (0, 1))
    right, bottom = (min(end, max(row[i] + row[2] for row in rows)) for i, end in ((0, width), (1, height)))
    return slice(top, bottom), slice(left, right)
