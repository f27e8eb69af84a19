"""One training step: its parts, their gradients over all processes, and whether it may change the weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..losses import has_area, loss_of
from ..model import FERMT
from .batches import Batch
from .config import TrainConfig
from .optimizer import Average
from .world import World

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
PLACEHOLDER = (0.25, 0.25, 0.5, 0.5)  # for a box without area, in a step that is skipped


class Outcome(NamedTuple):
    """What a step did, the same in every process."""

    values: dict[str, float]  # the loss, its parts, and the norm of the gradient before clipping
    skipped: str  # why the weights stayed as they were, or ""
    harmless: bool  # skipped because float16's loss scale was too large, which is then halved
    interrupted: bool  # some process was asked to stop


class Stepper:
    """A model, its optimizer, and what goes with them; called with the parts of a step, it trains."""

    def __init__(self, model: FERMT, optimizer: torch.optim.Optimizer, config: TrainConfig, world: World) -> None:
        self.model, self.optimizer, self.config, self.world = model, optimizer, config, world
        self.loss = loss_of(model)
        self.wrapped: nn.Module = model
        if world.size > 1:
            devices = [world.device] if world.device.type == "cuda" else None
            self.wrapped = DistributedDataParallel(model, device_ids=devices)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.amp == "fp16")
        self.average = Average(model, config.ema) if config.ema else None
        self.interrupted = False  # set it, and the next outcome says so in every process

    def __call__(self, parts: Sequence[Batch], step: int) -> Outcome:
        """Trains on the parts of step number `step`, which seeds what is random in the model."""
        torch.manual_seed(seed_of(self.config.seed, step, self.world.rank))
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        sums: dict[str, Tensor] = {}
        flaws = torch.zeros(2, device=self.world.device)  # boxes without area, losses that are not finite
        for i, batch in enumerate(parts):
            with self._synchronised(last=i == len(parts) - 1):
                values, flawed = self._backward(batch, len(parts))
            flaws += flawed
            sums = {key: sums.get(key, 0) + value for key, value in values.items()}
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        asked = torch.tensor(float(self.interrupted), device=norm.device)
        told = self.world.sum(torch.stack([*sums.values(), *flaws, asked]))
        *totals, boxes, losses, interrupted, length = torch.cat((told, norm.detach().view(1))).tolist()
        means = {key: total / self.world.size for key, total in zip(sums, totals, strict=True)}
        skipped = _reason(boxes, losses, length)
        by_scale = bool(skipped) and not boxes and not losses and self.scaler.is_enabled()
        harmless = by_scale and self.scaler.get_scale() > 1
        self._apply(skipped, buffers)
        return Outcome(means | {"grad_norm": length}, skipped, harmless, interrupted > 0)

    def autocast(self) -> AbstractContextManager[object]:
        """What the model runs under."""
        if self.config.amp == "off":
            return nullcontext()
        return torch.autocast(self.world.device.type, dtype=DTYPES[self.config.amp])

    def _synchronised(self, *, last: bool) -> AbstractContextManager[object]:
        """Gradients of all processes are added up once, in the last part."""
        if isinstance(self.wrapped, DistributedDataParallel) and not last:
            return self.wrapped.no_sync()
        return nullcontext()

    def _backward(self, batch: Batch, parts: int) -> tuple[dict[str, Tensor], Tensor]:
        """Adds a part's gradients; its share of the loss and the loss's parts, and whether they have the two flaws.

        A flawed part goes the whole way nevertheless: other processes wait for its gradients.
        """
        fine = has_area(batch.boxes)
        boxes = torch.where(fine.unsqueeze(1), batch.boxes, batch.boxes.new_tensor(PLACEHOLDER))
        with self.autocast():
            outputs = self.wrapped(batch.template, batch.search)
        loss, pieces = self.loss(outputs, boxes)
        self.scaler.scale(loss / parts).backward()
        values = {key: value.detach() / parts for key, value in ({"loss": loss} | pieces).items()}
        return values, torch.stack((~fine.all(), ~torch.isfinite(loss.detach()))).float()

    def _apply(self, skipped: str, buffers: Sequence[Tensor]) -> None:
        if skipped:
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)  # the batch norms have seen the bad batch, too
        else:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average and not skipped:
            self.average.update(self.model)


def seed_of(*numbers: int) -> int:
    """One seed of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _reason(boxes: float, losses: float, norm: float) -> str:
    if boxes:
        return "a box has no area inside the search region, or is not finite"
    if losses:
        return "the loss is not finite"
    if not np.isfinite(norm):
        return "the gradient is not finite"
    return ""
