"""Initialization for training without pretrained weights: attention that already compares tokens."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from fermt_kernels.modules import TemplateSearchAttention

from ..model import FERMT

KEY_QUERY_CORRELATION = 0.7  # correlation of a key's weights with the query's
SELF_SCORE = 3.0  # score of a normalized token with itself before the softmax, if its key equaled its query


@torch.no_grad()
def init_similar(model: FERMT) -> None:
    """Initializes keys similar to queries and output projections similar to the transposed value projections, in place.

    Tokens then attend first to tokens that resemble them, as a search token must do to find the target in the template,
    and the product of the output and value projections is close to a multiple of the identity. After A. Trockman and
    J. Z. Kolter, "Mimetic initialization of self-attention layers" (2023). Position tables start as sines and cosines
    of the position in the crop, so that neighbors are similar. Draws from torch's global generator.
    """
    for block in model.backbone.blocks:
        attention = cast(TemplateSearchAttention, block.attn)
        # Its projection has the rows of all queries, then those of all keys, then those of all values.
        dim, heads = attention.qkv.in_features, attention.num_heads
        scale = (SELF_SCORE / (dim * (dim / heads) ** 0.5)) ** 0.5
        query = _normal(dim) * scale
        key = KEY_QUERY_CORRELATION * query + (1 - KEY_QUERY_CORRELATION**2) ** 0.5 * _normal(dim) * scale
        value = _normal(dim) * dim**-0.5
        attention.qkv.weight.copy_(torch.cat((query, key, value)))
        attention.proj.weight.copy_(0.4 * value.T + 0.4 * _normal(dim) * dim**-0.5)
    config = model.config
    if config.head == "center":
        bias = model.box_head.get_parameter("conv5_ctr.bias")
        bias.fill_(-math.log(config.num_search))  # at first every cell is an unlikely center
    for table, grid, factor in (
        (model.backbone.pos_embed_z, config.template_grid, config.template_factor),
        (model.backbone.pos_embed_x, config.search_grid, config.search_factor),
    ):
        table.copy_(_waves(grid, factor, config.dim).unsqueeze(0))


def _normal(dim: int) -> Tensor:
    """A (dim, dim) float32 matrix of standard normal numbers."""
    return torch.randn(dim, dim, dtype=torch.float32, device="cpu")


def _waves(grid: int, factor: float, dim: int) -> Tensor:
    """Sines and cosines, (grid^2, dim), of x and y from the middle of the crop in units of the target's size."""
    places = (torch.arange(grid, dtype=torch.float64, device="cpu") + 0.5) / grid * factor - 0.5 * factor
    steps = torch.arange(dim // 4, dtype=torch.float64, device="cpu") / max(1, dim // 4 - 1)
    rates = 0.5 * torch.pi * 8 ** (steps - 0.5)
    angles = places[:, None] * rates
    line = torch.cat((angles.sin(), angles.cos()), dim=1)  # (grid, dim / 2)
    rows, columns = line[:, None].expand(-1, grid, -1), line[None].expand(grid, -1, -1)
    table = torch.zeros(grid * grid, dim, dtype=torch.float64, device="cpu")
    table[:, : 2 * line.shape[1]] = torch.cat((columns, rows), dim=2).flatten(0, 1)
    return (0.3 * table).float()
