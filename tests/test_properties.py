"""Attention for any shape, layout, dtype and pattern that hypothesis draws: valid ones agree, invalid ones raise."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fermt_kernels as fk
from fermt_kernels.backends import BACKENDS
from fermt_kernels.testing import LAYOUTS, attention_inputs, unit_inputs

from .support.errors import refused

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Beside the accuracy rule, which has tests of its own, this one only has to catch a wrong formula or a wrong stride.
LOOSE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@st.composite
def shapes(draw: st.DrawFn) -> tuple[tuple[int, int, int, int], int]:
    """(B, H, N, D) and n, small and odd."""
    tokens = draw(st.integers(0, 80))
    shape = (draw(st.integers(0, 3)), draw(st.integers(1, 3)), tokens, draw(st.integers(1, 40)))
    return shape, draw(st.integers(0, tokens))


def close(got: torch.Tensor, eager: torch.Tensor, want: torch.Tensor, dtype: torch.dtype) -> None:
    """Within the loose bound, or twice eager's error where gradients are so large that eager breaks that bound, too."""
    off = (eager.double() - want).abs().max().item() if want.numel() else 0.0
    torch.testing.assert_close(got.double(), want, rtol=LOOSE[dtype], atol=max(LOOSE[dtype], 2 * off))


@quick
@given(
    drawn=shapes(),
    layout=st.sampled_from(sorted(LAYOUTS)),
    dtype=st.sampled_from(sorted(LOOSE, key=str)),
    pattern=st.sampled_from(fk.PATTERNS),
    scale=st.floats(-1, 1, width=32),
)
def test_attention_of_anything(
    backend: str, drawn: tuple, layout: str, dtype: torch.dtype, pattern: str, scale: float
) -> None:
    shape, n = drawn
    if layout == "expanded" and shape[0] == 0:
        shape = (1, *shape[1:])
    leaves = [t.detach().requires_grad_() for t in attention_inputs(shape, layout, dtype)]
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    out = fk.attention(*leaves, n, pattern, scale=scale, backend=backend)
    eager = fk.attention(*leaves, n, pattern, scale=scale, backend="reference")
    truth = fk.reference.attention(*doubles, n, pattern, scale)[0]
    close(out, eager, truth, dtype)
    gradients = (torch.autograd.grad(result.sum(), inputs) for result, inputs in (
        (out, leaves), (eager, leaves), (truth, doubles),
    ))  # fmt: skip
    for got, plain, want in zip(*gradients, strict=True):
        close(got, plain, want, dtype)


@quick
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 30), st.integers(1, 40)),
    kernel=st.sampled_from([1, 3, 5, 7]),
    hidden=st.integers(1, 3),
    dtype=st.sampled_from(sorted(LOOSE, key=str)),
)
def test_the_unit_on_anything(backend: str, size: tuple, kernel: int, hidden: int, dtype: torch.dtype) -> None:
    x, weights = unit_inputs(size, hidden, kernel, dtype)
    truth = fk.reference.dual_attention_unit(x.double(), [w.double() for w in weights])
    error = (fk.dual_attention_unit(x, fk.DAUWeights(*weights), backend=backend).double() - truth).abs().max()
    assert error <= LOOSE[dtype] * (1 + truth.abs().max())


@quick
@given(
    q=st.lists(st.integers(0, 4), min_size=2, max_size=5),
    v=st.lists(st.integers(0, 4), min_size=2, max_size=5),
    n=st.integers(-3, 8),
    pattern=st.sampled_from([*fk.PATTERNS, "", "Mixed"]),
)
def test_attention_accepts_what_is_valid_and_nothing_else(
    backend: str, q: list[int], v: list[int], n: int, pattern: str
) -> None:
    valid = len(q) == 4 and q == v and q[3] > 0 and 0 <= n <= q[2] and pattern in fk.PATTERNS
    tensors = (torch.ones(q), torch.ones(q), torch.ones(v))
    if valid:
        assert fk.attention(*tensors, n, pattern, backend=backend).shape == tuple(q)
        return
    with refused(ValueError, "attention"):
        fk.attention(*tensors, n, pattern, backend=backend)


def test_the_properties_cover_every_dtype() -> None:
    for name, backend in BACKENDS.items():
        if name != "reference" and backend.SUPPORTS:
            assert set(backend.SUPPORTS["attention_forward"]) <= set(LOOSE)
