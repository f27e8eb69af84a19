"""Infinities, NaN and large scores: every backend and every instruction set gives what the reference gives."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import fermt_kernels as fk
from fermt_kernels import reference as eager
from fermt_kernels.spec.dual_attention_unit import DAUWeights
from fermt_kernels.testing import unit_inputs

from .conftest import ISA_ROWS
from .support.odd_numbers import assert_spread_alike

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INF, NAN = torch.inf, torch.nan
every_isa = pytest.mark.parametrize("isa", ISA_ROWS, indirect=True)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def gradients(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, backend: str) -> list[torch.Tensor]:
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    out = fk.attention(*leaves, 2, "full", backend=backend)
    return [out.detach(), *torch.autograd.grad(out[..., 0].sum(), leaves)]


@every_isa
@every_dtype
def test_a_score_far_above_the_others_takes_all(isa: str, dtype: torch.dtype) -> None:
    big = 6e4 if dtype == torch.float16 else 2e10
    q, k, v = (torch.zeros(1, 1, 2, 16, dtype=dtype) for _ in range(3))
    q[..., 0], k[0, 0, 1, 0], v[0, 0, 1] = big, 1, 1
    for backend in ("cpp", "reference"):
        out, _, _, grad_v = gradients(q, k, v, backend)
        assert torch.equal(out, torch.ones_like(out))
        assert grad_v[0, 0, :, 0].tolist() == pytest.approx([0, 2], abs=1e-37)  # probabilities end at 2^-126


@every_isa
@every_dtype
@pytest.mark.parametrize("value", [33.0, 1e3, 6e4])
def test_equal_inputs_give_themselves(isa: str, dtype: torch.dtype, value: float) -> None:
    x = torch.full((1, 1, 8, 64), value, dtype=dtype)
    for backend in ("cpp", "reference"):
        assert torch.equal(fk.attention(x, x, x, 2, "full", backend=backend), x)


@every_isa
def test_infinite_scores(isa: str) -> None:
    """Keys whose scores are -inf get nothing, though a chunk of them comes first; where all are, NaN."""
    q, k, v = torch.ones(1, 1, 4, 16), torch.zeros(1, 1, 300, 16), torch.randn(1, 1, 300, 16)
    k[:, :, :140] = -INF
    q = torch.cat((q, torch.ones(1, 1, 296, 16)), 2)
    for keys in (k, torch.full_like(k, -INF), torch.full_like(k, INF)):
        actual, expected = (fk.attention(q, keys, v, 4, "full", backend=name) for name in ("cpp", "reference"))
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


@every_isa
@every_dtype
@pytest.mark.parametrize("queries", [300, 301, 320])  # a number of whole tiles, and not
def test_gradients_beside_keys_that_get_nothing(isa: str, dtype: torch.dtype, queries: int) -> None:
    """Where scores are -inf, the gradients of keys and values are those of a probability of 0."""
    q, k, v = torch.ones(1, 1, queries, 16), torch.zeros(1, 1, queries, 16), torch.randn(1, 1, queries, 16)
    k[:, :, :140] = -INF
    actual, expected = (gradients(q.to(dtype), k.to(dtype), v.to(dtype), name) for name in ("cpp", "reference"))
    for name, mine, reference in zip(("out", "q", "k", "v"), actual, expected, strict=True):
        assert torch.equal(mine.isnan(), reference.isnan()), name
        assert bool(reference.isnan().any()) is (name == "q"), name


@every_isa
@every_dtype
@pytest.mark.parametrize("pattern", ["self", "mixed", "cross"])
@pytest.mark.parametrize("tokens", [2, 3, 40])  # where a group sees one key, and where more
@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_odd_numbers_of_attention(isa: str, dtype: torch.dtype, pattern: str, tokens: int, value: float) -> None:
    assert_spread_alike("cpp", tokens, pattern, dtype, value)


@every_isa
@every_dtype
def test_gelu(isa: str, dtype: torch.dtype) -> None:
    x = torch.zeros(6, 16, dtype=dtype)
    x[:, 0] = torch.tensor([INF, -INF, NAN, 6e4, -6e4, 12.0]).to(dtype)
    weight = torch.ones(1, 16, dtype=dtype)
    results = [fk.linear(x, weight, gelu=True, backend=name)[:, 0].double() for name in ("cpp", "reference")]
    expected = torch.tensor([INF, NAN, NAN, x[3, 0], 0, 12.0], dtype=torch.float64)
    for result in results:
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-12, equal_nan=True)


@every_isa
@every_dtype
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_one_odd_pixel_of_the_unit(isa: str, dtype: torch.dtype, value: float) -> None:
    """The mean over the image takes it to every pixel."""
    image, weights = unit_inputs((1, 3, 12, 10))
    image[0, 1, 6, 5] = value
    cast = [weight.to(dtype) for weight in weights]
    actual, expected = (fk.dual_attention_unit(image.to(dtype), cast, backend=name) for name in ("cpp", "reference"))
    assert torch.equal(actual.isnan(), expected.isnan())
    assert expected.isnan().all()


@every_isa
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("odd", ["image", *DAUWeights._fields, "grad_out"])
def test_odd_numbers_of_a_unit(isa: str, odd: str, value: float) -> None:
    """No weight's gradient is finite where the reference's is not: a training loop has to see it."""
    image, weights = unit_inputs((1, 3, 12, 10), hidden=2)
    names = ("image", *DAUWeights._fields, "grad_out")
    inputs = dict(zip(names, (image, *weights, torch.randn_like(image)), strict=True))
    inputs[odd].view(-1)[inputs[odd].numel() // 2] = value
    results = []
    for backend in ("cpp", "reference"):
        *leaves, grad_out = (t.detach().clone().requires_grad_() for t in inputs.values())
        out = fk.dual_attention_unit(leaves[0], leaves[1:], backend=backend)
        results.append([out, *torch.autograd.grad(out, leaves, grad_out)])
    for name, actual, expected in zip(("out", *names[:-1]), *results, strict=True):
        assert torch.equal(actual.isfinite(), expected.isfinite()), name


def test_the_reference_of_a_unit_is_nan_where_autograd_is() -> None:
    """Gradients of an inactive hidden unit, which a NaN does not reach, too."""
    image, weights = unit_inputs((1, 3, 12, 10), hidden=2)
    grad_out = torch.randn_like(image)
    grad_out[0, 1, 6, 5] = NAN
    results = []
    for unit in (partial(fk.dual_attention_unit, backend="reference"), eager.dual_attention_unit):
        leaves = [t.detach().clone().requires_grad_() for t in (image, *weights)]
        results.append(torch.autograd.grad(unit(leaves[0], leaves[1:]), leaves, grad_out))
    for name, actual, expected in zip(("image", *DAUWeights._fields), *results, strict=True):
        assert torch.equal(actual.isfinite(), expected.isfinite()), name
