"""Checks of the ops on this GPU: against float64, by opcheck, and bit for bit over many runs.

A check is a name, and a call that gives how many results it compared and what is wrong with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.testing import attention_inputs, inaccuracy, over_families, unit_inputs

Found = tuple[int, list[str]]
Check = tuple[str, Callable[[], Found]]
Run = Callable[..., Tensor]
Draw = Callable[[torch.dtype, int, int], list[Tensor]]

ATTENTION_SHAPES = (  # (B, H, N, D), n
    ((2, 12, 320, 16), 64),
    ((1, 2, 97, 16), 33),
    ((1, 2, 65, 16), 1),
    ((2, 1, 31, 8), 15),
    ((1, 2, 129, 64), 128),
    ((2, 2, 45, 32), 9),
    ((1, 1, 40, 128), 8),
    ((1, 2, 1400, 16), 600),
    ((1, 2, 7, 16), 0),
    ((1, 2, 7, 16), 7),
)
UNIT_SHAPES = ((2, 3, 256, 256), (2, 3, 33, 70), (1, 1, 5, 3), (2, 2, 40, 40))
# Names of cases: those at the model's sizes, and small ones.
MODEL_CASES = (
    *(f"attention {pattern} (2, 12, 320, 16) n=64" for pattern in ("mixed", "cross")),
    "unit (2, 3, 256, 256)",
)
SMALL_CASES = ("attention mixed (1, 2, 65, 16) n=1", "unit (1, 1, 5, 3)")
CROP_SIZES = (1, 37, 128, 256)
RUNS = 100


def _results(run: Run, leaves: list[Tensor], grad: Tensor) -> list[Tensor]:
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    out = run(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]


def _cases(device: str, small: bool = False) -> Iterator[tuple[str, Callable[[str], Run], Draw]]:
    """(name, backend -> function, (dtype, seed, neighbor) -> its inputs and a gradient)."""
    for shape, n in ATTENTION_SHAPES[2:4] if small else ATTENTION_SHAPES:
        for pattern in ("mixed",) if small else fk.PATTERNS:

            def attend(backend: str, n: int = n, pattern: str = pattern) -> Run:
                return lambda q, k, v: fk.attention(q, k, v, n, pattern, backend=backend)

            def draw(
                dtype: torch.dtype, seed: int, neighbor: int, shape: tuple[int, int, int, int] = shape
            ) -> list[Tensor]:
                grad = attention_inputs(shape, "contiguous", dtype, seed + 100, neighbor)[0]
                leaves = attention_inputs(shape, "packed", dtype, seed, neighbor)
                return [t.to(device) for t in (*leaves, grad)]

            yield f"attention {pattern} {shape} n={n}", attend, draw
    for size in UNIT_SHAPES[2:3] if small else UNIT_SHAPES:

        def unit(backend: str) -> Run:
            return lambda x, *weights: fk.dual_attention_unit(x, fk.DAUWeights(*weights), backend=backend)

        def draw_unit(
            dtype: torch.dtype, seed: int, neighbor: int, size: tuple[int, int, int, int] = size
        ) -> list[Tensor]:
            x, weights = unit_inputs(size, 1, 5, dtype, seed, neighbor)
            grad = unit_inputs(size, 1, 5, dtype, seed + 100, neighbor)[0]
            return [t.to(device) for t in (x, *weights, grad)]

        yield f"unit {size}", unit, draw_unit


def run(checks: Sequence[Check]) -> Iterator[dict[str, Any]]:
    """Yields a line per check: what it compared, its faults, and its seconds. A check that raises has a fault."""
    for name, check in checks:
        began = time.monotonic()
        try:
            compared, faults = check()
        except Exception as error:  # what is found so far, and by the checks that follow, counts all the same
            compared, faults = 0, [f"{type(error).__name__}: {str(error)[:300]}"]
        line = {"benchmark": "check", "check": name, "compared": compared, "faults": faults}
        yield line | {"seconds": time.monotonic() - began}


def faults_in(checks: Sequence[Check]) -> list[str]:
    """What is wrong, each with its check's name."""
    return [f"{line['check']}: {fault}" for line in run(checks) for fault in line["faults"]]


def of_ops(device: str, dtypes: Sequence[torch.dtype], small: bool = False, runs: int = RUNS) -> list[Check]:
    """All checks of the ops."""
    cases = list(_cases(device, small))
    every: list[Check] = [
        (f"{name}, {dtype}", partial(_inaccuracies, function, draw, dtype, small))
        for dtype in dtypes
        for name, function, draw in cases
    ]
    every += [
        (f"{name}, {runs} runs", partial(_differences, function, draw, runs))
        for name, function, draw in cases
        if "mixed" in name or "unit" in name
    ]
    return [*every, ("crops", partial(wrong_crops, device)), ("opcheck", partial(opcheck, device))]


def of_the_model(device: str) -> list[Check]:
    """Checks of the ops at the model's sizes only, which are done first."""
    chosen = [case for case in _cases(device) if case[0] in MODEL_CASES]
    return [
        (f"{name}, {dtype}", partial(_inaccuracies, function, draw, dtype, small=True))
        for dtype in (torch.bfloat16, torch.float32)
        for name, function, draw in chosen
    ]


def launch_all(device: str, dtypes: Sequence[torch.dtype], only: Sequence[str] = ()) -> None:
    """Runs each case's op and gradient once, so that its launches can be recorded."""
    for name, function, draw in _cases(device):
        if not only or name in only:
            for dtype in dtypes:
                *leaves, grad = draw(dtype, 0, 0)
                _results(function("triton"), leaves, grad)


def _inaccuracies(function: Callable[[str], Run], draw: Draw, dtype: torch.dtype, small: bool) -> Found:
    """Results and gradients that break the accuracy rule."""

    def stacked(backend: str, compute: torch.dtype) -> list[Tensor]:
        def one(seed: int, neighbor: int) -> list[Tensor]:
            *leaves, grad = draw(dtype, seed, neighbor)
            return _results(function(backend), [t.to(compute) for t in leaves], grad)

        return [results.cpu() for results in over_families(one, 1 if small else 4)]

    three = stacked("triton", dtype), stacked("reference", dtype), stacked("reference", torch.float64)
    reasons = [inaccuracy(*results, families=True) for results in zip(*three, strict=True)]
    return len(reasons), [f"result {index}: {reason}" for index, reason in enumerate(reasons) if reason]


def wrong_crops(device: str) -> Found:
    """Sizes at which the crop is not what the reference gives on the CPU, to the bit."""
    found, image = [], torch.randint(256, (90, 120, 3), dtype=torch.uint8)
    squares = torch.tensor([[30, 20, 41], [-40, -30, 200], [100, 70, 64], [0, 0, 1]])
    for size in CROP_SIZES:
        got = fk.frame.crop(image.to(device), squares.to(device), size, backend="triton").cpu()
        if count := int((got != fk.reference.crop(image, squares, size)).sum()):
            found.append(f"crop {size}x{size}: {count} of {got.numel()} bytes differ")
    return len(CROP_SIZES), found


def _differences(function: Callable[[str], Run], draw: Draw, runs: int) -> Found:
    """A run whose output or gradients are not the first's to the bit."""
    *leaves, grad = draw(torch.float32, 0, 0)
    first = _results(function("triton"), leaves, grad)
    for turn in range(1, runs):
        again = _results(function("triton"), leaves, grad)
        if not all(map(torch.equal, first, again)):
            return turn, [f"run {turn} differs"]
    return runs - 1, []


def opcheck(device: str) -> Found:
    """Ops that torch.library.opcheck finds fault with, and the fault."""
    q, k, v = (t.to(device).requires_grad_() for t in attention_inputs((1, 2, 20, 16)))
    x, weights = unit_inputs((1, 3, 9, 8))
    qkv = torch.randn(1, 20, 96, device=device, requires_grad=True)
    calls = {
        "attention": (q, k, v, 6, "mixed", 0.25, "triton"),
        "attention_packed": (qkv, 2, 6, "cross", 0.25, "triton"),
        "dual_attention_unit": (*(t.to(device).requires_grad_() for t in (x, *weights)), "triton"),
    }
    found = []
    for name, arguments in calls.items():
        results = torch.library.opcheck(getattr(torch.ops.fermt, name).default, arguments, raise_exception=False)
        found += [f"{name}: {test}: {result}" for test, result in results.items() if result != "SUCCESS"]
    return len(calls), found
