"""Swapped modules in the ways that people train: gradients are those of the model as it was, by the accuracy rule."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn as nn
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import fermt_kernels as fk
from fermt_kernels.testing import assert_accurate, over_families, shaken

from .support.lanes import slow
from .test_swap import TOKENS, Attention, Blocks, GridAttention, Unit

FAMILIES = {"autocast": 4}  # coarse numbers, of which a gate's weights are few


class Tracker(nn.Module):
    """A Dual Attention Unit, patches, and four blocks of attention that take the grids."""

    def __init__(self) -> None:
        super().__init__()
        self.dau, self.patches, self.trunk = Unit(), nn.Conv2d(3, TOKENS[2], 8, 8), Blocks(GridAttention)

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(self.patches(self.dau(images)).flatten(2).mT)


class Alone(nn.Module):
    """Four blocks of attention that take x alone."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.trunk = nn.Conv2d(3, TOKENS[2], 8, 8), Blocks(Attention)

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(self.patches(images).flatten(2).mT)


def plain(model: nn.Module, images: Tensor) -> Tensor:
    return model(images)


def autocast(model: nn.Module, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=images.dtype == torch.float32):
        return model(images).to(images.dtype)


def compiled(model: nn.Module, images: Tensor) -> Tensor:
    return torch.compile(model, fullgraph=True, backend="aot_eager")(images)


def checkpointed(reentrant: bool) -> Callable[[nn.Module, Tensor], Tensor]:
    def run(model: nn.Module, images: Tensor) -> Tensor:
        return checkpoint(model, images, use_reentrant=reentrant)

    return run


def parallel(model: nn.Module, images: Tensor) -> Tensor:
    return DistributedDataParallel(model)(images)


WAYS = {
    "plain": plain,
    "autocast": autocast,
    "compiled": compiled,
    "checkpointed": checkpointed(False),
    "checkpointed, reentrant": checkpointed(True),
    "DistributedDataParallel": parallel,
}


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of this process alone."""
    store: Path = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def gradients(
    kind: type[nn.Module], way: str, swapped: str, dtype: torch.dtype, seed: int, neighbor: int
) -> list[Tensor]:
    """Of the images and of every parameter; `swapped` is a backend, or "" for the model as it was."""
    torch.manual_seed(seed)
    model, images = kind().train(), torch.randn(2, 3, 24, 48)
    with torch.no_grad():
        for part, tensor in enumerate((images, *model.parameters())):
            tensor.copy_(shaken(tensor, 1000 * seed + part, neighbor))
    model, images = model.to(dtype), images.to(dtype).requires_grad_()
    model.trunk.gives_grids = kind is Tracker
    weights = torch.randn(TOKENS)
    parameters = list(model.parameters())
    if swapped:
        assert all(row.done for row in fk.swap(model, backend=swapped))
    (WAYS[way](model, images) * weights.to(dtype)).sum().backward()
    return [copy.deepcopy(tensor.grad) for tensor in (images, *parameters)]


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    ("kind", "case"),
    [
        *((Tracker, case) for case in WAYS),
        *((Alone, case) if case in ("plain", "compiled") else slow(Alone, case) for case in WAYS),
    ],
)
def test_gradients_are_those_of_the_model_as_it_was(kind: type[nn.Module], case: str, backend: str) -> None:
    torch.compiler.reset()

    def over(way: str, swapped: str, dtype: torch.dtype) -> list[Tensor]:
        families = FAMILIES.get(case, 1)
        return over_families(lambda *which: gradients(kind, way, swapped, dtype, *which), families)

    ours, truth = over(case, backend, torch.float32), over("plain", "", torch.float64)
    eager = over(case if case == "autocast" else "plain", "", torch.float32)
    names = ["images", *(name for name, _ in kind().named_parameters())]
    for name, a, e, t in zip(names, ours, eager, truth, strict=True):
        assert_accurate(a, e, t, f"{case}, gradient of {name}", families=True)
