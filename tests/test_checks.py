"""Every bad input gets an error that carries the value and the expected form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import fermt_kernels as fk
from fermt_kernels.testing import attention_inputs, unit_inputs

from .support.errors import refused

Q, K, V = attention_inputs((2, 3, 10, 16))
QKV = torch.zeros(2, 10, 96)
X, WEIGHTS = unit_inputs((1, 3, 8, 8))


def weights(**changed: torch.Tensor) -> fk.DAUWeights:
    return fk.DAUWeights(*WEIGHTS)._replace(**changed)


BAD: dict[str, tuple[Callable[[], object], type[Exception], tuple[object, ...]]] = {
    "not a tensor": (
        lambda: fk.attention([1.0], K, V, 3),
        TypeError,
        ("attention", "q", "(B, H, N, D)", "list"),
    ),
    "three dimensions": (
        lambda: fk.attention(Q[0], K, V, 3),
        ValueError,
        ("attention", "q", "(B, H, N, D)", "(3, 10, 16)"),
    ),
    "shapes differ": (
        lambda: fk.attention(Q, K[:, :, :9], V, 3),
        ValueError,
        ("k", "q", "(2, 3, 10, 16)", "(2, 3, 9, 16)"),
    ),
    "integers": (
        lambda: fk.attention(Q.int(), K.int(), V.int(), 3),
        TypeError,
        ("float32, bfloat16, float16, float64", "torch.int32"),
    ),
    "dtypes differ": (
        lambda: fk.attention(Q, K, V.bfloat16(), 3),
        TypeError,
        ("v", "q", "torch.float32", "torch.bfloat16"),
    ),
    "devices differ": (
        lambda: fk.attention(Q, K.to("meta"), V, 3),
        ValueError,
        ("k", "cpu", "q", "meta"),
    ),
    "no head dim": (
        lambda: fk.attention(Q[..., :0], K[..., :0], V[..., :0], 3),
        ValueError,
        ("head dim", 1),
    ),
    "num_template too large": (
        lambda: fk.attention(Q, K, V, 11),
        ValueError,
        ("num_template", "[0, 10]", 11),
    ),
    "num_template negative": (lambda: fk.attention(Q, K, V, -1), ValueError, ("num_template", "[0, 10]", -1)),
    "num_template a float": (lambda: fk.attention(Q, K, V, 3.0), TypeError, ("num_template", "int", 3.0)),
    "pattern": (
        lambda: fk.attention(Q, K, V, 3, "crossed"),
        ValueError,
        ("pattern", "'crossed'", "self, mixed, full, one_way_cross, cross"),
    ),
    "scale": (
        lambda: fk.attention(Q, K, V, 3, scale="0.5"),
        TypeError,
        ("scale", "'0.5'"),
    ),
    "backend": (
        lambda: fk.attention(Q, K, V, 3, backend="cuda"),
        ValueError,
        ("backend", "'cuda'", "auto, triton, cpp, reference"),
    ),
    "packed: two dimensions": (
        lambda: fk.attention_packed(QKV[0], 2, 3),
        ValueError,
        ("qkv", "(B, N, 3 C)", "(10, 96)"),
    ),
    "packed: heads": (
        lambda: fk.attention_packed(QKV, 5, 3),
        ValueError,
        ("num_heads", 5, 96),
    ),
    "packed: no heads": (lambda: fk.attention_packed(QKV, 0, 3), ValueError, ("num_heads", 0)),
    "packed: num_template": (
        lambda: fk.mixed_attention(QKV, 2, 99),
        ValueError,
        ("num_template", "[0, 10]", 99),
    ),
    "unit: no image": (
        lambda: fk.dual_attention_unit(X[:, :, :0], weights()),
        ValueError,
        ("x", "(1, 3, 0, 8)"),
    ),
    "unit: three dimensions": (
        lambda: fk.dual_attention_unit(X[0], weights()),
        ValueError,
        ("x", "(B, C, H, W)", "(3, 8, 8)"),
    ),
    "unit: channels": (
        lambda: fk.dual_attention_unit(X[:, :2], weights()),
        ValueError,
        ("proj_1_bias", "(2,)", "(3,)"),
    ),
    "unit: even kernel": (
        lambda: fk.dual_attention_unit(X, weights(conv0_weight=torch.zeros(3, 1, 4, 4))),
        ValueError,
        ("conv0_weight", "(3, 1, K, K)", "(3, 1, 4, 4)"),
    ),
    "unit: hidden sizes": (
        lambda: fk.dual_attention_unit(X, weights(fc_2_weight=torch.zeros(3, 2))),
        ValueError,
        ("fc_2_weight", "(3, 1)", "(3, 2)"),
    ),
    "unit: dtype": (
        lambda: fk.dual_attention_unit(X.double(), weights()),
        TypeError,
        ("proj_1_weight", "x", "torch.float64"),
    ),
    "unit: a weight missing": (
        lambda: fk.dual_attention_unit(X, WEIGHTS[:-1]),
        ValueError,
        ("weights", 12, 11),
    ),
    "unit: a weight not a tensor": (
        lambda: fk.dual_attention_unit(X, weights(conv1_bias=None)),
        TypeError,
        ("conv1_bias", "NoneType"),
    ),
    "jagged": (
        lambda: fk.mixed_attention(torch.nested.nested_tensor([QKV[0], QKV[1, :5]], layout=torch.jagged), 2, 3),
        TypeError,
        ("qkv", "torch.jagged"),
    ),
    "sparse": (lambda: fk.mixed_attention(QKV.to_sparse(), 2, 3), TypeError, ("qkv", "torch.sparse_coo")),
    "linear: whole numbers": (
        lambda: fk.linear(Q, K[0, 0], out_dtype=torch.int32),
        TypeError,
        ("out_dtype", "float32, bfloat16, float16, float64", "torch.int32"),
    ),
    "module: heads": (
        lambda: fk.modules.TemplateSearchAttention(10, 3),
        ValueError,
        ("dim 10", "num_heads 3"),
    ),
    "module: pattern": (lambda: fk.modules.TemplateSearchAttention(12, 3, "x"), ValueError, ("pattern", "'x'")),
    "module: backend": (lambda: fk.modules.DualAttentionUnit(backend="x"), ValueError, ("backend", "'x'")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, error, values = BAD[case]
    with refused(error, *values):
        call()
