"""The ops on a GPU: what is measured, beside what, and the tables of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from . import cases, gpu_timing, peers_ops, roofline
from .peers_ops import OURS

BATCHES = (1, 32, 128)
COLUMNS = ("case", "dtype", "pass", "timing", "ours ms", "fastest peer", "ms", "ratio", "of floor", "floor by", "MB")
Runs = dict[str, Callable[..., Tensor]]


def _cases(small: bool) -> list[tuple[Any, Callable[..., roofline.Work]]]:
    """What is measured, and how its work is counted."""
    if small:
        return [
            (cases.AttentionCase("mixed", 1, n=8, tokens=24), roofline.attention_work),
            (cases.UnitCase(16, 1), roofline.unit_work),
        ]
    attention = (*(cases.AttentionCase(p, b) for p in ("mixed", "cross") for b in BATCHES), cases.LONG[-1])
    return [
        *((case, roofline.attention_work) for case in attention),
        *((cases.UnitCase(256, batch), roofline.unit_work) for batch in BATCHES),
    ]


def _runners(case: Any, compiled: bool) -> Runs:
    if isinstance(case, cases.UnitCase):
        more = {"torch.compile": torch.compile(peers_ops.eager_unit, dynamic=False)} if compiled else {}
        return peers_ops.UNIT | more
    attention = dict(peers_ops.ATTENTION)
    if compiled:
        attention["FlexAttention"] = peers_ops.flex_attention
        attention["torch.compile"] = torch.compile(peers_ops.eager_attention, dynamic=False)
    return {name: partial(run, case=case) for name, run in attention.items()}


def _calls(runs: Runs, inputs: list[Tensor], both: bool) -> dict[str, Callable[[], object]]:
    if not both:
        return {name: partial(torch.no_grad()(run), *inputs) for name, run in runs.items()}
    leaves = [t.detach().requires_grad_() for t in inputs]
    grad = torch.randn_like(runs["eager"](*inputs))

    def both_passes(run: Callable[..., Tensor]) -> object:
        return torch.autograd.grad(run(*leaves), leaves, grad)

    return {name: partial(both_passes, run) for name, run in runs.items()}


def measure(device: str, console: Console) -> Iterator[dict[str, Any]]:
    """One line a case, dtype, pass, timing and runner; a runner that fails says why in place of a time."""
    on_gpu = device == "cuda"
    clocks = {"cold L2": gpu_timing.cold, "CUDA graph": gpu_timing.graphed}
    timings = clocks if on_gpu else {"wall": gpu_timing.clocked}
    dtypes = (torch.bfloat16, torch.float32) if on_gpu else (torch.float32,)
    for case, work in _cases(small=not on_gpu):
        runs = _runners(case, compiled=on_gpu)
        for dtype in dtypes:
            inputs = [t.to(device) for t in case.inputs(dtype)]
            for both in (False, True):
                shared = {
                    "case": case.name,
                    "dtype": str(dtype).removeprefix("torch."),
                    "pass": "both" if both else "forward",
                } | work(case, dtype, both)._asdict()
                console.print(f"{shared['case']}, {shared['dtype']}, {shared['pass']}", highlight=False)
                for name, run in _calls(runs, inputs, both).items():
                    for timing, clock in timings.items():
                        line = shared | {"timing": timing, "runner": name}
                        try:
                            line["seconds"] = clock(run)
                            line["megabytes"] = gpu_timing.peak_megabytes(run) if on_gpu else None
                        except Exception as error:  # a peer that cannot run this is a result, with its reason
                            if name == OURS:
                                raise
                            line["failed"] = f"{type(error).__name__}: {str(error)[:200]}"
                        yield line


def table(lines: list[dict[str, Any]], ceilings: roofline.Ceilings) -> str:
    """A markdown table: ours, the fastest peer, the ratio, and the fraction of the tightest floor that ours reaches."""
    rows: dict[tuple, dict[str, dict[str, Any]]] = {}
    for line in lines:
        key = tuple(line[name] for name in ("case", "dtype", "pass", "timing"))
        rows.setdefault(key, {})[line["runner"]] = line
    text = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for key, runners in rows.items():
        ours = runners[OURS]
        peers = {name: line["seconds"] for name, line in runners.items() if name != OURS and "seconds" in line}
        fastest = min(peers, key=lambda name: peers[name])
        floor, by = ceilings.floor(roofline.Work(ours["bytes"], ours["flops"], ours["exponentials"]))
        cells = [
            *key,
            f"{ours['seconds'] * 1e3:.3f}",
            fastest,
            f"{peers[fastest] * 1e3:.3f}",
            f"{peers[fastest] / ours['seconds']:.2f}x",
            f"{floor / ours['seconds']:.0%}",
            by,
            "-" if ours["megabytes"] is None else f"{ours['megabytes']:.1f}",
        ]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def estimate() -> str:
    """The floors of every case from counted bytes and operations, for a machine that is not here."""
    headings = ("case", "dtype", "pass", "MB", "GFLOP", "1e9 exp", f"floor ms ({roofline.H200.origin})", "by")
    text = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    for case, work in _cases(small=False):
        for both in (False, True):
            todo = work(case, torch.bfloat16, both)
            floor, by = roofline.H200.floor(todo)
            numbers = (todo.bytes / 1e6, todo.flops / 1e9, todo.exponentials / 1e9, floor * 1e3)
            cells = [case.name, "bfloat16", "both" if both else "forward", *(f"{n:.3g}" for n in numbers), by]
            text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)
