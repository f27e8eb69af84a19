"""The corner head: a distribution over cells for each of two corners (the head that the paper describes)."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from fermt_kernels.frame import decode
from fermt_kernels.spec.heads import HEADS

from ..config import ModelConfig
from .layers import add_branch, init_head, run_branch, to_map

HEAD = HEADS["corner"]


class CornerHead(nn.Module):
    """Maps tokens, (B, n + m, C), template first, to `prob_tl` and `prob_br`, (B, g^2) over cells in row order.

    Both are results of a softmax, at least in float32, also under autocast.

    With `config.reweight` search tokens are first weighted by their similarity (dot product) to the mean template
    token, as STARK weights them by its decoder's output. The paper mentions this for its head without details, and the
    release does not have it; this is our interpretation.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.grid = config.search_grid
        self.num_search = config.num_search
        self.reweight = config.reweight
        for branch in HEAD.branches:
            add_branch(self, branch.name, config.dim, branch.channels)
        init_head(self)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        template, search = tokens[:, : -self.num_search], tokens[:, -self.num_search :]
        if self.reweight:
            search = search * (search @ template.mean(dim=1, keepdim=True).mT)  # (B, m, C) * (B, m, 1)
        features = to_map(search, self.grid)
        wide = torch.promote_types(features.dtype, torch.float32)  # softmax in bfloat16 is less precise than a cell
        return {
            branch.output: run_branch(self, branch.name, features).to(wide).flatten(1).softmax(dim=1)
            for branch in HEAD.branches
        }

    @staticmethod
    def decode(outputs: dict[str, Tensor], window: Tensor | None = None) -> Tensor:
        """Decodes boxes, (B, 4) cxcywh in [0, 1] of the search region, from mean corners; `window` is not used."""
        return decode(outputs, window)[:, :4]
