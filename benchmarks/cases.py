"""The shapes that are checked and measured, as data."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import fermt_kernels as fk

NUM_TEMPLATE, NUM_TOKENS, NUM_HEADS, DIM = 64, 320, 12, 192  # the model's


class AttentionCase(NamedTuple):
    """Packed attention; the defaults are the model's sizes."""

    pattern: str
    batch: int
    heads: int = NUM_HEADS
    n: int = NUM_TEMPLATE
    tokens: int = NUM_TOKENS

    @property
    def name(self) -> str:
        size = "" if self.tokens == NUM_TOKENS else f" N={self.tokens}"
        return f"{self.pattern} B={self.batch} D={DIM // self.heads}{size}"

    def qkv(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(B, N, 3 C), of the magnitude that a trained projection has."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, self.tokens, 3 * DIM, generator=generator).to(dtype)

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        return [self.qkv(dtype)]


class UnitCase(NamedTuple):
    """The Dual Attention Unit on an image."""

    size: int
    batch: int

    @property
    def name(self) -> str:
        return f"DAU {self.size}x{self.size} B={self.batch}"

    def image(self, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch, 3, self.size, self.size, generator=generator).to(dtype)

    def weights(self, dtype: torch.dtype = torch.float32) -> fk.DAUWeights:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = fk.modules.DualAttentionUnit()
        return fk.DAUWeights(*(weight.detach().to(dtype) for weight in module.weights()))

    def inputs(self, dtype: torch.dtype) -> list[Tensor]:
        return [self.image(dtype), *self.weights(dtype)]


ATTENTION = (
    *(AttentionCase(pattern, batch) for pattern in ("mixed", "cross", "full") for batch in (1, 8, 32)),
    AttentionCase("mixed", 8, heads=3),
    AttentionCase("cross", 8, heads=3),
)
LONG = tuple(AttentionCase("mixed", 1, n=256 * scale, tokens=1280 * scale) for scale in (1, 2, 4))
UNITS = (UnitCase(256, 1), UnitCase(128, 1), UnitCase(256, 8))
