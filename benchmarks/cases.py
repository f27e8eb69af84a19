"""The shapes that are checked and measured, as data."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NUM_TEMPLATE, NUM_TOKENS, NUM_HEADS, DIM = 64, 320, 12, 192  # the model's


class AttentionCase(NamedTuple):
    """Packed attention at the model's sizes."""

    pattern: str
    batch: int

    @property
    def name(self) -> str:
        return f"attention {self.pattern}, B={self.batch}"

    def qkv(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, N, 3 C), of the magnitude that a trained projection has."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, NUM_TOKENS, 3 * DIM, generator=generator).to(dtype)


class UnitCase(NamedTuple):
    """The Dual Attention Unit on an image."""

    size: int
    batch: int

    @property
    def name(self) -> str:
        return f"DAU {self.size}x{self.size}, B={self.batch}"

    def image(self, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, 3, self.size, self.size, generator=generator).to(dtype)


ATTENTION = tuple(AttentionCase(pattern, batch) for pattern in ("mixed", "cross", "full") for batch in (1, 8))
UNITS = (UnitCase(256, 1), UnitCase(128, 1))
