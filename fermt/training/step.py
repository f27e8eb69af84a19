"""One training step: gradients of its parts over all processes, and the update if all numbers are finite."""

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
from ..signals import StopRequest
from .batches import Batch
from .config import TrainConfig
from .matching import OUTPUT_KEY, MatchedFERMT, matching_loss
from .optimizer import Average, build_optimizer
from .world import World

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
PLACEHOLDER = (0.25, 0.25, 0.5, 0.5)  # replaces a box without area in a step that will be skipped


class Outcome(NamedTuple):
    """The outcome of a step, the same in every process."""

    values: dict[str, float]  # the loss, its parts, and the norm of the gradient before clipping
    skipped: str  # reason why the weights were not updated, or ""
    harmless: bool  # skipped because float16's loss scale was too large, which is then halved
    interrupted: bool  # a process received a signal to stop
    out_of_time: bool  # the time for this run is over in a process


class Stepper:
    """Trains a model: a call with the parts of a step does the step."""

    def __init__(self, model: FERMT, config: TrainConfig, world: World) -> None:
        self.model, self.config, self.world = model, config, world
        self.loss = loss_of(model)
        self.matched = MatchedFERMT(model).to(world.device) if config.matching else None
        self.wrapped: nn.Module = self.matched or model
        self.optimizer = build_optimizer(model, config, self.matched.heads if self.matched else None)
        if world.size > 1:
            devices = [world.device] if world.device.type == "cuda" else None
            self.wrapped = DistributedDataParallel(self.wrapped, device_ids=devices)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=config.amp == "fp16")
        self.average = Average(model, config.ema) if config.ema else None
        self.stop = StopRequest()  # made in one process, the next outcome says so in all
        self.out_of_time = False  # likewise

    def __call__(self, parts: Sequence[Batch], step: int) -> Outcome:
        """Does step number `step`, from which the model's random numbers are seeded."""
        torch.manual_seed(seed_of(self.config.seed, step, self.world.rank))
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        sums: dict[str, Tensor] = {}
        flaws = torch.zeros(
            2, device=self.world.device
        )  # parts with a box without area, with a loss that is not finite
        for i, batch in enumerate(parts):
            with self._synchronized(last=i == len(parts) - 1):
                values, flawed = self._backward(batch, len(parts))
            flaws += flawed
            sums = {key: sums.get(key, 0) + value for key, value in values.items()}
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_((self.matched or self.model).parameters(), self.config.clip)
        stops = torch.tensor((float(self.stop.number is not None), float(self.out_of_time)), device=norm.device)
        shared = self.world.sum(torch.stack([*sums.values(), *flaws, *stops]))
        *totals, boxes, losses, interrupted, out_of_time, length = torch.cat((shared, norm.detach().view(1))).tolist()
        means = {key: total / self.world.size for key, total in zip(sums, totals, strict=True)}
        skipped = _reason(boxes, losses, length)
        by_scale = bool(skipped) and not boxes and not losses and self.scaler.is_enabled()
        harmless = by_scale and self.scaler.get_scale() > 1
        self._apply(skipped, buffers, step)
        return Outcome(means | {"grad_norm": length}, skipped, harmless, interrupted > 0, out_of_time > 0)

    def autocast(self) -> AbstractContextManager[object]:
        """The autocast context for the model."""
        if self.config.amp == "off":
            return nullcontext()
        return torch.autocast(self.world.device.type, dtype=DTYPES[self.config.amp])

    def _synchronized(self, *, last: bool) -> AbstractContextManager[object]:
        """The context in which gradients are averaged over processes only in the last part."""
        if isinstance(self.wrapped, DistributedDataParallel) and not last:
            return self.wrapped.no_sync()
        return nullcontext()

    def _backward(self, batch: Batch, parts: int) -> tuple[dict[str, Tensor], Tensor]:
        """Adds the gradients of a part; returns its share of the loss terms, and flags for bad boxes and losses.

        The backward pass runs in any case, because other processes wait for the gradients.
        """
        fine = has_area(batch.boxes)
        boxes = torch.where(fine.unsqueeze(1), batch.boxes, batch.boxes.new_tensor(PLACEHOLDER))
        with self.autocast():
            outputs = self.wrapped(batch.template, batch.search)
        loss, pieces = self.loss(outputs, boxes)
        if self.matched:
            matching = matching_loss(outputs[OUTPUT_KEY], boxes, self.model.config)
            loss, pieces = loss + self.config.matching * matching, pieces | {"matching": matching}
        self.scaler.scale(loss / parts).backward()
        values = {key: value.detach() / parts for key, value in ({"loss": loss} | pieces).items()}
        return values, torch.stack((~fine.all(), ~torch.isfinite(loss.detach()))).float()

    def _apply(self, skipped: str, buffers: Sequence[Tensor], step: int) -> None:
        if skipped:
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)  # undoes the batch norms' update
        else:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average and not skipped:
            self.average.update(self.model, step)


def seed_of(*numbers: int) -> int:
    """Combines several numbers into a seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _reason(boxes: float, losses: float, norm: float) -> str:
    if boxes:
        return "a box has no area inside the search region, or is not finite"
    if losses:
        return "the loss is not finite"
    if not np.isfinite(norm):
        return "the gradient is not finite"
    return ""
