"""A whole frame on a GPU: all memory is allocated beforehand, so that the launches can be captured in a CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor

from .crop import crop_forward
from .frame_head import Head
from .frame_layers import Layers
from .frame_tiles import mode
from .frame_weights import FrameSizes, FrameWeights
from .measured import architecture

MAX_ELEMENTS = 2**31 - 1  # of a tensor: kernels compute offsets in 32 bits
SQUARE = 3  # numbers of a search region's square: left, top, side


class Frame:
    """A model's weights, and memory for `batch` targets.

    Crops are copied into `templates` and `searches`, uint8 (B, S, S, 3); or `squares`, int64 (B, 3), says where the
    latter are cut out of an image. `head` holds the results.

    Raises:
        ValueError: more targets than 32-bit offsets reach.
    """

    def __init__(self, weights: FrameWeights, sizes: FrameSizes, batch: int) -> None:
        like = weights.embedding.weight
        widest = max(3 * sizes.dim, sizes.hidden, *(layer.bias.numel() for layer in weights.convolutions))
        pixels = 3 * max(sizes.template_size, sizes.search_size) ** 2
        most = MAX_ELEMENTS // max((sizes.num_template + sizes.num_search) * widest, pixels)
        if batch > most:
            raise ValueError(
                f"a frame on a GPU takes at most {most} targets at once, for offsets of 32 bits; got {batch}"
            )
        chosen = mode(like.dtype.itemsize, batch * sizes.num_search, architecture(like.device))
        self.templates, self.searches = (
            like.new_empty((batch, size, size, 3), dtype=torch.uint8)
            for size in (sizes.template_size, sizes.search_size)
        )
        self.squares = like.new_empty((batch, SQUARE), dtype=torch.int64)
        self.layers = Layers(weights, sizes, chosen, batch)
        self.head = Head(weights, sizes, chosen, batch)

    def encode(self) -> None:
        """Computes from `templates` all that later frames need of them."""
        self.layers.encode(self.templates)

    def track(self) -> None:
        """Computes the head's maps and boxes from `searches` and the encoded templates."""
        self.layers.run(self.searches)
        self.head.run(self.layers.features)

    def track_image(self, image: Tensor, bgr: bool) -> None:
        """Cuts `searches` out of an image (H, W, 3) at `squares`, and computes the head's maps and boxes from them."""
        crop_forward(image, self.squares, self.searches, reverse=bgr)
        self.track()

    def caches(self) -> Tensor:
        """Copies of what `encode` computed, uint8 (B, cache_bytes)."""
        return torch.cat([part.flatten(1).contiguous().view(torch.uint8) for part in self.layers.cached()], dim=1)

    def install(self, target: int, cache: Tensor) -> None:
        """Copies a row of `caches` into the memory of target `target`."""
        parts = [part[target] for part in self.layers.cached()]
        aligned = cache.clone()  # a row's address need not be aligned
        for part, taken in zip(parts, aligned.split([part.nbytes for part in parts]), strict=True):
            part.copy_(taken.view(part.dtype).view(part.shape))
