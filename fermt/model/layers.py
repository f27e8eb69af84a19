"""Building blocks of both heads."""

from __future__ import annotations

import torch.nn as nn
from torch import Tensor

WIDTHS = (256, 128, 64, 32)


def add_branch(head: nn.Module, name: str, dim: int, outputs: int) -> None:
    """Adds four 3x3 conv-BN-ReLU and a 1x1 convolution under the authors' keys `conv1_<name>` to `conv5_<name>`."""
    for i, (before, after) in enumerate(zip((dim, *WIDTHS[:-1]), WIDTHS, strict=True), start=1):
        layer = nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True))
        head.add_module(f"conv{i}_{name}", layer)
    head.add_module(f"conv5_{name}", nn.Conv2d(WIDTHS[-1], outputs, 1))


def run_branch(head: nn.Module, name: str, x: Tensor) -> Tensor:
    """Applies a branch to features, (B, C, g, g) -> (B, outputs, g, g)."""
    for i in range(1, 6):
        x = head.get_submodule(f"conv{i}_{name}")(x)
    return x


def init_head(head: nn.Module) -> None:
    """Initializes the weights of a head by Xavier-uniform, as other trackers of this family do."""
    for parameter in head.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def to_map(tokens: Tensor, grid: int) -> Tensor:
    """Arranges tokens, (B, g^2, C) in row order, as a map, (B, C, g, g)."""
    return tokens.transpose(1, 2).unflatten(2, (grid, grid))
