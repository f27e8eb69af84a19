"""Decoding the head's maps to boxes and scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def decode(maps: dict[str, Tensor], window: Tensor | None = None) -> Tensor:
    """Decodes a head's maps to boxes and scores.

    The center head's box is at the best cell of its score map, and its score is the map's maximum. The corner head's
    box is between the mean cells of its two distributions, and its score is the lesser of their maxima. Scores are not
    calibrated. (`cal_bbox` and `soft_argmax` of the authors' release.)

    Args:
        maps: `score_map` (B, 1, g, g), `size_map` and `offset_map` (B, 2, g, g); or `prob_tl` and `prob_br` (B, g^2).
        window: (g, g), multiplies the score map before its best cell is chosen; or None. The corner head ignores it.

    Returns:
        (B, 5): cx, cy, w, h in [0, 1] of the search region, and the score in (0, 1).
    """
    return _center(maps, window) if "score_map" in maps else _corner(maps)


def _center(maps: dict[str, Tensor], window: Tensor | None) -> Tensor:
    score_map, size_map, offset_map = (maps[key] for key in ("score_map", "size_map", "offset_map"))
    grid = score_map.shape[-1]
    weighted = score_map if window is None else score_map * window
    cell = weighted.flatten(1).argmax(dim=1, keepdim=True)  # (B, 1)
    index = cell.unsqueeze(1).expand(-1, 2, -1)  # (B, 2, 1)
    size = size_map.flatten(2).gather(2, index).squeeze(2)  # (B, 2)
    offset = offset_map.flatten(2).gather(2, index).squeeze(2)
    corner = torch.cat((cell % grid, cell // grid), dim=1)
    score = score_map.flatten(1).amax(dim=1, keepdim=True)
    return torch.cat(((corner + offset) / grid, size, score), dim=1)


def _corner(maps: dict[str, Tensor]) -> Tensor:
    top_left, bottom_right = maps["prob_tl"], maps["prob_br"]
    grid = math.isqrt(top_left.shape[1])
    cells = torch.arange(grid, dtype=top_left.dtype, device=top_left.device)
    ys, xs = torch.meshgrid(cells, cells, indexing="ij")
    coordinates = torch.stack((xs.flatten(), ys.flatten()), dim=1) / grid  # (g^2, 2)
    with torch.autocast(top_left.device.type, enabled=False):  # it would round coordinates to bfloat16
        low, high = top_left @ coordinates, bottom_right @ coordinates
    score = torch.minimum(top_left.amax(dim=1), bottom_right.amax(dim=1)).unsqueeze(1)
    return torch.cat((0.5 * (low + high), high - low, score), dim=1)
