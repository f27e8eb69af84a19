"""Errors of each usable backend and of eager PyTorch against float64, op by op and for the whole model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt.export import plain_model
from fermt_kernels.backends import unsupported_reason
from fermt_kernels.testing import errors, inaccuracy

from .cases import NUM_HEADS, NUM_TEMPLATE, AttentionCase, UnitCase
from .harness import Out, append, facts, headline, run_command, start_progress, table
from .peers import DECODED

CHECK_SECONDS = 0.7  # of an op or an output of the model, in the mean


class Check(NamedTuple):
    """A computation that takes a backend's name and a dtype."""

    name: str
    op: str
    run: Callable[[str, torch.dtype], Tensor]


def _attention(pattern: str) -> Check:
    case = AttentionCase(pattern, 2)
    return Check(
        f"attention, {pattern}",
        "attention_forward",
        lambda backend, dtype: fk.attention_packed(
            case.qkv().to(dtype), NUM_HEADS, NUM_TEMPLATE, pattern, backend=backend
        ),
    )


def _unit() -> Check:
    case = UnitCase(128, 2)

    def run(backend: str, dtype: torch.dtype) -> Tensor:
        weights = fk.DAUWeights(*(weight.to(dtype) for weight in case.weights()))
        return fk.dual_attention_unit(case.image().to(dtype), weights, backend=backend)

    return Check("DAU", "dual_attention_unit_forward", run)


def op_checks() -> list[Check]:
    return [*(_attention(pattern) for pattern in fk.PATTERNS), _unit()]


def model_outputs() -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """(output, ours by the automatic choice of backends, plain PyTorch's, plain PyTorch's in float64)."""
    torch.manual_seed(0)
    model = fermt.build_model("fermt").eval()
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(1, 3, size, size, generator=generator) for size in (128, 256)]
    with torch.inference_mode():
        ours, eager = model(*images), plain_model(model)(*images)
        truth = plain_model(model).double()(*(image.double() for image in images))
    for name in (key for key in truth if key not in DECODED):
        yield name, ours[name], eager[name], truth[name]


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Only the ops, not the whole model.")] = False,
    out: Out = None,
) -> None:
    """Measure the error of every usable backend against float64, and that of eager PyTorch in float32.

    A result passes if its largest and its rms error are at most twice eager's, plus one rounding. The exit status is 1
    if a result does not pass. Takes a few seconds.

    Example: python -m benchmarks.agreement
    """
    console, about = Console(), facts()
    console.print(headline(about), highlight=False, soft_wrap=True)
    headings = ("what", "backend", "error", "eager's error", "passes")
    made = table("Largest error against float64, float32 results", headings, left=2)
    lines = []
    failures = 0
    checks = op_checks()
    steps = len(checks) + (not quick)
    progress = start_progress("agreement with float64", steps, steps * CHECK_SECONDS)

    def add(what: str, backend: str, actual: Tensor, eager: Tensor, truth: Tensor) -> None:
        nonlocal failures
        reason = inaccuracy(actual, eager, truth)
        failures += reason is not None
        error, eagers = (errors(x, truth)[0] for x in (actual, eager))
        made.add_row(what, backend, f"{error:.2e}", f"{eagers:.2e}", reason or "yes")
        line = {"benchmark": "agreement", "what": what, "backend": backend, "error": error, "eager": eagers}
        lines.append(line | {"passes": reason is None})

    with torch.inference_mode():
        for check in checks:
            truth, eager = (check.run("reference", dtype) for dtype in (torch.float64, torch.float32))
            for row in fk.backends():
                if row.name == "reference" or unsupported_reason(row.name, check.op, "cpu", torch.float32):
                    continue
                add(check.name, row.name, check.run(row.name, torch.float32), eager, truth)
            progress.step(f"{check.name}: largest error of eager {errors(eager, truth)[0]:.2e}")
    if not quick:
        for output, actual, eager, truth in model_outputs():
            add(f"model, {output}", "auto", actual, eager, truth)
        progress.step("the whole model")
    console.print(made)
    append(out, lines, about)
    if failures:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_command(main)
