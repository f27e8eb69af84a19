"""Our kernels in somebody else's training loop: python examples/swap_into_training.py

The model is one like OSTrack's, with timm-style blocks that know nothing of this package. `fk.swap` puts the kernels
in; parameters, optimizer and state dict stay what they are.
"""

from __future__ import annotations

import copy

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import fermt_kernels as fk

TEMPLATE, SEARCH = 16, 64  # tokens


class Attention(nn.Module):
    """As timm and OSTrack have it: every token sees every token."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT * self.scale).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, dim))


class Block(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class OneStreamTracker(nn.Module):
    """Template and search tokens in one stream, and a box from the search tokens."""

    def __init__(self, dim: int = 48, num_heads: int = 3, depth: int = 4) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 8, 8)
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(depth))
        self.box = nn.Linear(dim, 4)

    def forward(self, template: Tensor, search: Tensor) -> Tensor:
        tokens = torch.cat([self.patch_embed(image).flatten(2).mT for image in (template, search)], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.box(tokens[:, TEMPLATE:].mean(dim=1)).sigmoid()


def train(model: nn.Module, steps: int) -> list[float]:
    """Any training loop: this one fits boxes that are written into the images."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=2e-3), []
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        boxes = torch.rand(8, 4, generator=generator)
        template, search = (boxes.mean(dim=1).view(-1, 1, 1, 1).expand(-1, 3, size, size) for size in (32, 64))
        loss = F.l1_loss(model(template, search), boxes.mean(dim=1, keepdim=True).expand(-1, 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main(steps: int = 30) -> tuple[list[float], list[float], list[float]]:
    """Losses of the model as it was, with our kernels for the same attention, and with FERMT's asymmetric attention."""
    torch.manual_seed(0)
    model = OneStreamTracker()
    same, asymmetric = copy.deepcopy(model), copy.deepcopy(model)

    print(fk.swap(same, pattern="full", num_template=TEMPLATE))  # what it had, computed by our kernels
    fk.swap(asymmetric, pattern=["mixed", "mixed", "cross", "cross"], num_template=TEMPLATE)  # FERMT's, half and half

    results = train(model, steps), train(same, steps), train(asymmetric, steps)
    for name, losses in zip(("as it was", "swapped, full", "swapped, mixed and cross"), results, strict=True):
        print(f"{name:>25}: loss {losses[0]:.4f} -> {losses[-1]:.4f}")
    print(f"largest difference of the first two: {max(abs(a - b) for a, b in zip(*results[:2], strict=True)):.1e}")
    return results


if __name__ == "__main__":
    main()
