"""Training losses: focal + 5 L1 + 2 GIoU (Eq. 5 of the paper) for the center head, without focal for the corners."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import cxcywh_to_xyxy, xywh_to_xyxy
from .model import FERMT

L1_WEIGHT = 5.0
GIOU_WEIGHT = 2.0
MIN_OVERLAP = 0.7  # overlap of boxes whose corners differ by the radius of the heat map

Parts = dict[str, Tensor]
Loss = Callable[[dict[str, Tensor], Tensor], tuple[Tensor, Parts]]


def gaussian_heat_map(boxes: Tensor, grid: int) -> Tensor:
    """Draws a Gaussian at the center cell of each box, with CornerNet's radius for an overlap of 0.7.

    Args:
        boxes: (B, 4), xywh in [0, 1] of the search region.
        grid: cells along a side, g.

    Returns:
        (B, 1, g, g), 1 at the center cell if it lies in the map.
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
    """CornerNet's radius: the smallest of three cases, each divided by 2, as in the published code, instead of 2a."""
    total, area = width + height, width * height
    cases = (  # a, b, c of a r^2 + b r + c = 0
        (1.0, total, area * (1 - MIN_OVERLAP) / (1 + MIN_OVERLAP)),
        (4.0, 2 * total, (1 - MIN_OVERLAP) * area),
        (4 * MIN_OVERLAP, -2 * MIN_OVERLAP * total, (MIN_OVERLAP - 1) * area),
    )
    radii = [(b + (b**2 - 4 * a * c).clamp(min=0).sqrt()) / 2 for a, b, c in cases]
    return torch.stack(radii).amin(dim=0)


def focal_loss(score_map: Tensor, heat_map: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """CornerNet's focal loss: the sum over cells divided by the number of cells that are exactly 1.

    Args:
        score_map: (B, 1, g, g), probabilities within (0, 1).
        heat_map: (B, 1, g, g), the result of `gaussian_heat_map`.
    """
    peak = heat_map.eq(1)
    positive = torch.log(score_map) * (1 - score_map) ** alpha
    negative = torch.log(1 - score_map) * score_map**alpha * (1 - heat_map) ** beta
    return -torch.where(peak, positive, negative).sum() / peak.sum().clamp(min=1)


def iou_and_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalized IoU, (B,) each, of pairs of boxes, (B, 4) xyxy.

    A box with swapped corners, which an untrained corner head may predict, has no area.
    """
    area_a, area_b = ((boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1) for boxes in (a, b))
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    union = area_a + area_b - overlap
    iou = overlap / union
    return iou, iou - (hull - union) / hull


def has_area(boxes: Tensor) -> Tensor:
    """Which boxes, (B, 4) xywh in [0, 1], are finite and have an area inside the search region: (B,) bool."""
    inside = xywh_to_xyxy(boxes).clamp(0.0, 1.0)
    return torch.isfinite(boxes).all(dim=1) & (inside[:, 2:] > inside[:, :2]).all(dim=1)


def center_loss(outputs: dict[str, Tensor], boxes: Tensor) -> tuple[Tensor, Parts]:
    """Loss of a model with a center head: focal + 5 L1 + 2 GIoU.

    Args:
        outputs: outputs of the model: `score_map` (B, 1, g, g) and `pred_boxes` (B, 1, 4), cxcywh.
        boxes: (B, 4), true boxes, xywh in [0, 1] of the search region.

    Returns:
        The loss and its terms: `focal`, `l1`, `giou`, and the mean `iou`.

    Raises:
        ValueError: boxes have another shape, or a number is not finite.
    """
    of_box, parts = _box_loss(outputs, boxes)
    score_map = outputs["score_map"]
    focal = focal_loss(score_map, gaussian_heat_map(boxes, score_map.shape[-1]))
    return focal + of_box, {"focal": focal} | parts


def corner_loss(outputs: dict[str, Tensor], boxes: Tensor) -> tuple[Tensor, Parts]:
    """Loss of a model with a corner head: 5 L1 + 2 GIoU; as `center_loss`, without a score map and `focal`."""
    return _box_loss(outputs, boxes)


LOSSES: dict[str, Loss] = {"center": center_loss, "corner": corner_loss}


def loss_of(model: FERMT) -> Loss:
    """Returns the loss function for the head of a model: a function of its outputs and the true boxes."""
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
