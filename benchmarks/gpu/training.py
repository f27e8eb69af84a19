"""A training step on a GPU: ours beside eager PyTorch and torch.compile, on data that lies on the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from ..training import COMPILED, EAGER, OURS, Training
from .clocks import Machine, Run, Runner, timed

BATCHES = (32, 128)
DTYPE = "bfloat16"  # of autocast
# Runners that take turns; those that compile, for minutes, come last.
RUNNER_GROUPS = ((EAGER, OURS), (OURS, COMPILED, f"{OURS}, {COMPILED}"))
STEPS = 3
TOLERANCE = 0.02  # of the first runner's loss: what a wrong gradient exceeds, and bfloat16 does not


def _step(name: str, batch: int, device: str, losses: list[float]) -> Run:
    """Returns a runner's step; ValueError if the loss after a few steps is far from the first runner's."""
    training = Training(name, "fermt", batch, DTYPE, device)
    losses.append([training.step() for _ in range(STEPS)][-1])
    if not abs(losses[-1] - losses[0]) <= TOLERANCE * abs(losses[0]):
        raise ValueError(f"loss {losses[-1]:.5g} after {STEPS} steps, where {losses[0]:.5g} is expected")
    return training.step


def measure(machine: Machine) -> Iterator[dict[str, Any]]:
    """Yields a line per batch and runner."""
    for names in RUNNER_GROUPS if machine.on_gpu else RUNNER_GROUPS[:1]:
        for batch in BATCHES if machine.on_gpu else (1,):
            losses: list[float] = []
            runners = {name: Runner(partial(_step, name, batch, machine.device, losses), ("waited",)) for name in names}
            shared = {"benchmark": "training step", "dtype": f"{DTYPE} autocast", "batch": batch}
            yield from timed(f"training, B = {batch}", runners, shared, machine)
