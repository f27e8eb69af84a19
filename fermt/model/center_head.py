"""The center head: a score, an offset and a size at each cell (the head of the authors' release)."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from fermt_kernels.frame import decode
from fermt_kernels.spec.heads import HEADS, SIGMOID_LIMIT

from ..config import ModelConfig
from .layers import add_branch, init_head, run_branch, to_map

HEAD = HEADS["center"]


class CenterHead(nn.Module):
    """Maps tokens, (B, n + m, C), template first, to `score_map`, (B, 1, g, g), and two maps, (B, 2, g, g).

    The two are `size_map`, in fractions of the search region, and `offset_map`, in cells. All are at least float32,
    also under autocast.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.grid = config.search_grid
        self.num_search = config.num_search
        for branch in HEAD.branches:
            add_branch(self, branch.name, config.dim, branch.channels)
        init_head(self)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        features = to_map(tokens[:, -self.num_search :], self.grid)
        # In bfloat16 the upper limit of the clamp would round to 1, and the loss would be infinite.
        wide = torch.promote_types(features.dtype, torch.float32)
        maps = {}
        for branch in HEAD.branches:
            value = run_branch(self, branch.name, features).to(wide)
            maps[branch.output] = value.sigmoid().clamp(SIGMOID_LIMIT, 1 - SIGMOID_LIMIT) if branch.sigmoid else value
        return {output: maps[output] for output in HEAD.outputs}

    @staticmethod
    def decode(outputs: dict[str, Tensor], window: Tensor | None = None) -> Tensor:
        """Decodes boxes, (B, 4) cxcywh in [0, 1] of the search region, at the best cell of the score map.

        Args:
            outputs: the result of `forward`.
            window: (g, g) factor of the score map, or None.
        """
        return decode(outputs, window)[:, :4]
