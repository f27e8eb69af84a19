"""Frames a second of the model and of tracking, for each backend and for other people's runtimes, in one run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

import fermt
from fermt.data import normalize
from fermt.tracking.sources import open_source
from fermt_kernels.backends import resolve
from fermt_kernels.testing import inaccuracy

from . import machine
from .harness import Case, Timing, interleave
from .peers import DECODED, PEERS, PeerMissingError, Run, plain_model
from .progress import Progress

ROOT = Path(__file__).parents[1]
CLIP, TARGET = ROOT / "examples" / "basketball.mp4", (372.0, 108.0, 125.0, 240.0)
EAGER = "eager PyTorch"
QUICK_SECONDS = 0.5  # for each runner and table
CHECK_SECONDS = 8.0  # of building the runners and comparing them with float64


def ours(model: fermt.FERMT, backend: str) -> fermt.FERMT:
    """The same weights with every kernel on `backend`."""
    other = fermt.build_model(model.config, backend=backend).eval()
    other.load_state_dict(model.state_dict())
    return other


def contenders(model: fermt.FERMT, threads: int, console: Console) -> tuple[dict[str, Run], dict[str, fermt.FERMT]]:
    """What is measured: every runner by name, and those that are modules, which can also track."""
    modules = {EAGER: plain_model(model)}
    modules |= {
        f"fermt, {name}": ours(model, backend) for name, backend in (("reference ops", "reference"), ("auto", "auto"))
    }
    runs: dict[str, Run] = dict(modules)
    for name, build in PEERS.items():
        try:
            runs[name] = build(model, threads)
        except PeerMissingError as reason:
            console.print(f"{name}: left out, {reason}", highlight=False, markup=False)
    return runs, modules


def accurate(
    runs: dict[str, Run], model: fermt.FERMT, images: tuple[Tensor, Tensor], console: Console
) -> dict[str, Run]:
    """The runners whose every output obeys the accuracy rule; the others are named and get no number."""
    truth = plain_model(model).double()(*(image.double() for image in images))
    eager = runs[EAGER](*images)
    passed = {}
    for name, run in runs.items():
        outputs = run(*images)
        reasons = [
            f"{key}: {reason}"
            for key, value in outputs.items()
            if key not in DECODED and (reason := inaccuracy(value, eager[key], truth[key]))
        ]
        if reasons:
            console.print(
                f"{name}: no number, its result is wrong ({'; '.join(reasons)})", highlight=False, markup=False
            )
        else:
            passed[name] = run
    return passed


def tracking_case(module: fermt.FERMT, first: Any, second: Any) -> Case:
    """One `Tracker.update` on a frame in memory; the tracker starts anew, untimed, so that each call does the same."""
    tracker = fermt.Tracker(module)
    return Case(lambda: tracker.update(second), prepare=lambda: tracker.init(first, TARGET))


def report(title: str, timings: dict[str, Timing]) -> Table:
    table = Table(title=title, box=box.SIMPLE)
    table.add_column("runner")
    for heading in ("frames/s", "median ms", "p20-p80 ms", "against eager"):
        table.add_column(heading, justify="right")
    for name, timing in timings.items():
        table.add_row(
            name,
            f"{timing.per_second():.1f}",
            f"{timing.median * 1e3:.2f}",
            f"{timing.p20 * 1e3:.2f}-{timing.p80 * 1e3:.2f}",
            f"{timings[EAGER].median / timing.median:.2f}x",
        )
    return table


@torch.inference_mode()
def main(
    config: Annotated[str, typer.Option(help=f"One of {', '.join(fermt.CONFIGS)}.")] = "fermt",
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to spend on each runner and each table.")] = 5.0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads for everyone; 0 leaves torch's own choice.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Half a second for each runner and table.")] = False,
    out: Annotated[Path | None, typer.Option(help="Append one JSON line a measurement to this file.")] = None,
) -> None:
    """Frames a second at batch 1 in float32, on the CPU: the model alone, and a whole tracking step.

    Every runner's outputs are checked against float64 first, and then all runners are timed in turns. "Model" is one
    forward pass over a template and a search region, both encoded each time. "Tracking" is one Tracker.update on a
    frame in memory: crop, normalise, model, decode. Reading the video is timed apart.
    """
    console = Console()
    if threads:
        torch.set_num_threads(threads)
    facts = machine.facts()
    console.print(machine.headline(facts), highlight=False)
    seconds = min(seconds, QUICK_SECONDS) if quick else seconds
    # The plain model and two of ours in both tables; each peer that is installed is in one.
    progress = Progress(f"latency of {config}: two tables", 3, CHECK_SECONDS + seconds * (2 * 3 + len(PEERS)))
    torch.manual_seed(0)
    model = fermt.build_model(config).eval()
    start = time.perf_counter()
    frames = list(open_source(CLIP))
    reading = (time.perf_counter() - start) / len(frames)
    template, search = (
        normalize(frames[0][:side, :side]) for side in (model.config.template_size, model.config.search_size)
    )
    images = (template, search)

    runs, modules = contenders(model, torch.get_num_threads(), console)
    passed = accurate(runs, model, images, console)
    progress.step(f"{len(runs)} runners built and compared with float64")
    forward = {name: Case(partial(run, *images)) for name, run in passed.items()}
    steps = {name: tracking_case(module, *frames[:2]) for name, module in modules.items() if name in passed}
    turns = partial(interleave, seconds=seconds, progress=progress, quick=quick)
    tables: dict[str, Callable[[], dict[str, Timing]]] = {
        "model": lambda: turns(forward, name="model"),
        "tracking": lambda: turns(steps, name="tracking"),
    }
    lines = []
    for name, measure in tables.items():
        timings = measure()
        console.print(report(f"{name}: {config}, float32, batch 1", timings))
        lines += [
            {
                "benchmark": f"latency/{name}",
                "config": config,
                "dtype": "float32",
                "batch": 1,
                "runner": runner,
            }
            | timing._asdict()
            | facts
            for runner, timing in timings.items()
        ]
    console.print(f"Reading the clip, not in the above: {reading * 1e3:.2f} ms a frame.", highlight=False)
    console.print(
        "fermt, auto runs: "
        + "; ".join(
            f"{op} on {resolve(op, 'auto', 'cpu', torch.float32, False)}" for op in ("attention", "dual_attention_unit")
        ),
        highlight=False,
    )
    if out is not None:
        with out.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


if __name__ == "__main__":
    typer.run(main)
