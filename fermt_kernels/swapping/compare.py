"""Runs a module and its replacement side by side on small random inputs, in evaluation and in training."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

from .attention import HOOKS, KEPT_DROPOUT

SEED = 0
BATCH = 16
GRIDS = ((2, 2, 2, 3), (1, 3, 3, 2))  # patches of template and search region, as Hz, Wz, Hx, Wx
SEQUENCES = ((BATCH, 6), (BATCH, 11), (1, 331))  # for an attention that takes one alone; the long one is for windows
IMAGES = ((17, 19), (6, 5))  # of a Dual Attention Unit


class Case(NamedTuple):
    """The shape of a module's first argument, and the others by name."""

    shape: tuple[int, ...]
    arguments: dict[str, Any] = {}  # noqa: RUF012  (never changed)


def bare_copy(module: nn.Module) -> nn.Module:
    """A copy to experiment with: without hooks and dropout, and in float32 where it is float64, which is the truth.

    A dropout that is on and stays, `proj_drop`, becomes `Ramp`, so that it counts where it is called.

    Raises:
        Exception: whatever the module's own copying raises.
    """
    with _hooks_set_aside(module), torch.inference_mode(False):
        bare = copy.deepcopy(module)
    for part in list(bare.modules()):
        if isinstance(part, nn.Dropout):
            if part is getattr(bare, KEPT_DROPOUT, None) and part.p > 0:
                setattr(bare, KEPT_DROPOUT, Ramp())
            part.p = 0.0
    return bare.float() if next(bare.parameters()).dtype == torch.float64 else bare


class Ramp(nn.Module):
    """Stands in for a dropout in a comparison: multiplies channels by factors that are all different."""

    p = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.linspace(0.5, 1.5, x.shape[-1], dtype=x.dtype, device=x.device)


def difference(original: nn.Module, replacement: nn.Module, cases: Sequence[Case]) -> str | None:
    """Why a replacement computes something else than the original, or None.

    Results and gradients of the first argument are compared by the accuracy rule: the replacement may be twice as far
    from float64 as the original.

    Args:
        original: a `bare_copy`.
        replacement: what stands in for it, with the same parameters.
        cases: what they are called with.
    """
    from ..testing import inaccuracy  # most programs never compare anything

    parameter = next(original.parameters())
    with torch.inference_mode(False), torch.autocast(parameter.device.type, enabled=False):
        truth_of = copy.deepcopy(original).double()
        for training in (False, True):
            for case in cases:
                generator = torch.Generator(device="cpu").manual_seed(SEED)
                x = torch.randn(case.shape, generator=generator, dtype=torch.float32, device="cpu")
                x = x.to(parameter.device, parameter.dtype)
                results = [_run(module.train(training), x, case) for module in (replacement, original)]
                truths = _run(truth_of.train(training), x.double(), case)
                for what, actual, eager, truth in zip(("result", "gradient"), *results, truths, strict=True):
                    if reason := inaccuracy(actual, eager, truth):
                        where = "training" if training else "evaluation"
                        return f"its {what} on a random input of shape {tuple(x.shape)} differs in {where}: {reason}"
    return None


def _run(module: nn.Module, x: Tensor, case: Case) -> tuple[Tensor, Tensor]:
    """The result, and the gradient of a fixed weighting of it, both on the CPU."""
    forked = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=forked), torch.enable_grad():
        torch.manual_seed(SEED)  # what is random in the module is the same in all of them
        leaf = x.detach().clone().requires_grad_()
        out = module(leaf, **case.arguments)
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device=out.device).view_as(out).to(out.dtype)
        (gradient,) = torch.autograd.grad((out * weights).sum(), leaf)
    return out.detach().cpu(), gradient.detach().cpu()


@contextmanager
def _hooks_set_aside(module: nn.Module) -> Iterator[None]:
    """Takes the hooks of a module and its children off, and puts them on again: the same dictionaries."""
    kept = [(part, name, vars(part)[name]) for part in module.modules() for name in HOOKS if name in vars(part)]
    for part, name, hooks in kept:
        part.__dict__[name] = type(hooks)()
    try:
        yield
    finally:
        for part, name, hooks in kept:
            part.__dict__[name] = hooks
