"""How calls on a GPU are timed beside one another, and the table of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.console import Console

from . import gpu_timing
from .peers_ops import OURS

Run = Callable[[], object]
CLOCKS: dict[str, Callable[[Run], float]] = {
    "waited": gpu_timing.waited,
    "streamed": gpu_timing.streamed,
    "graph": partial(gpu_timing.graphed, calls=5),
    "cold graph": gpu_timing.graphed_cold,
}
BY_THE_WALL = ("waited", "streamed")  # for calls that end on the CPU, or are graphs already: those cannot be captured
CAPTION = (
    "Milliseconds, and times as long as ours. waited: from a call to the end of its work, by the wall clock. streamed: "
    "calls one after the other, none waited for. graph: captured, without the CPU's share. cold graph: the same, the "
    "L2 cache overwritten before each. Frames per second: streamed, where that is measured."
)


class Runner(NamedTuple):
    """Makes a call that is to be timed, and says by which clocks."""

    build: Callable[[], Run]
    clocks: tuple[str, ...]


def timed(
    runners: dict[str, Runner], shared: dict[str, Any], device: str, console: Console
) -> Iterator[dict[str, Any]]:
    """A line a runner and clock, `shared` in each; a peer that fails says why in place of a time, ours raises."""
    for name, runner in runners.items():
        run: Run | None = None
        failed = ""
        for clock in runner.clocks:
            line = shared | {"runner": name, "timing": clock}
            try:
                if not failed:  # what could not be made is not made again
                    run = run or runner.build()
                    line["seconds"] = CLOCKS[clock](run) if device == "cuda" else gpu_timing.clocked(run, calls=1)
            except Exception as error:  # a peer that cannot run this is a result, with its reason
                if name.startswith(OURS):
                    raise
                line["failed"] = f"{type(error).__name__}: {str(error)[:200]}"
                failed = "" if run else line["failed"]
            else:
                line |= {"failed": failed} if failed else {}
            told = line.get("failed") or f"{line['seconds'] * 1e3:.4f} ms"
            head = f"{shared['benchmark']}, {shared['dtype']}, B = {shared['batch']}, {name}, {clock}"
            console.print(f"{head}: {told}", highlight=False, markup=False, soft_wrap=True)
            yield line
        del run
        if device == "cuda":
            torch.cuda.empty_cache()


def table(lines: list[dict[str, Any]]) -> str:
    """A markdown table: a row a runner, a column a clock; frames a second for each of its targets, and for all.

    Ours, by a clock, is the first of ours in the lines that has it.
    """
    rows: dict[tuple, dict[str, dict[str, Any]]] = {}
    ours: dict[tuple, float] = {}
    for line in lines:
        group = tuple(line[name] for name in ("benchmark", "dtype", "batch"))
        rows.setdefault((group, line["runner"]), {})[line["timing"]] = line
        if line["runner"].startswith(OURS):
            ours.setdefault((group, line["timing"]), line["seconds"])
    headings = ("what", "dtype", "B", "runner", *CLOCKS, "frames/s a target", "frames/s of all")
    text = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    for (group, runner), found in rows.items():
        seconds = {clock: line["seconds"] for clock, line in found.items() if "seconds" in line}
        cells = [*map(str, group), runner]
        for clock in CLOCKS:
            missing = "failed" if clock in found else "-"
            time = f"{seconds[clock] * 1e3:.3f}, {seconds[clock] / ours[group, clock]:.2f}x" if clock in seconds else ""
            cells.append(time or missing)
        rate = next((1 / seconds[clock] for clock in ("streamed", "waited", "graph") if clock in seconds), 0.0)
        text.append("| " + " | ".join([*cells, f"{rate:.0f}", f"{rate * group[2]:.0f}"]) + " |")
    failed = {(line["runner"], line["failed"]) for line in lines if "failed" in line}
    return "\n".join([*text, "", CAPTION, *(f"{runner} failed: {reason}" for runner, reason in sorted(failed))])
