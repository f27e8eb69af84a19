"""Every bad input gets an error that carries the value and the expected form."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

import fermt_kernels as fk
from fermt_kernels.testing import attention_inputs, unit_inputs

Q, K, V = attention_inputs((2, 3, 10, 16))
QKV = torch.zeros(2, 10, 96)
X, WEIGHTS = unit_inputs((1, 3, 8, 8))


def weights(**changed: torch.Tensor) -> fk.DAUWeights:
    return fk.DAUWeights(*WEIGHTS)._replace(**changed)


BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "not a tensor": (
        lambda: fk.attention([1.0], K, V, 3),
        TypeError,
        "q must be a tensor of shape (B, H, N, D), got list",
    ),
    "three dimensions": (
        lambda: fk.attention(Q[0], K, V, 3),
        ValueError,
        "q must have shape (B, H, N, D), got (3, 10, 16)",
    ),
    "shapes differ": (
        lambda: fk.attention(Q, K[:, :, :9], V, 3),
        ValueError,
        "k must have the shape of q, (2, 3, 10, 16); got (2, 3, 9, 16)",
    ),
    "integers": (
        lambda: fk.attention(Q.int(), K.int(), V.int(), 3),
        TypeError,
        "float32, bfloat16, float16, float64, got torch.int32",
    ),
    "dtypes differ": (
        lambda: fk.attention(Q, K, V.bfloat16(), 3),
        TypeError,
        "v must have the dtype of q, torch.float32; got torch.bfloat16",
    ),
    "devices differ": (
        lambda: fk.attention(Q, K.to("meta"), V, 3),
        ValueError,
        "k must be on cpu, where q is; got meta",
    ),
    "no head dim": (
        lambda: fk.attention(Q[..., :0], K[..., :0], V[..., :0], 3),
        ValueError,
        "head dim must be at least 1",
    ),
    "num_template too large": (
        lambda: fk.attention(Q, K, V, 11),
        ValueError,
        "num_template must lie in [0, 10], the number of tokens; got 11",
    ),
    "num_template negative": (lambda: fk.attention(Q, K, V, -1), ValueError, "got -1"),
    "num_template a float": (lambda: fk.attention(Q, K, V, 3.0), TypeError, "num_template must be an int, got 3.0"),
    "pattern": (
        lambda: fk.attention(Q, K, V, 3, "crossed"),
        ValueError,
        "unknown pattern 'crossed'; expected one of self, mixed, full, one_way_cross, cross",
    ),
    "scale": (
        lambda: fk.attention(Q, K, V, 3, scale="0.5"),
        TypeError,
        "scale must be a number or None for head_dim ** -0.5, got '0.5'",
    ),
    "backend": (
        lambda: fk.attention(Q, K, V, 3, backend="cuda"),
        ValueError,
        "unknown backend 'cuda'; expected one of auto, triton, cpp, reference",
    ),
    "packed: two dimensions": (
        lambda: fk.attention_packed(QKV[0], 2, 3),
        ValueError,
        "qkv must have shape (B, N, 3 C), got (10, 96)",
    ),
    "packed: heads": (
        lambda: fk.attention_packed(QKV, 5, 3),
        ValueError,
        "3 * num_heads * head_dim with num_heads = 5; got 96",
    ),
    "packed: no heads": (lambda: fk.attention_packed(QKV, 0, 3), ValueError, "num_heads must be a positive int, got 0"),
    "packed: num_template": (
        lambda: fk.mixed_attention(QKV, 2, 99),
        ValueError,
        "[0, 10], the number of tokens; got 99",
    ),
    "unit: no image": (
        lambda: fk.dual_attention_unit(X[:, :, :0], weights()),
        ValueError,
        "at least one channel and one pixel, got (1, 3, 0, 8)",
    ),
    "unit: three dimensions": (
        lambda: fk.dual_attention_unit(X[0], weights()),
        ValueError,
        "x must have shape (B, C, H, W), got (3, 8, 8)",
    ),
    "unit: channels": (
        lambda: fk.dual_attention_unit(X[:, :2], weights()),
        ValueError,
        "proj_1_bias must have shape (2,), got (3,)",
    ),
    "unit: even kernel": (
        lambda: fk.dual_attention_unit(X, weights(conv0_weight=torch.zeros(3, 1, 4, 4))),
        ValueError,
        "conv0_weight must have shape (3, 1, K, K) with K odd, got (3, 1, 4, 4)",
    ),
    "unit: hidden sizes": (
        lambda: fk.dual_attention_unit(X, weights(fc_2_weight=torch.zeros(3, 2))),
        ValueError,
        "fc_2_weight must have shape (3, 1), got (3, 2)",
    ),
    "unit: dtype": (
        lambda: fk.dual_attention_unit(X.double(), weights()),
        TypeError,
        "proj_1_weight must have the dtype of x, torch.float64",
    ),
    "unit: a weight missing": (
        lambda: fk.dual_attention_unit(X, WEIGHTS[:-1]),
        ValueError,
        "weights must be 12 tensors, got 11",
    ),
    "unit: a weight not a tensor": (
        lambda: fk.dual_attention_unit(X, weights(conv1_bias=None)),
        TypeError,
        "conv1_bias must be a tensor, got NoneType",
    ),
    "module: heads": (
        lambda: fk.modules.TemplateSearchAttention(10, 3),
        ValueError,
        "dim must be a multiple of num_heads; got dim 10 and num_heads 3",
    ),
    "module: pattern": (lambda: fk.modules.TemplateSearchAttention(12, 3, "x"), ValueError, "unknown pattern 'x'"),
    "module: backend": (lambda: fk.modules.DualAttentionUnit(backend="x"), ValueError, "unknown backend 'x'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, error, message = BAD[case]
    with pytest.raises(error, match=re.escape(message)):
        call()
