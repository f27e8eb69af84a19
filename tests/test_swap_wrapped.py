"""A swap under wrappers, adapters, parametrizations, hooks on weights, and sharding: right, or refused in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn as nn
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.utils import parametrizations, parametrize, prune

import fermt_kernels as fk
from fermt_kernels.swapping.attention import SwappedAttention

from .support.errors import refused
from .test_swap_trust import DIM, Plain, Unit


class Halved(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return 0.5 * weight


class Adapter(nn.Module):
    """A low-rank adapter around a layer, as PEFT's: it has the layer under `base_layer`."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_layer = base
        inner = base.base_layer if isinstance(base, Adapter) else base
        if isinstance(inner, nn.Linear):
            self.down, self.up = nn.Linear(inner.in_features, 2, bias=False), nn.Linear(2, inner.out_features)
        else:
            assert isinstance(inner, nn.Conv2d)
            self.down, self.up = nn.Conv2d(inner.in_channels, 2, 1), nn.Conv2d(2, inner.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.up(self.down(x))

    def merged(self) -> nn.Linear:
        with torch.no_grad():
            self.base_layer.weight += self.up.weight @ self.down.weight
            self.base_layer.bias += self.up.bias
        return self.base_layer


def adapt(name: str, times: int = 1) -> Callable[[nn.Module], None]:
    def change(module: nn.Module) -> None:
        for _ in range(times):
            setattr(module, name, Adapter(getattr(module, name)))

    return change


def parametrized(name: str) -> Callable[[nn.Module], None]:
    return lambda module: parametrize.register_parametrization(module.get_submodule(name), "weight", Halved())


RIGHT: dict[str, Callable[[nn.Sequential], object]] = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "data parallel": nn.DataParallel,
    "adapter on qkv": lambda model: adapt("qkv")(model[0]),
    "adapter on proj": lambda model: adapt("proj")(model[0]),
    "adapter on an adapter": lambda model: adapt("qkv", times=2)(model[0]),
    "parametrized": lambda model: parametrized("proj")(model[0]) and None,
    "weight norm": lambda model: parametrizations.weight_norm(model[0].qkv) and None,
    "spectral norm": lambda model: parametrizations.spectral_norm(model[0].qkv) and None,
    "orthogonal": lambda model: parametrizations.orthogonal(model[0].proj) and None,
}


@pytest.mark.parametrize("how", RIGHT)
def test_what_is_called_acts(how: str) -> None:
    inner, x = nn.Sequential(Plain()), torch.randn(2, 6, DIM)
    changed = RIGHT[how](inner)
    model = (changed if isinstance(changed, nn.Module) else inner).eval()
    expected = model(x)
    (row,) = fk.swap(model)
    assert row.done, row.detail
    assert isinstance(inner[0], SwappedAttention)
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_adapters_that_come_and_go_after_the_swap() -> None:
    plain, x = nn.Sequential(Plain()).eval(), torch.randn(2, 6, DIM)
    fk.swap(plain)
    before = plain(x)
    adapt("qkv")(plain[0])
    adapted = plain(x)
    assert not torch.allclose(adapted, before, atol=1e-3)
    plain[0].qkv = plain[0].qkv.merged()
    torch.testing.assert_close(plain(x), adapted, rtol=1e-4, atol=1e-5)
    fk.unswap(plain)
    torch.testing.assert_close(plain(x), adapted, rtol=1e-4, atol=1e-5)


HOOKED: dict[str, Callable[[nn.Linear], object]] = {
    "weight norm": nn.utils.weight_norm,
    "pruning": lambda layer: prune.random_unstructured(layer, "weight", 0.3),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("how", HOOKED)
def test_weights_that_a_hook_computes_are_refused(how: str) -> None:
    model, x = nn.Sequential(Plain()).eval(), torch.randn(2, 6, DIM)
    HOOKED[how](model[0].qkv)
    expected = model(x)
    (row,) = fk.swap(model)
    assert (row.done, "qkv.weight is computed by a hook" in row.detail) == (False, True), row.detail
    assert torch.equal(model(x), expected)


UNITS: dict[str, tuple[Callable[[Unit], object], str]] = {
    "adapter": (adapt("proj_1"), "proj_1 has an adapter, .* merge it first"),
    "parametrized": (parametrized("proj_2"), "proj_2 is parametrized, .* remove the parametrization first"),
    "spectral norm": (lambda unit: parametrizations.spectral_norm(unit.proj_2), "proj_2 is parametrized"),
    "old weight norm": (lambda unit: nn.utils.weight_norm(unit.proj_1), "proj_1.weight is computed by a hook"),
    "pruning": (lambda unit: prune.random_unstructured(unit.proj_1, "weight", 0.3), "proj_1.weight is computed by"),
    "another parameter": (lambda unit: unit.register_parameter("gamma", nn.Parameter(torch.ones(1))), "gamma"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("how", UNITS)
def test_units_whose_weights_are_not_read_as_they_are(how: str) -> None:
    """They are named, where "nothing to replace" would not say why."""
    change, reason = UNITS[how]
    model, x = nn.Sequential(Unit()).eval(), torch.randn(2, 3, 8, 9)
    change(model[0])
    expected = model(x)
    (row,) = fk.swap(model)
    assert (row.done, bool(re.search(reason, row.detail))) == (False, True), row.detail
    assert torch.equal(model(x), expected)


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def one_part_sharded(model: nn.Sequential) -> nn.Module:
    model[0] = FullyShardedDataParallel(model[0], device_id=torch.device("cpu"), use_orig_params=True)
    return model


SHARDED: dict[str, Callable[[nn.Sequential], nn.Module]] = {
    "FSDP": lambda model: FullyShardedDataParallel(model, device_id=torch.device("cpu")),
    "FSDP, a part": one_part_sharded,
    "FSDP2": fully_shard,
}


@pytest.mark.filterwarnings("ignore")  # of FSDP on a CPU
@pytest.mark.parametrize("how", SHARDED)
def test_sharded_models_are_refused_and_swapped_ones_can_be_sharded(how: str, one_process: None) -> None:
    x = torch.randn(2, 6, DIM)
    model = nn.Sequential(Plain()).eval()
    expected = model(x)
    sharded = SHARDED[how](nn.Sequential(Plain())).eval()
    for call in (lambda: None, lambda: sharded(x)):  # FSDP2 gathers parameters in a call, and they look like any others
        call()
        with refused(ValueError, "FullyShardedDataParallel" if how != "FSDP2" else "FSDPModule"):
            fk.swap(sharded)
    fk.swap(model)
    torch.testing.assert_close(SHARDED[how](model)(x), expected, rtol=1e-5, atol=1e-5)
