"""A training step of the whole model, ours and in plain PyTorch and torch.compile: time, memory and losses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated

import torch
import torch.nn as nn
import typer
from rich.console import Console

import fermt
from fermt.export import plain_model
from fermt.losses import loss_of

from .gpu.clocks import peak_megabytes
from .harness import (
    Case,
    Out,
    Threads,
    append,
    facts,
    headline,
    in_process,
    interleave,
    names_among,
    run_command,
    start_progress,
    table,
)
from .memory import peak_above
from .peers import on_backend

EAGER = "eager PyTorch"
OURS, COMPILED = "fermt, auto", "torch.compile"
RUNNERS: dict[str, Callable[[fermt.FERMT], nn.Module]] = {
    EAGER: plain_model,
    "fermt, reference ops": lambda model: on_backend(model, "reference"),
    OURS: copy.deepcopy,
    COMPILED: lambda model: _compiled(plain_model(model)),
    f"{OURS}, {COMPILED}": lambda model: _compiled(copy.deepcopy(model)),
}
LEARNING_RATE = 2e-5  # low enough that rounding stays rounding over the steps compared
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}  # of autocast
QUICK_BATCH, QUICK_STEPS, QUICK_SECONDS = 2, 2, 1.0
PAIR_SECONDS = 0.3  # of a pair in a step, of the mean runner and dtype


class Training:
    """One model under SGD on fixed random data; `step()` gives the loss.

    Not AdamW: biases before a batch norm have a gradient of 0 but for rounding, which AdamW scales up to whole steps.
    """

    def __init__(self, name: str, config: str, batch: int, dtype: str, device: str) -> None:
        torch.manual_seed(0)
        model = fermt.build_model(config, drop_path=0.0)
        self.loss, self.dtype, self.device = loss_of(model), DTYPES[dtype], device
        self.model = RUNNERS[name](model.to(device)).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=0.9)
        generator = torch.Generator().manual_seed(0)
        sizes = (model.config.template_size, model.config.search_size)
        self.images = [torch.randn(batch, 3, size, size, generator=generator).to(device) for size in sizes]
        self.boxes = (torch.rand(batch, 4, generator=generator) * 0.3 + 0.2).to(device)

    def step(self) -> float:
        with torch.autocast(self.device, dtype=self.dtype) if self.dtype else nullcontext():
            outputs = self.model(*self.images)
        loss, _ = self.loss(outputs, self.boxes)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()  # waits for a GPU


def _compiled(model: nn.Module) -> nn.Module:
    model.compile()
    return model


def peak(name: str, config: str, batch: int, dtype: str, device: str) -> float:
    """MB of a step at its peak, on a CPU beyond what the process held before; measured in a separate process."""
    values = (("--only", name), ("--config", config), ("--batch", str(batch)), ("--peak", dtype), ("--device", device))
    return float(in_process("benchmarks.training", *(text for pair in values for text in pair)))


def main(
    batch: Annotated[int, typer.Option(min=1, help="Pairs of template and search region per step.")] = 8,
    config: Annotated[str, typer.Option(help=f"One of {', '.join(fermt.CONFIGS)}.")] = "fermt",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    steps: Annotated[int, typer.Option(min=1, help="Steps over which the losses are compared.")] = 20,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to spend on each runner.")] = 20.0,
    threads: Threads = 0,
    compiled: Annotated[bool, typer.Option(help="Also torch.compile, which compiles for minutes.")] = True,
    memory: Annotated[bool, typer.Option(help="Also peak memory, in separate processes; Linux, or a GPU.")] = True,
    dtypes: Annotated[
        str, typer.Option(help="Dtypes to measure, with commas between them; bfloat16 is autocast.")
    ] = ",".join(DTYPES),
    only: Annotated[str, typer.Option(help="Only the runners whose names contain this, and eager.")] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Under a minute: two pairs, two steps, nothing compiled, no memory.")
    ] = False,
    out: Out = None,
    peak_of: Annotated[str, typer.Option("--peak", hidden=True)] = "",
) -> None:
    """Measure a training step (forward, loss, backward, SGD): time and memory, in float32 and under bfloat16 autocast.

    All runners start from the same weights and get the same data, which is on the device. The table has their losses
    after the last step, which should agree.

    Example: python -m benchmarks.training --quick
    """
    if threads:
        torch.set_num_threads(threads)
    if peak_of:
        print(_peak_here(only, config, batch, peak_of, device))
        return
    chosen = names_among("--dtypes", dtypes, DTYPES)
    console, about = Console(), facts()
    if device != "cpu":
        about["gpu"] = torch.cuda.get_device_name()
    console.print(headline(about), highlight=False)
    if quick:
        batch, steps, seconds = min(batch, QUICK_BATCH), min(steps, QUICK_STEPS), min(seconds, QUICK_SECONDS)
        compiled = memory = False
    names = [name for name in RUNNERS if name == EAGER or (only in name and (compiled or COMPILED not in name))]
    progress = start_progress(
        f"training of {config}, batch {batch}: {steps} steps of {len(names)} runners, then their time"
        + (" and memory" if memory else ""),
        len(chosen) * (len(names) + 1),
        len(chosen) * len(names) * (seconds + batch * (steps + 2 * memory + 4) * PAIR_SECONDS),
    )
    lines = []
    for dtype in chosen:
        runners, losses = {}, {}
        for name in names:
            runners[name] = Training(name, config, batch, dtype, device)
            for done in range(steps):
                losses[name] = runners[name].step()
                progress.note(f"{name}, {dtype}: {done + 1} of {steps} steps")
            progress.step(f"{name}, {dtype}: loss {losses[name]:.4f} after {steps} steps")
        timings = interleave(
            {name: Case(runner.step) for name, runner in runners.items()},
            seconds=seconds,
            repeats=1,
            least_rounds=2 if quick else 3,
            name=dtype,
            progress=progress,
        )
        del runners
        made = table(
            f"Training step of {config}, batch {batch}, {dtype}, {device}",
            ("runner", "median ms", "p20-p80 ms", "against eager", "peak MB", f"loss after {steps} steps"),
        )
        for name, timing in timings.items():
            measurable = memory and (device != "cpu" or COMPILED not in name)  # compiling itself takes more on a CPU
            megabytes = peak(name, config, batch, dtype, device) if measurable else None
            if megabytes is not None:
                progress.say(f"{name}, {dtype}: peak {megabytes:.0f} MB")
            made.add_row(
                name,
                *timing.cells(0),
                f"{timings.ratio(EAGER, name):.2f}x",
                "" if megabytes is None else f"{megabytes:.0f}",
                f"{losses[name]:.4f}",
            )
            line = {"benchmark": "training", "config": config, "dtype": dtype, "batch": batch, "device": device}
            line |= {"runner": name, "loss": losses[name], "megabytes": megabytes}
            lines.append(line | timing._asdict())
        console.print(made)
    append(out, lines, about)


def _peak_here(name: str, config: str, batch: int, dtype: str, device: str) -> float:
    if device != "cpu":
        return peak_megabytes(Training(name, config, batch, dtype, device).step)
    Training(name, config, 1, dtype, device).step()  # loads libraries and starts threads
    return peak_above(Training(name, config, batch, dtype, device).step)


if __name__ == "__main__":
    run_command(main)
