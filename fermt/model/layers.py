"""What both heads are built of."""

from __future__ import annotations

import torch.nn as nn
from torch import Tensor

WIDTHS = (256, 128, 64, 32)


def add_branch(head: nn.Module, name: str, dim: int, outputs: int) -> None:
    """Four 3x3 conv-BN-ReLU and a 1x1 convolution, as `conv1_<name>` to `conv5_<name>`: the authors' keys."""
    for i, (before, after) in enumerate(zip((dim, *WIDTHS[:-1]), WIDTHS, strict=True), start=1):
        layer = nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True))
        head.add_module(f"conv{i}_{name}", layer)
    head.add_module(f"conv5_{name}", nn.Conv2d(WIDTHS[-1], outputs, 1))


def run_branch(head: nn.Module, name: str, x: Tensor) -> Tensor:
    """Features (B, C, g, g) -> (B, outputs, g, g)."""
    for i in range(1, 6):
        x = head.get_submodule(f"conv{i}_{name}")(x)
    return x


def init_head(head: nn.Module) -> None:
    """Xavier-uniform weights, as trackers of this family start their heads."""
    for parameter in head.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def to_map(tokens: Tensor, grid: int) -> Tensor:
    """Tokens (B, g^2, C), row by row -> map (B, C, g, g)."""
    return tokens.transpose(1, 2).unflatten(2, (grid, grid))
