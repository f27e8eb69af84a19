"""The training losses: focal + 5 L1 + 2 GIoU for the centre head (Eq. 5 of the paper), less focal for the corner."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import cxcywh_to_xyxy, xywh_to_xyxy
from .model import FERMT

L1_WEIGHT = 5.0
GIOU_WEIGHT = 2.0
MIN_OVERLAP = 0.7  # a corner may be off by the heat map's radius and the box still overlaps this much

Parts = dict[str, Tensor]
Loss = Callable[[dict[str, Tensor], Tensor], tuple[Tensor, Parts]]


def gaussian_heat_map(boxes: Tensor, grid: int) -> Tensor:
    """A Gaussian at the centre cell of each box, its radius as CornerNet's for an overlap of 0.7.

    Args:
        boxes: (B, 4), xywh in [0, 1] of the search region.
        grid: cells along a side, g.

    Returns:
        (B, 1, g, g), 1 at the centre cell if that lies in the map.
    """
    scaled = boxes * grid
    center = (scaled[:, :2] + scaled[:, 2:] / 2).round()  # (B, 2), cell (x, y)
    radius = _gaussian_radius(scaled[:, 2], scaled[:, 3]).clamp(min=0).floor()
    cells = torch.arange(grid, dtype=boxes.dtype, device=boxes.device)
    dx, dy = (cells - center[:, i, None] for i in (0, 1))  # (B, g)
    sigma = ((2 * radius + 1) / 6)[:, None, None]
    heat = torch.exp(-(dx[:, None, :] ** 2 + dy[:, :, None] ** 2) / (2 * sigma**2))  # (B, y, x)
    near = (dx.abs() <= radius[:, None])[:, None, :] & (dy.abs() <= radius[:, None])[:, :, None]
    negligible = heat < torch.finfo(heat.dtype).eps
    return heat.masked_fill(~near | negligible, 0).unsqueeze(1)


def _gaussian_radius(width: Tensor, height: Tensor) -> Tensor:
    """CornerNet's radius: the least of three cases, each with the published code's division by 2 in place of 2a."""
    total, area = width + height, width * height
    cases = (  # a, b, c of a r^2 + b r + c = 0
        (1.0, total, area * (1 - MIN_OVERLAP) / (1 + MIN_OVERLAP)),
        (4.0, 2 * total, (1 - MIN_OVERLAP) * area),
        (4 * MIN_OVERLAP, -2 * MIN_OVERLAP * total, (MIN_OVERLAP - 1) * area),
    )
    radii = [(b + (b**2 - 4 * a * c).clamp(min=0).sqrt()) / 2 for a, b, c in cases]
    return torch.stack(radii).amin(dim=0)


def focal_loss(score_map: Tensor, heat_map: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """CornerNet's focal loss, summed over cells and divided by the number of cells that are exactly 1.

    Args:
        score_map: (B, 1, g, g), probabilities within (0, 1).
        heat_map: (B, 1, g, g), as `gaussian_heat_map` makes it.
    """
    peak = heat_map.eq(1)
    positive = torch.log(score_map) * (1 - score_map) ** alpha
    negative = torch.log(1 - score_map) * score_map**alpha * (1 - heat_map) ** beta
    return -torch.where(peak, positive, negative).sum() / peak.sum().clamp(min=1)


def iou_and_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU of boxes (B, 4), xyxy, pair by pair -> (B,), (B,).

    A box whose corners have changed places, as an untrained corner head gives them, has no area.
    """
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1) for boxes in (a, b))
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    union = area_a + area_b - overlap
    iou = overlap / union
    return iou, iou - (hull - union) / hull


def has_area(boxes: Tensor) -> Tensor:
    """(B,) bool: which of the boxes (B, 4), xywh in [0, 1], are finite and have an area inside the search region."""
    inside = xywh_to_xyxy(boxes).clamp(0.0, 1.0)
    return torch.isfinite(boxes).all(dim=1) & (inside[:, 2:] > inside[:, :2]).all(dim=1)


def center_loss(outputs: dict[str, Tensor], boxes: Tensor) -> tuple[Tensor, Parts]:
    """focal + 5 L1 + 2 GIoU of a centre-head model's outputs.

    Args:
        outputs: of the model: `score_map` (B, 1, g, g) and `pred_boxes` (B, 1, 4), cxcywh.
        boxes: (B, 4), the truth, xywh in [0, 1] of the search region.

    Returns:
        The loss, and its parts: `focal`, `l1`, `giou`, and the mean `iou`.

    Raises:
        ValueError: boxes are not (B, 4), or a number in them is not finite.
    """
    of_box, parts = _box_loss(outputs, boxes)
    score_map = outputs["score_map"]
    focal = focal_loss(score_map, gaussian_heat_map(boxes, score_map.shape[-1]))
    return focal + of_box, {"focal": focal} | parts


def corner_loss(outputs: dict[str, Tensor], boxes: Tensor) -> tuple[Tensor, Parts]:
    """5 L1 + 2 GIoU of a corner-head model's outputs, which have no score to train.

    Args:
        outputs: of the model: `pred_boxes` (B, 1, 4), cxcywh.
        boxes: as for `center_loss`.

    Returns:
        The loss, and its parts: `l1`, `giou`, and the mean `iou`.

    Raises:
        ValueError: as for `center_loss`.
    """
    return _box_loss(outputs, boxes)


LOSSES: dict[str, Loss] = {"center": center_loss, "corner": corner_loss}


def loss_of(model: FERMT) -> Loss:
    """What `model` is trained with: a function of its outputs and the true boxes, for its head."""
    return LOSSES[model.config.head]


def _box_loss(outputs: dict[str, Tensor], boxes: Tensor) -> tuple[Tensor, Parts]:
    predicted = outputs["pred_boxes"].squeeze(1)
    if boxes.shape != predicted.shape:
        raise ValueError(f"boxes must have shape {tuple(predicted.shape)}, got {tuple(boxes.shape)}")
    if not torch.isfinite(boxes).all():
        raise ValueError(f"boxes must be finite, got {boxes.tolist()}")
    predicted_xyxy, true_xyxy = cxcywh_to_xyxy(predicted), xywh_to_xyxy(boxes).clamp(0.0, 1.0)
    iou, giou = iou_and_giou(predicted_xyxy, true_xyxy)
    parts = {"l1": F.l1_loss(predicted_xyxy, true_xyxy), "giou": (1 - giou).mean()}
    return L1_WEIGHT * parts["l1"] + GIOU_WEIGHT * parts["giou"], parts | {"iou": iou.detach().mean()}
