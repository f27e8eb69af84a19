"""Attention: the reference against a mask written out, and every other backend against the reference in float64."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.backends import BACKENDS
from fermt_kernels.testing import LAYOUTS, assert_accurate, attention_inputs, over_families

from .conftest import Share, UseThreads
from .support.lanes import slow
from .test_patterns import mask

SHAPES = [  # (B, H, N, D), n: the model's, and sizes on both sides of every block edge
    ((2, 12, 320, 16), 64),
    ((1, 2, 97, 16), 33),
    ((1, 1, 65, 16), 1),
    ((1, 2, 64, 16), 63),
    ((2, 1, 31, 8), 15),
    ((1, 2, 129, 64), 128),
    ((1, 1, 40, 128), 8),
    ((1, 3, 21, 5), 4),
    ((1, 1, 600, 16), 300),
    ((1, 1, 2100, 16), 530),
    ((1, 2, 7, 16), 0),
    ((1, 2, 7, 16), 7),
    ((1, 1, 1, 16), 1),
    ((0, 2, 9, 16), 4),
    ((2, 2, 0, 16), 0),
]
NAMES = ("out", "lse", "grad_q", "grad_k", "grad_v")
IDS = [f"{'x'.join(map(str, shape))}-n{n}" for shape, n in SHAPES]
by_shape = pytest.mark.parametrize(("shape", "n"), SHAPES, ids=IDS)
by_pattern = pytest.mark.parametrize("pattern", fk.PATTERNS)


def run(q: Tensor, k: Tensor, v: Tensor, n: int, pattern: str, backend: str, scale: float = 0.3) -> tuple[Tensor, ...]:
    """(out, lse) through the registered op."""
    return torch.ops.fermt.attention(q, k, v, n, pattern, scale, backend)


def masked_attention(q: Tensor, k: Tensor, v: Tensor, n: int, pattern: str, scale: float) -> tuple[Tensor, Tensor]:
    """Attention and lse with the N x N mask written out; rows that see nothing give 0 and -inf."""
    scores = (q @ k.mT * scale).masked_fill(~mask(pattern, n, q.shape[2]), -torch.inf)
    return scores.softmax(dim=-1).nan_to_num() @ v, scores.logsumexp(dim=-1)


def gradients(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, n: int, pattern: str, backend: str, scale: float = 0.3
) -> tuple[Tensor, ...]:
    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    return torch.autograd.grad(run(*leaves, n, pattern, backend, scale)[0], leaves, grad)


@by_pattern
@by_shape
def test_reference_is_masked_attention(shape: tuple, n: int, pattern: str) -> None:
    q, k, v = (t.double() for t in attention_inputs(shape))
    out, lse = fk.reference.attention(q, k, v, n, pattern, 0.3)
    expected_out, expected_lse = masked_attention(q, k, v, n, pattern, 0.3)
    torch.testing.assert_close(out, expected_out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(lse, expected_lse, rtol=1e-12, atol=1e-12)


@by_pattern
@by_shape
def test_reference_gradient_is_autograds(shape: tuple, n: int, pattern: str) -> None:
    q, k, v = (t.double() for t in attention_inputs(shape))
    grad = torch.randn_like(q)
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    expected = torch.autograd.grad(masked_attention(*leaves, n, pattern, 0.3)[0], leaves, grad)
    for got, want in zip(gradients(q, k, v, grad, n, pattern, "reference"), expected, strict=True):
        torch.testing.assert_close(got, want.nan_to_num(), rtol=1e-10, atol=1e-12)


def everything(
    shape: tuple, n: int, pattern: str, backend: str, dtype: torch.dtype, compute: torch.dtype, scale: float = 0.3
) -> list[Tensor]:
    """`NAMES` on inputs drawn in `dtype`, computed in `compute`."""

    def draw(seed: int, neighbor: int) -> tuple[Tensor, ...]:
        q, k, v = (t.to(compute) for t in attention_inputs(shape, "packed", dtype, seed, neighbor))
        grad = attention_inputs(shape, "sliced", dtype, seed + 100, neighbor)[0].to(compute)
        return (*run(q, k, v, n, pattern, backend, scale), *gradients(q, k, v, grad, n, pattern, backend, scale))

    return over_families(draw, 4 if math.prod(shape) < 1000 else 1)


cache_of_everything = cache(everything)


def of_reference(shape: tuple, n: int, pattern: str, dtype: torch.dtype, compute: torch.dtype, scale: float) -> list:
    """`everything` of the reference; small cases once for all backends and instruction sets."""
    compute_or_recall = cache_of_everything if math.prod(shape) < 10_000 else everything
    return compute_or_recall(shape, n, pattern, "reference", dtype, compute, scale)


def assert_backend_is_accurate(shape: tuple, n: int, pattern: str, backend: str, scale: float = 0.3) -> None:
    for dtype in BACKENDS[backend].SUPPORTS["attention_forward"]:
        actual = everything(shape, n, pattern, backend, dtype, dtype, scale)
        eager = of_reference(shape, n, pattern, dtype, dtype, scale)
        truth = of_reference(shape, n, pattern, dtype, torch.float64, scale)
        for name, *three in zip(NAMES, actual, eager, truth, strict=True):
            assert_accurate(*three, name=f"{name}, {dtype}", families=True)


def lane(shape: tuple, n: int, pattern: str) -> object:
    """A large shape is for the slow lane, but for the two patterns that the model has."""
    case = (shape, n, pattern)
    return slow(*case) if math.prod(shape) > 10_000 and pattern not in ("mixed", "cross") else case


@pytest.mark.parametrize(
    ("shape", "n", "pattern"),
    [lane(*each, pattern) for each in SHAPES for pattern in fk.PATTERNS],
    ids=[f"{name}-{pattern}" for name in IDS for pattern in fk.PATTERNS],
)
def test_backend_is_accurate(shape: tuple, n: int, pattern: str, backend: str) -> None:
    assert_backend_is_accurate(shape, n, pattern, backend)


@pytest.mark.parametrize("scale", [-0.3, 0.0, 2.5])
def test_backend_is_accurate_for_any_scale(scale: float, backend: str) -> None:
    assert_backend_is_accurate((2, 3, 70, 16), 20, "mixed", backend, scale)


@pytest.mark.parametrize("layout", LAYOUTS)
@by_pattern
def test_layouts(layout: str, pattern: str, backend: str) -> None:
    for dtype in BACKENDS[backend].SUPPORTS["attention_forward"]:
        odd = attention_inputs((3, 4, 50, 16), layout, dtype)
        grad = attention_inputs((3, 4, 50, 16), layout, dtype, seed=1)[0]
        dense = [t.clone(memory_format=torch.contiguous_format) for t in (*odd, grad)]
        results = [
            (*run(*three, 20, pattern, backend), *gradients(*three, g, 20, pattern, backend))
            for three, g in ((odd, grad), (dense[:3], dense[3]))
        ]
        for got, want in zip(*results, strict=True):
            assert torch.equal(got, want)


@by_pattern
def test_gradients_of_auto(pattern: str) -> None:
    """Whatever `auto` chooses, forward and backward together are as accurate as eager."""
    q, k, v = attention_inputs((2, 3, 90, 16), "packed")
    grad = torch.randn(1, 3, 90, 16).expand(2, 3, 90, 16)  # a gradient of stride 0, as sums have
    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    actual = torch.autograd.grad(fk.attention(*leaves, 30, pattern, scale=0.3), leaves, grad)
    eager = gradients(q, k, v, grad, 30, pattern, "reference")
    truth = gradients(q.double(), k.double(), v.double(), grad.double(), 30, pattern, "reference")
    for name, *three in zip("qkv", actual, eager, truth, strict=True):
        assert_accurate(*three, name=f"grad_{name}")


@pytest.mark.parametrize("name", ["auto", "reference"])
@by_pattern
def test_packed_equals_unpacked(name: str, pattern: str) -> None:
    batch, tokens, heads, dim = 2, 50, 3, 16
    qkv = torch.randn(batch, tokens, 3 * heads * dim, requires_grad=True)
    grad = torch.randn(batch, tokens, heads * dim)
    packed = fk.attention_packed(qkv, heads, 20, pattern, backend=name)
    q, k, v = qkv.view(batch, tokens, 3, heads, dim).permute(2, 0, 3, 1, 4)
    unpacked = fk.attention(q, k, v, 20, pattern, backend=name).transpose(1, 2).reshape(batch, tokens, -1)
    assert torch.equal(packed, unpacked)
    (from_packed,) = torch.autograd.grad(packed, qkv, grad, retain_graph=True)
    (from_unpacked,) = torch.autograd.grad(unpacked, qkv, grad)
    torch.testing.assert_close(from_packed, from_unpacked)


def test_named_patterns_and_default_scale() -> None:
    qkv = torch.randn(1, 30, 96)
    for function, pattern in ((fk.mixed_attention, "mixed"), (fk.cross_attention, "cross")):
        assert torch.equal(function(qkv, 2, 10), fk.attention_packed(qkv, 2, 10, pattern, scale=16**-0.5))


def test_output_needs_no_copy_to_be_tokens() -> None:
    q, k, v = attention_inputs((2, 3, 50, 16), "packed")
    for name in ("auto", "reference"):
        assert fk.attention(q, k, v, 20, backend=name).transpose(1, 2).is_contiguous()


def test_not_a_number_stays_in_its_row(backend: str) -> None:
    q, k, v = attention_inputs((1, 1, 40, 16))
    q[0, 0, 20, 3] = torch.nan
    out, lse = run(q, k, v, 10, "mixed", backend)
    assert out[0, 0, 20].isnan().all()
    assert lse[0, 0, 20].isnan()
    assert torch.isfinite(out[0, 0, torch.arange(40) != 20]).all()


def test_large_scores_do_not_overflow(backend: str) -> None:
    """Each query takes one key's value: the truth is a float32 number, and eager may have no error to compare with."""
    q, k, v = attention_inputs((1, 2, 50, 16))
    actual, truth = (
        run(q.to(d) * 100, k.to(d) * 100, v.to(d), 20, "mixed", name)
        for name, d in ((backend, torch.float32), ("reference", torch.float64))
    )
    for got, want in zip(actual, truth, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=4 * torch.finfo(torch.float32).eps, atol=0)


def test_threads_do_not_change_a_bit(backend: str, two_threads: None) -> None:
    for dtype in BACKENDS[backend].SUPPORTS["attention_forward"]:
        q, k, v = attention_inputs((2, 5, 320, 16), "packed", dtype)
        results = []
        for threads in (2, 1):
            torch.set_num_threads(threads)
            results.append((*run(q, k, v, 64, "mixed", backend), *gradients(q, k, v, q, 64, "mixed", backend)))
        for two, one in zip(*results, strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize(("sign", "size"), [(-1, 1e-30), (-1, 1.0), (1, 1.0), (1, 1e30)])
def test_scores_and_values_of_any_size(sign: int, size: float, backend: str) -> None:
    """Queries that need the maximum of their scores subtracted, and queries that do not; tiny and large values.

    Keys are alike, so that scores come near their bound: what is not subtracted then meets tiny values, or large ones.
    """
    q, k, v = attention_inputs((1, 3, 300, 16))
    q, k, v = q.abs() * torch.logspace(-2, 1.5, 300)[:, None], sign * (1 + 0.1 * k), v * size
    actual, eager, truth = (
        run(q.to(d), k.to(d), v.to(d), 60, "mixed", name)
        for name, d in ((backend, torch.float32), ("reference", torch.float32), ("reference", torch.float64))
    )
    for name, *three in zip(NAMES, actual, eager, truth, strict=False):
        assert_accurate(*three, name=name)


@pytest.mark.parametrize(("batch", "items"), [(1, 24), (2, 24), (3, 36)])
def test_backward_has_work_for_many_threads(batch: int, items: int, loaded: object, parallel_for: UseThreads) -> None:
    """Parts of heads where heads are few, and the same bits in whatever order they are done."""
    q, k, v = attention_inputs((batch, 12, 320, 16), "packed")
    out = q.flip(-1)
    expected, asked = gradients(q, k, v, out, 64, "mixed", "cpp"), []

    def in_reverse(shares: list[tuple[int, int]], body: Share) -> None:
        asked.append(sum(end - begin for begin, end in shares))
        for share in reversed(shares):
            body(*share)

    parallel_for(1000, in_reverse)
    found = gradients(q, k, v, out, 64, "mixed", "cpp")
    assert asked[-1] == items
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)


@by_pattern
def test_gradcheck(pattern: str) -> None:
    leaves = [t.double().requires_grad_() for t in attention_inputs((1, 2, 9, 4))]
    assert torch.autograd.gradcheck(lambda q, k, v: fk.reference.attention(q, k, v, 4, pattern, 0.5)[0], leaves)
    assert torch.autograd.gradcheck(lambda q, k, v: fk.attention(q, k, v, 4, pattern, scale=0.5), leaves)
