"""Whether the kernels on this GPU are right: against float64, by opcheck, and bit for bit over many runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.testing import attention_inputs, inaccuracy, over_families, unit_inputs

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
CROP_SIZES = (1, 37, 128, 256)
RUNS = 100


def _results(run: Run, leaves: list[Tensor], grad: Tensor) -> list[Tensor]:
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    out = run(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.to(out.dtype))]


def _cases(device: str, small: bool) -> Iterator[tuple[str, Callable[[str], Run], Draw]]:
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


def wrong(device: str, dtypes: tuple[torch.dtype, ...], small: bool = False) -> tuple[int, list[str]]:
    """How many results were compared by the accuracy rule, and those that broke it."""
    compared, found = 0, []
    for name, function, draw in _cases(device, small):
        for dtype in dtypes:

            def stacked(
                backend: str,
                compute: torch.dtype,
                function: Callable[[str], Run] = function,
                draw: Draw = draw,
                dtype: torch.dtype = dtype,
            ) -> list[Tensor]:
                def one(seed: int, neighbor: int) -> list[Tensor]:
                    *leaves, grad = draw(dtype, seed, neighbor)
                    return _results(function(backend), [t.to(compute) for t in leaves], grad)

                return [results.cpu() for results in over_families(one, 1 if small else 4)]

            three = stacked("triton", dtype), stacked("reference", dtype), stacked("reference", torch.float64)
            for index, (actual, eager, truth) in enumerate(zip(*three, strict=True)):
                compared += 1
                if reason := inaccuracy(actual, eager, truth, families=True):
                    found.append(f"{name}, {dtype}, result {index}: {reason}")
    return compared, found


def wrong_crops(device: str) -> list[str]:
    """Sizes at which the crop is not what the reference gives on the CPU, to the bit."""
    found, image = [], torch.randint(256, (90, 120, 3), dtype=torch.uint8)
    squares = torch.tensor([[30, 20, 41], [-40, -30, 200], [100, 70, 64], [0, 0, 1]])
    for size in CROP_SIZES:
        got = fk.frame.crop(image.to(device), squares.to(device), size, backend="triton").cpu()
        if count := int((got != fk.reference.crop(image, squares, size)).sum()):
            found.append(f"crop {size}x{size}: {count} of {got.numel()} bytes differ")
    return found


def differs(device: str, runs: int = RUNS) -> list[str]:
    """Ops whose output or gradients change a bit between runs on the same input."""
    found = []
    for name, function, draw in _cases(device, small=device == "cpu"):
        if "mixed" not in name and "unit" not in name:
            continue
        *leaves, grad = draw(torch.float32, 0, 0)
        first = _results(function("triton"), leaves, grad)
        for _ in range(runs - 1):
            again = _results(function("triton"), leaves, grad)
            if not all(map(torch.equal, first, again)):
                found.append(name)
                break
    return found


def opcheck(device: str) -> list[str]:
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
    return found
