"""Auxiliary supervision for training without pretrained weights: tokens learn which part of the target they show."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..config import ModelConfig
from ..model import FERMT

DESCRIPTOR_SIZE = 128  # length of the descriptors that are compared
TEMPERATURE = 0.1  # of the softmax over the template's tokens
INSIDE_WEIGHT = 3.0  # of a cell inside the target's box over one outside; about one in 16 is inside
OUTPUT_KEY = "matching"  # of the auxiliary outputs

Features = list[tuple[Tensor, Tensor]]


class MatchedFERMT(nn.Module):
    """A model with an auxiliary head on every third block, used in training only.

    Each head has a descriptor of every token and, for each search token, the logit of lying inside the target's box.
    The model's own loss has one positive cell for each pair, which is too little to learn from random weights how to
    compare tokens; the correspondence of all tokens in the box gives a signal for each of them.

    Args:
        model: the model; its parameters are shared.
    """

    def __init__(self, model: FERMT) -> None:
        super().__init__()
        self.model = model
        dim, depth = model.config.dim, len(model.config.patterns)
        self.levels = [*range(2, depth - 1, 3), depth - 1]
        self.heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, DESCRIPTOR_SIZE + 1)) for _ in self.levels
        )

    def forward(self, template: Tensor, search: Tensor) -> dict[str, Any]:
        """Returns the model's outputs and under "matching", for each head, what `matching_loss` takes."""
        tokens: dict[int, Tensor] = {}

        def keep(level: int) -> Any:
            return lambda _module, _inputs, output: tokens.__setitem__(level, output)

        blocks = self.model.backbone.blocks
        hooks = [blocks[level].register_forward_hook(keep(level)) for level in self.levels]
        try:
            outputs = cast(dict[str, Any], self.model(template, search))
        finally:
            for hook in hooks:
                hook.remove()
        count = self.model.config.num_search
        features: Features = []
        for level, head in zip(self.levels, self.heads, strict=True):
            descriptors, inside = head(tokens[level]).float().split((DESCRIPTOR_SIZE, 1), dim=-1)
            descriptors = F.normalize(descriptors, dim=-1)
            similarity = descriptors[:, -count:] @ descriptors[:, :-count].mT / TEMPERATURE
            features.append((similarity, inside[:, -count:, 0]))
        return outputs | {OUTPUT_KEY: features}


def matching_loss(features: Features, boxes: Tensor, config: ModelConfig) -> Tensor:
    """The mean over heads of two losses: of matching search tokens to template tokens, and of finding the box.

    The position of a search token relative to the target's box is that of its template token relative to the box in the
    template, which is in the middle of the crop.

    Args:
        features: for each head the similarities of search to template tokens, (B, m, n), and the logits of lying inside
            the box, (B, m).
        boxes: (B, 4), xywh in [0, 1] of the search region.
        config: configuration of the model, with one template.
    """
    inside, match = correspondences(boxes, config)
    weights = torch.where(inside, INSIDE_WEIGHT, 1.0)
    total = boxes.new_zeros(())
    for similarity, logits in features:
        each = F.cross_entropy(similarity.flatten(0, 1), match.flatten(), reduction="none")
        total = total + (each * inside.flatten()).sum() / inside.sum().clamp(min=1)
        total = total + F.binary_cross_entropy_with_logits(logits, inside.to(logits.dtype), weights)
    return total / len(features)


def correspondences(boxes: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Which search tokens have their middle inside a box, (B, m) bool, and the template token of each, (B, m) int64.

    Args:
        boxes: (B, 4), xywh in [0, 1] of the search region.
        config: configuration of the model, for the grids and the template's factor.
    """
    cells, grid = config.search_grid, config.template_grid
    middles = (torch.arange(cells, device=boxes.device, dtype=boxes.dtype) + 0.5) / cells
    corner, sides = boxes[:, :2, None], boxes[:, 2:, None]  # (B, 2, 1)
    place = (middles - corner) / sides  # (B, 2, cells), x and y, in [0, 1] inside the box
    within = (place > 0) & (place < 1)
    template_sides = sides / (sides.prod(dim=1, keepdim=True).sqrt() * config.template_factor)
    token = ((0.5 + (place - 0.5) * template_sides) * grid).long().clamp(0, grid - 1)
    inside = within[:, 1, :, None] & within[:, 0, None, :]
    match = token[:, 1, :, None] * grid + token[:, 0, None, :]
    return inside.flatten(1), match.flatten(1)
