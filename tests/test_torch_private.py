"""PyTorch's private API does what this package uses it for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fermt_kernels import torch_private


def test_a_marked_function_is_a_constant_of_the_graph() -> None:
    calls = []

    @torch_private.constant_when_traced
    def choose() -> str:
        calls.append(1)
        print("a graph break, were it traced")
        return "cosine"

    def function(x: Tensor) -> Tensor:
        return x.cos() if choose() == "cosine" else x.sin()

    compiled = torch.compile(function, fullgraph=True, backend="eager")
    x = torch.randn(3)
    assert torch.equal(compiled(x), x.cos())
    traced = len(calls)
    assert traced > 0
    compiled(x)
    assert len(calls) == traced


def test_an_excluded_key_is_skipped_and_comes_back() -> None:
    without_autocast = torch_private.excluding_dispatch_key("AutocastCPU")
    a, b = torch.randn(4, 4), torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ b).dtype == torch.bfloat16
        for _ in range(2):
            with without_autocast():
                assert (a @ b).dtype == torch.float32
        assert (a @ b).dtype == torch.bfloat16


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(AttributeError, match="AutocastAbacus"):
        torch_private.excluding_dispatch_key("AutocastAbacus")


def test_the_extension_module_is_a_file() -> None:
    assert Path(torch_private.extension_path()).is_file()


def test_transforms_and_forward_mode_are_seen() -> None:
    x = torch.ones(3)
    assert not torch_private.transformed([x])
    seen = []
    torch.func.vmap(lambda row: seen.append(torch_private.transformed([row])) or row)(x)
    with torch.autograd.forward_ad.dual_level():
        seen.append(torch_private.transformed([x]))
        seen.append(torch_private.transformed([torch.autograd.forward_ad.make_dual(x, x)]))
    assert seen == [True, False, True]
