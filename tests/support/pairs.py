"""Pairs that cost nothing to make and can be learned: a colored rectangle on noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fermt import ModelConfig

COLOR = (230, 40, 40)


class Rectangles:
    """A `PairSource`: the template shows the rectangle in the middle, the search region somewhere."""

    def __init__(self, config: ModelConfig, seed: int, pairs: int, *, spoilt: tuple[int, ...] = ()) -> None:
        """`spoilt`: indices of pairs whose box has no area."""
        self.config, self.seed, self.pairs, self.spoilt = config, seed, pairs, spoilt

    def __len__(self) -> int:
        return self.pairs

    def pair(self, epoch: int, index: int) -> dict[str, Tensor]:
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, epoch, index))))
        sides = generator.uniform(0.2, 0.4, 2)
        corner = generator.uniform(0, 1 - sides)
        box = np.concatenate((corner, sides))
        middle = np.concatenate((0.5 - sides, 2 * sides))
        template = self._draw(generator, self.config.template_size, middle)
        search = self._draw(generator, self.config.search_size, box)
        if index in self.spoilt:
            box = np.array((0.5, 0.5, 0.0, 0.2))
        return {"template": template, "search": search, "box": torch.from_numpy(box.astype(np.float32))}

    def _draw(self, generator: np.random.Generator, size: int, box: np.ndarray) -> Tensor:
        image = generator.integers(0, 120, (size, size, 3), dtype=np.uint8)
        left, top, width, height = (box * size).round().astype(int)
        image[top : top + height, left : left + width] = COLOR
        return torch.from_numpy(image)
