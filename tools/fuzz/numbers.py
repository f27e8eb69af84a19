"""Fuzz targets that compute: ops and crops on drawn shapes, layouts and dtypes, compared with the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.testing import LAYOUTS, attention_inputs, errors, linear_inputs, unit_inputs

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
FACTOR = 16.0  # times eager's error: a wrong result, not merely a less accurate one (docs/accuracy.md has that rule)
REFUSED = (TypeError, ValueError)  # what a call with bad arguments may raise


class WrongResultError(AssertionError):
    """A result far from the reference, or a bad argument that was accepted."""


def _compare(op: Callable[..., Tensor], inputs: list[Tensor], what: str) -> None:
    """Runs an op and its gradients by the compiled kernels, eagerly and in float64."""
    results: dict[str, list[Tensor]] = {}
    count = 0  # of outputs
    for name, backend, dtype in (("ours", "auto", None), ("eager", "reference", None), ("true", "reference", "double")):
        leaves = [t.detach().to(torch.float64) if dtype else t.detach() for t in inputs]
        for leaf in leaves:
            leaf.requires_grad_(True)
        out = op(*leaves, backend=backend)
        weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device="cpu").view(out.shape)
        count = out.numel()
        grads = torch.autograd.grad((out * weight.to(out.dtype)).sum(), leaves) if out.numel() else ()
        results[name] = [out.detach(), *grads]
    for i, (ours, eager, true) in enumerate(zip(*results.values(), strict=True)):
        if ours.shape != eager.shape or ours.dtype != eager.dtype:
            raise WrongResultError(
                f"{what}: result {i} is {ours.dtype} {tuple(ours.shape)}, eager's {eager.dtype} {eager.shape}"
            )
        # Gradients are sums over the outputs, which may cancel: their size says too little of the error to expect.
        floor = torch.finfo(ours.dtype).eps * (true.abs().amax().item() + count**0.5 if true.numel() else 0.0)
        error, allowed = errors(ours, true)[0], FACTOR * max(errors(eager, true)[0], floor)
        if not error <= allowed:
            raise WrongResultError(f"{what}: result {i} is off by {error:.3g}, eager by {allowed / FACTOR:.3g}")


def attention(rng: np.random.Generator) -> None:
    """Attention of all patterns, forward and backward."""
    batch, heads, template, search = (int(rng.integers(0, high)) for high in (3, 4, 9, 40))
    dim = int(rng.choice((1, 3, 8, 16, 17, 32, 64)))
    shape = (batch, heads, template + search, dim)
    layout, dtype = str(rng.choice(list(LAYOUTS))), DTYPES[rng.integers(3)]
    if 0 in shape or (layout == "expanded" and batch == 0):
        layout = "contiguous"
    pattern, scale = str(rng.choice(fk.PATTERNS)), float(rng.choice((0.0, 0.25, 1.0, dim**-0.5)))
    inputs = list(attention_inputs(shape, layout, dtype, seed=int(rng.integers(2**31))))

    def op(q: Tensor, k: Tensor, v: Tensor, backend: str) -> Tensor:
        return fk.attention(q, k, v, num_template=template, pattern=pattern, scale=scale, backend=backend)

    _compare(op, inputs, f"attention {shape} {layout} {dtype} {pattern} scale {scale:g}")


def linear(rng: np.random.Generator) -> None:
    """The linear layer, with and without GELU."""
    rows, inner, outputs = (int(rng.integers(1, high)) for high in (70, 130, 130))
    dtype, gelu = DTYPES[rng.integers(3)], bool(rng.integers(2))
    x, weight, bias, _ = linear_inputs(rows, inner, outputs, dtype, seed=int(rng.integers(2**31)))

    def op(x: Tensor, weight: Tensor, bias: Tensor, backend: str) -> Tensor:
        chosen = ("cpp" if _has_cpp() else "auto") if backend == "auto" else backend  # auto may leave it to PyTorch
        return fk.linear(x, weight, bias, gelu=gelu, backend=chosen)

    _compare(op, [x, weight, bias], f"linear {rows}x{inner}x{outputs} {dtype} gelu {gelu}")


def dual_attention_unit(rng: np.random.Generator) -> None:
    """The Dual Attention Unit, forward and backward."""
    shape = (int(rng.integers(1, 3)), int(rng.choice((1, 3, 4))), int(rng.integers(1, 40)), int(rng.integers(1, 40)))
    dtype = DTYPES[rng.integers(2)]
    image, weights = unit_inputs(shape, dtype=dtype, seed=int(rng.integers(2**31)))

    def op(image: Tensor, *weights: Tensor, backend: str) -> Tensor:
        return fk.dual_attention_unit(image, fk.DAUWeights(*weights), backend=backend)

    _compare(op, [image, *weights], f"dual attention unit {shape} {dtype}")


def crop(rng: np.random.Generator) -> None:
    """Crops at drawn squares, many of them over the edge; within one gray level of the reference."""
    height, width = (int(rng.integers(2, 60)) for _ in range(2))
    image = torch.from_numpy(rng.integers(0, 256, (height, width, 3), np.uint8))
    reach = int(rng.choice((3, 100, 2**20)))
    squares = torch.from_numpy(rng.integers(-reach, reach, (int(rng.integers(0, 4)), 3)))
    size = int(rng.integers(1, 70))
    results: list[Any] = []
    for backend in ("auto", "reference"):
        try:
            results.append(fk.frame.crop(image, squares, size, backend=backend))
        except REFUSED as error:
            results.append(type(error))
    ours, reference = results
    same = ours is reference
    if isinstance(ours, Tensor) and isinstance(reference, Tensor):
        same = ours.shape == reference.shape
        same = same and (not ours.numel() or int((ours.int() - reference.int()).abs().max()) <= 1)
    if not same:
        raise WrongResultError(f"crop of {height}x{width} at {squares.tolist()} to {size}: differs from the reference")


def bad_arguments(rng: np.random.Generator) -> None:
    """Attention with arguments that do not fit: refused, or right by chance."""
    shapes = [tuple(int(n) for n in rng.integers(0, 5, rng.integers(1, 6))) for _ in range(3)]
    if rng.integers(2):
        shapes = [shapes[0]] * 3
    tensors = [torch.zeros(shape, dtype=(*DTYPES, torch.int64)[rng.integers(4)], device="cpu") for shape in shapes]
    template: Any = (int(rng.integers(-3, 9)), 2**62, -(2**63), 1.5, None)[rng.integers(5)]
    pattern = str(rng.choice((*fk.PATTERNS, "none", "")))
    try:
        fk.attention(tensors[0], tensors[1], tensors[2], num_template=template, pattern=pattern)
    except (*REFUSED, RuntimeError):
        return
    if not (shapes[0] == shapes[1] == shapes[2] and len(shapes[0]) == 4 and 0 <= template <= shapes[0][2]):
        raise WrongResultError(f"attention accepted {shapes}, num_template {template}, pattern {pattern!r}")


def _has_cpp() -> bool:
    return any(row.name == "cpp" and row.usable for row in fk.backends())
