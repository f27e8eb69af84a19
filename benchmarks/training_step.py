"""A training step of the whole model on the CPU: ours beside plain PyTorch, and whether the losses stay together."""

from __future__ import annotations

import copy
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

import fermt
from fermt.losses import center_loss

from . import machine
from .harness import Case, interleave
from .latency import EAGER
from .peers import plain_model

OURS = "fermt, auto"


class Training:
    """One model under SGD on fixed random data; `step()` gives the loss.

    Not AdamW: biases before a batch norm have a gradient of 0 but for rounding, which AdamW scales up to whole steps.
    """

    def __init__(self, model: fermt.FERMT, batch: int, autocast: bool) -> None:
        self.model, self.autocast = model.train(), autocast
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        generator = torch.Generator().manual_seed(0)
        sizes = (model.config.template_size, model.config.search_size)
        self.images = [torch.randn(batch, 3, size, size, generator=generator) for size in sizes]
        self.boxes = torch.rand(batch, 4, generator=generator) * 0.3 + 0.2

    def step(self) -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16) if self.autocast else nullcontext():
            outputs = self.model(*self.images)
        loss, _ = center_loss(outputs, self.boxes)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()


def main(
    batch: Annotated[int, typer.Option(min=1, help="Pairs of template and search region a step.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps over which the losses are compared.")] = 20,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to spend on each runner.")] = 20.0,
    out: Annotated[Path | None, typer.Option(help="Append one JSON line a measurement to this file.")] = None,
) -> None:
    """Time of a training step (forward, loss, backward, SGD) in float32 and under bfloat16 autocast, on the CPU.

    Both models start from the same weights and see the same data; the table shows how far their losses are apart after
    the last step.
    """
    console = Console()
    facts = machine.facts()
    console.print(machine.headline(facts), highlight=False)
    table = Table(title=f"Training step, batch {batch}; bfloat16 is autocast", box=box.SIMPLE)
    for heading in ("dtype", "eager ms", "ours ms", "ours is", f"loss after {steps} steps, eager", "ours"):
        table.add_column(heading, justify="right")
    lines = []
    for dtype, autocast in (("float32", False), ("bfloat16", True)):
        torch.manual_seed(0)
        model = fermt.build_model("fermt", drop_path=0.0)
        runners = {
            EAGER: Training(plain_model(model), batch, autocast),
            OURS: Training(copy.deepcopy(model), batch, autocast),
        }
        losses = {name: [runner.step() for _ in range(steps)][-1] for name, runner in runners.items()}
        timings = interleave(
            {name: Case(runner.step) for name, runner in runners.items()}, seconds=seconds, repeats=1, least_rounds=3
        )
        eager, ours = (timings[name].median for name in (EAGER, OURS))
        table.add_row(
            dtype,
            f"{eager * 1e3:.0f}",
            f"{ours * 1e3:.0f}",
            f"{eager / ours:.2f}x",
            *(f"{losses[name]:.4f}" for name in (EAGER, OURS)),
        )
        lines += [
            {"benchmark": "training_step", "dtype": dtype, "batch": batch, "runner": name, "loss": losses[name]}
            | timing._asdict()
            | facts
            for name, timing in timings.items()
        ]
    console.print(table)
    if out is not None:
        with out.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


if __name__ == "__main__":
    typer.run(main)
