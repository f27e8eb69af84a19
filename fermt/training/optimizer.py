"""AdamW in two groups, its learning rate by epoch, and the average of the weights."""

from __future__ import annotations

import copy

import torch
import torch.nn as nn

from ..model import FERMT
from .config import TrainConfig


def build_optimizer(model: FERMT, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the head, at `config.lr`, and the backbone, at that times `config.backbone_lr_factor`."""
    groups = [
        {"params": list(model.box_head.parameters()), "factor": 1.0},
        {"params": list(model.backbone.parameters()), "factor": config.backbone_lr_factor},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, epoch: int) -> float:
    """Gives each group its rate for `epoch`, which counts from 0; returns the head's."""
    lr = config.lr * (config.drop_factor if epoch >= config.drop_epoch else 1.0)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
    return lr


class Average:
    """An exponential moving average of a model's weights; its buffers are the model's latest."""

    def __init__(self, model: FERMT, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - self.decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
