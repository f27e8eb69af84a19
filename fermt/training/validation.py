"""Validation: overlap of predicted boxes on held-out pairs, and that of a constant box as a baseline."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor

from fermt_kernels.modes import evaluating

from ..boxes import cxcywh_to_xyxy, xywh_to_xyxy
from ..data.pairs import PairSource
from ..losses import has_area, iou_and_giou
from ..model import FERMT
from ..tracking.network import hann_window
from .batches import load, validation_indices
from .config import TrainConfig
from .world import World


class Validation(NamedTuple):
    """Means over held-out pairs."""

    iou: float  # of the decoded box
    ao: float  # average overlap of boxes decoded under the window, as in tracking
    success50: float  # share of pairs whose `ao` overlap is above 0.5
    success75: float
    center: float  # IoU of a square in the middle with the target's mean size: the baseline without training


@torch.no_grad()
def validate(
    model: FERMT, source: PairSource, config: TrainConfig, world: World, autocast: AbstractContextManager[object]
) -> Validation:
    """Validates a model on the first `config.validation_pairs` pairs of epoch 0, divided among the processes.

    Raises:
        ValueError: no pair has a box with an area.
    """
    window = hann_window(model.config.search_grid).to(world.device)
    totals = torch.zeros(len(Validation._fields) + 1, dtype=torch.float64, device=world.device)
    indices = validation_indices(config, world, min(config.validation_pairs, len(source)))
    for batch in load(source, 0, indices, config.workers, world):
        with autocast, evaluating(model):
            outputs = model(batch.template, batch.search)
        tracked = model.box_head.decode(outputs, window)
        center = _center_box(model).to(batch.boxes).expand_as(batch.boxes)
        predicted = (outputs["pred_boxes"].squeeze(1), tracked, center)
        iou, ao, middle = (_overlap(boxes, batch.boxes) for boxes in predicted)
        rows = torch.stack((iou, ao, (ao > 0.5).to(ao), (ao > 0.75).to(ao), middle, torch.ones_like(ao)))
        totals += rows[:, has_area(batch.boxes)].double().sum(dim=1)
    *sums, count = world.sum(totals).tolist()
    if not count:
        raise ValueError("no pair to validate on has a box with an area inside the search region")
    return Validation(*(total / count for total in sums))


def _center_box(model: FERMT) -> Tensor:
    side = 1 / model.config.search_factor
    return torch.tensor([[0.5, 0.5, side, side]], dtype=torch.float32, device="cpu")


def _overlap(predicted: Tensor, truth: Tensor) -> Tensor:
    """IoU, (B,), of predicted (cxcywh) and true (xywh) boxes, clipped to the search region."""
    a, b = (boxes.clamp(0.0, 1.0) for boxes in (cxcywh_to_xyxy(predicted.float()), xywh_to_xyxy(truth)))
    return iou_and_giou(a, b)[0]
