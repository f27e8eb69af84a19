"""The frame on a GPU: all its memory, and its launches in order, so that the whole can be captured in a CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor

from .frame_head import Head
from .frame_layers import Layers
from .frame_tiles import mode
from .frame_weights import FrameSizes, FrameWeights

MOST_VALUES = 2**31 - 1  # of a tensor


class Frame:
    """A model, and memory for `batch` targets: their templates, their search regions, and what comes of them.

    `templates` and `searches`, uint8 (B, S, S, 3), are where crops go. `head` has the results.
    """

    def __init__(self, weights: FrameWeights, sizes: FrameSizes, batch: int) -> None:
        like = weights.embedding.weight
        widest = max(3 * sizes.dim, sizes.hidden, *(layer.bias.numel() for layer in weights.convolutions))
        pixels = 3 * max(sizes.template_size, sizes.search_size) ** 2
        most = MOST_VALUES // max((sizes.num_template + sizes.num_search) * widest, pixels)
        if batch > most:
            raise ValueError(
                f"a frame on a GPU takes at most {most} targets at once, for offsets of 32 bits; got {batch}"
            )
        chosen = mode(like.dtype.itemsize, batch * sizes.num_search)
        self.templates, self.searches = (
            like.new_empty((batch, size, size, 3), dtype=torch.uint8)
            for size in (sizes.template_size, sizes.search_size)
        )
        self.layers = Layers(weights, sizes, chosen, batch)
        self.head = Head(weights, sizes, chosen, batch)

    def encode(self) -> None:
        """From `templates`, all that later frames need of them."""
        self.layers.encode(self.templates)

    def track(self) -> None:
        """From `searches` and the templates at hand, the head's maps and boxes."""
        self.layers.run(self.searches)
        self.head.run(self.layers.features)

    def caches(self) -> Tensor:
        """What `encode` left, uint8 (B, cache_bytes)."""
        return torch.cat([part.flatten(1).contiguous().view(torch.uint8) for part in self.layers.cached()], dim=1)

    def install(self, target: int, cache: Tensor) -> None:
        """Puts a row of `caches` in the place of target `target`."""
        parts = [part[target] for part in self.layers.cached()]
        aligned = cache.clone()  # a row may begin anywhere
        for part, taken in zip(parts, aligned.split([part.nbytes for part in parts]), strict=True):
            part.copy_(taken.view(part.dtype).view(part.shape))
