"""Swapped models under PyTorch's exporters and tracers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn as nn

import fermt_kernels as fk

from .test_swap_trust import DIM, Plain, Unit

MODELS = {
    "attention": (Plain, (2, 6, DIM)),
    "unit": (Unit, (2, 3, 12, 10)),
}


@pytest.fixture(params=MODELS)
def swapped(request: pytest.FixtureRequest) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    kind, shape = MODELS[request.param]
    model, x = nn.Sequential(kind()).eval(), torch.randn(shape)
    expected = model(x).detach()
    (row,) = fk.swap(model)
    assert row.done, row.detail
    return model, x, expected


def test_symbolic_trace_records_the_op(swapped: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    model, x, expected = swapped
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_jit_trace(swapped: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    model, x, expected = swapped
    torch.testing.assert_close(torch.jit.trace(model, x)(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnx_has_standard_operators_alone(
    swapped: tuple[nn.Module, torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    model, x, _ = swapped
    torch.onnx.export(model, (x,), tmp_path / "model.onnx", verbose=False)
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert graph.node
    assert {node.domain for node in graph.node} <= {""}


def test_our_own_modules_are_traced() -> None:
    layer, x = fk.modules.Linear(8, 4), torch.randn(2, 8)
    assert torch.equal(torch.fx.symbolic_trace(nn.Sequential(layer))(x), layer(x))


def test_an_op_alone_says_how() -> None:
    class Alone(nn.Module):
        def forward(self, qkv: torch.Tensor) -> torch.Tensor:
            return fk.mixed_attention(qkv, 4, 2)

    with pytest.raises(TypeError, match=r"unswap"):
        torch.fx.symbolic_trace(Alone())
