"""The optimizer, its learning-rate schedules, and the moving average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn as nn

from ..model import FERMT
from .config import TrainConfig


def build_optimizer(model: FERMT, config: TrainConfig, auxiliary: nn.Module | None = None) -> torch.optim.AdamW:
    """Makes AdamW with two groups: the head with `config.lr`, the backbone with `lr * config.backbone_lr_factor`.

    Heads that are used in training only, `auxiliary`, are trained as the head.
    """
    heads = [*model.box_head.parameters(), *(auxiliary.parameters() if auxiliary else ())]
    groups = [
        {"params": heads, "factor": 1.0},
        {"params": list(model.backbone.parameters()), "factor": config.backbone_lr_factor},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainConfig, step: int) -> float:
    """Sets the learning rates of all groups for step `step` of the run, from 0; returns the head's rate."""
    lr = config.lr * SCHEDULES[config.schedule](config, step)
    if step < config.warmup:
        lr *= (step + 1) / config.warmup
    for group in optimizer.param_groups:
        group["lr"] = lr * group["factor"]
    return lr


def _step(config: TrainConfig, step: int) -> float:
    return config.drop_factor if step >= config.drop_epoch * config.steps_per_epoch else 1.0


def _constant(config: TrainConfig, step: int) -> float:
    return 1.0


def _cosine(config: TrainConfig, step: int) -> float:
    done = min(1.0, step / (config.epochs * config.steps_per_epoch))
    return config.drop_factor + (1 - config.drop_factor) * 0.5 * (1 + math.cos(math.pi * done))


SCHEDULES: dict[str, Callable[[TrainConfig, int], float]] = {"step": _step, "constant": _constant, "cosine": _cosine}


class Average:
    """An exponential moving average of a model's weights, with the model's latest buffers.

    Its decay at step t is at most (1 + t) / (10 + t), so that it soon forgets the first weights.
    """

    def __init__(self, model: FERMT, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves the average towards the weights of `model` after step `step`, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
