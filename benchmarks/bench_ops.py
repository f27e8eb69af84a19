"""pytest-benchmark cases of the ops: `pytest benchmarks`. A wrong result is not timed."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import fermt_kernels as fk
from fermt_kernels.backends import BACKENDS, unsupported_reason
from fermt_kernels.testing import assert_accurate

from .cases import ATTENTION_CASES, UNIT_CASES, AttentionCase, UnitCase


def skip_unless_supported(backend: str, op: str) -> None:
    if reason := unsupported_reason(backend, op, "cpu", torch.float32):
        pytest.skip(f"backend {backend}: {reason}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ATTENTION_CASES, ids=lambda case: case.name)
def bench_attention(benchmark: BenchmarkFixture, case: AttentionCase, backend: str) -> None:
    skip_unless_supported(backend, "attention_forward")
    qkv = case.qkv()

    def run(x: torch.Tensor = qkv, name: str = backend) -> torch.Tensor:
        return fk.attention_packed(x, case.heads, case.n, case.pattern, backend=name)

    assert_accurate(run(), run(name="reference"), run(qkv.double(), "reference"))
    benchmark.group = case.name
    with torch.inference_mode():
        benchmark(run)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", UNIT_CASES, ids=lambda case: case.name)
def bench_dual_attention_unit(benchmark: BenchmarkFixture, case: UnitCase, backend: str) -> None:
    skip_unless_supported(backend, "dual_attention_unit_forward")
    image = case.image()

    def run(x: torch.Tensor = image, name: str = backend) -> torch.Tensor:
        return fk.dual_attention_unit(x, case.weights(x.dtype), backend=name)

    assert_accurate(run(), run(name="reference"), run(image.double(), "reference"))
    benchmark.group = case.name
    with torch.inference_mode():
        benchmark(run)
