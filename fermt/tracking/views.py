"""Squares of images around targets, and how a network takes them: cut out, or as whole images with squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import fermt_kernels as fk

from ..data import Square, crop_square
from .images import Image, to_rgb, to_tensor
from .network import ImageNetwork, Network


class View(NamedTuple):
    """A square around a target, which meets its image."""

    image: Image  # as `check_image` takes it
    square: Square
    bgr: bool  # whether an image with three or four channels is BGR

    def crop(self, size: int) -> Image:
        """Cuts it out: contiguous (size, size, 3) RGB, of an image on a GPU a tensor there, else an array."""
        if isinstance(self.image, Tensor) and self.image.device.type != "cpu":
            cut = fk.frame.crop(to_tensor(self.image), squares_of([self]), size)[0]
            return cut.flip(2) if self.bgr else cut
        pixels = self.image.numpy() if isinstance(self.image, Tensor) else self.image
        return to_rgb(crop_square(pixels, self.square, size).image, self.bgr)


def squares_of(views: Sequence[View]) -> Tensor:
    """The squares (B, 3), as `fk.frame.crop` takes them."""
    return torch.tensor([view.square for view in views], device="cpu")


def locate(network: Network, encoded: Sequence[Sequence[Tensor]], views: Sequence[View], min_batch: int = 0) -> Tensor:
    """Finds targets as `Network.locate`, each in its view; of images on a GPU there may be no others beside them.

    Fewer than `min_batch` are filled up to it with the first, whose results follow.
    """
    image, _, bgr = views[0]
    more = max(min_batch - len(views), 0)
    encoded = [*encoded, *[encoded[0]] * more]
    if isinstance(network, ImageNetwork) and all(view.image is image and view.bgr == bgr for view in views):
        return network.locate_image(encoded, to_tensor(image), squares_of([*views, *[views[0]] * more]), bgr)
    crops = [view.crop(network.search_size) for view in views]
    crops += crops[:1] * more
    there = [crop for crop in crops if isinstance(crop, Tensor)]
    return network.locate(encoded, torch.stack(there) if there else np.stack(crops))
