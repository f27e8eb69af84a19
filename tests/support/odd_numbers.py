"""Attention of inputs with an infinity or a NaN: what becomes NaN or infinite has to be what the reference's does."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

import fermt_kernels as fk


def odd_inputs(tokens: int, dtype: torch.dtype, value: float) -> Iterator[tuple[str, list[Tensor]]]:
    """What is odd, and q, k, v and the gradient of the output, of 2 heads of 16 dimensions."""
    generator = torch.Generator().manual_seed(0)
    for odd, name in enumerate(("q", "k", "v", "grad_out")):
        for token in (0, tokens - 1):
            inputs = [torch.randn(1, 2, tokens, 16, generator=generator).to(dtype) for _ in range(4)]
            inputs[odd][0, 0, token, 3] = value
            yield f"{name} of token {token}", inputs
    inputs = [torch.ones(1, 2, tokens, 16, dtype=dtype) for _ in range(4)]
    inputs[1][:, :, 1:] = value
    yield "all keys but the first", inputs


def assert_spread_alike(backend: str, tokens: int, pattern: str, dtype: torch.dtype, value: float) -> None:
    """The output and the gradients of q, k and v are NaN, and infinite, where the reference's are."""
    for what, (q, k, v, grad_out) in odd_inputs(tokens, dtype, value):
        results = []
        for name in (backend, "reference"):
            leaves = [t.clone().requires_grad_() for t in (q, k, v)]
            out = fk.attention(*leaves, (tokens + 1) // 3, pattern, backend=name)
            results.append([out.detach(), *torch.autograd.grad(out, leaves, grad_out)])
        for name, actual, expected in zip(("out", "q", "k", "v"), *results, strict=True):
            assert torch.equal(actual.isnan(), expected.isnan()), (what, name)
            assert torch.equal(actual.isinf(), expected.isinf()), (what, name)
