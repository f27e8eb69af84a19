"""Times of the ops on a GPU and of their peers, and the tables."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import cases
from ..cases import OURS, OpCase, Run
from ..harness import markdown
from ..ops import PASSES, calls
from .clocks import Machine, Runner, timed
from .work import H200, Ceilings, Work, op_work

BATCHES = (1, 128)
COLUMNS = ("case", "dtype", "pass", "timing", "ours ms", "fastest peer", "ms", "ratio", "of floor", "floor by", "MB")
CLOCKS = ("cold graph", "graph")


def _cases(small: bool) -> list[OpCase]:
    """What is measured."""
    if small:
        return [cases.AttentionCase("mixed", 1, n=8, tokens=24), cases.UnitCase(16, 1)]
    attention = [cases.AttentionCase(pattern, batch) for pattern in ("mixed", "cross") for batch in BATCHES]
    return [*attention, *(cases.UnitCase(256, batch) for batch in BATCHES), cases.LONG_CASES[-1]]


def _compiled(case: OpCase) -> dict[str, Run]:
    """Ours, and what `torch.compile` makes: one for each case, for a compiled function remembers all that it was."""
    runs = case.runners()
    if isinstance(case, cases.AttentionCase):
        runs["FlexAttention"] = partial(cases.flex_attention, case=case)
    chosen = {name: runs[name] for name in (OURS, "FlexAttention") if name in runs}
    return chosen | {"torch.compile": torch.compile(runs["eager"], dynamic=False)}


def _runners(runs: dict[str, Run], inputs: list[Tensor], what: str) -> dict[str, Runner]:
    return {name: Runner.of(call.run, CLOCKS) for name, call in calls(runs, inputs, what).items()}


def measure(machine: Machine, compiled: bool = False) -> Iterator[dict[str, Any]]:
    """Yields a line per case, pass, clock and runner: ours and the eager peers, or ours and the compiled ones."""
    dtype = torch.bfloat16 if machine.on_gpu else torch.float32
    for case in _cases(small=not machine.on_gpu):
        runs = _compiled(case) if compiled else case.runners()
        inputs = [t.to(machine.device) for t in case.inputs(dtype)]
        for what in PASSES:
            short = str(dtype).removeprefix("torch.")
            shared = {"benchmark": "ops", "case": case.name, "dtype": short, "pass": what}
            shared |= op_work(case, dtype, what == "both")._asdict()
            yield from timed(f"{case.name}, {short}, {what}", _runners(runs, inputs, what), shared, machine)


def launch_all() -> None:
    """Runs ours once in every case and pass, so that its launches can be recorded."""
    for case in _cases(small=False):
        inputs = [t.to(torch.bfloat16).requires_grad_() for t in case.inputs(torch.bfloat16)]
        case.runners()[OURS](*inputs).sum().backward()


def table(lines: list[dict[str, Any]], ceilings: Ceilings) -> str:
    """A markdown table: ours, the fastest peer, the ratio, and the fraction of the tightest floor that ours reaches."""
    found: dict[tuple, dict[str, dict[str, Any]]] = {}
    for line in lines:
        key = tuple(line[name] for name in ("case", "dtype", "pass", "timing"))
        found.setdefault(key, {})[line["runner"]] = line
    rows = []
    for key, runners in found.items():
        ours = runners.get(OURS, {})
        peers = {name: line for name, line in runners.items() if name != OURS and "seconds" in line}
        if "seconds" not in ours or not peers:
            rows.append([*key, *["-"] * (len(COLUMNS) - len(key))])
            continue
        fastest = min(peers, key=lambda name: peers[name]["seconds"])
        floor, by = ceilings.floor(Work(ours["bytes"], ours["flops"], ours["exponentials"]))
        cells = [f"{ours['seconds'] * 1e3:.3f}", fastest, f"{peers[fastest]['seconds'] * 1e3:.3f}"]
        cells += [f"{peers[fastest]['against_ours']:.2f}x", f"{floor / ours['seconds']:.0%}", by]
        rows.append([*key, *cells, "-" if ours["megabytes"] is None else f"{ours['megabytes']:.1f}"])
    return markdown(COLUMNS, rows)


def estimate() -> str:
    """The floors of every case from counted bytes and operations, for a machine that is not here."""
    rows = []
    for case in _cases(small=False):
        for what in PASSES:
            work = op_work(case, torch.bfloat16, what == "both")
            floor, by = H200.floor(work)
            numbers = (work.bytes / 1e6, work.flops / 1e9, work.exponentials / 1e9, floor * 1e3)
            rows.append([case.name, "bfloat16", what, *(f"{number:.3g}" for number in numbers), by])
    headings = ("case", "dtype", "pass", "MB", "GFLOP", "1e9 exp", f"floor ms ({H200.origin})", "by")
    return markdown(headings, rows)
