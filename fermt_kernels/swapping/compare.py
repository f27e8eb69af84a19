"""Runs a module and its replacement side by side on small random inputs, in evaluation and in training."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.utils import parametrize

from .attention import HOOKS, KEPT_DROPOUT

SEED = 0
BATCH = 16
GRIDS = ((2, 2, 2, 3), (1, 3, 3, 2))  # patches of template and search region, as Hz, Wz, Hx, Wx
SEQUENCES = ((BATCH, 6), (BATCH, 11), (1, 331))  # for an attention that takes one alone; the long one is for windows
EXTRA_TOKENS = 3  # tokens more than the grids have, such as those of a second template
WEIGHT_GAIN = 3.0  # of drawn weights: its square is the standard deviation of scores, so the softmax is not uniform
IMAGE_SIZES = ((17, 19), (6, 5))  # of a Dual Attention Unit


class Case(NamedTuple):
    """The shape of a module's first argument, and the others by name."""

    shape: tuple[int, ...]
    arguments: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    optional: bool = False  # whether the original may raise, which says that it is never called so


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


def redraw(layers: Iterable[nn.Module | None]) -> None:
    """Draws new weights, because zeros and small numbers could hide differences that a trained model would show."""
    generator = torch.Generator(device="cpu").manual_seed(SEED)
    with torch.inference_mode(False), torch.no_grad():
        for layer in layers:
            if layer is None or parametrize.is_parametrized(layer):
                continue
            for parameter in layer.parameters(recurse=False):
                drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float32, device="cpu")
                parameter.copy_(drawn * (WEIGHT_GAIN * parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 1))


class Ramp(nn.Module):
    """Stands in for a dropout in a comparison: multiplies channels by factors that are all different."""

    p = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.linspace(0.5, 1.5, x.shape[-1], dtype=x.dtype, device=x.device)


def difference(original: nn.Module, replacement: nn.Module, cases: Sequence[Case]) -> str | None:
    """Why a replacement computes something else than the original, or None.

    Results and gradients of the first argument are compared by the accuracy rule: the replacement may be twice as far
    from float64 as the original. The same parameters must have gradients.

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
                try:
                    eager = _run(original.train(training), x, case)
                except Exception:  # the module's own code may raise anything
                    if case.optional:
                        continue
                    raise
                actual = _run(replacement.train(training), x, case)
                truth = _run(truth_of.train(training), x.double(), case)
                where = (
                    f"on a random input of shape {tuple(x.shape)} differs in {'training' if training else 'evaluation'}"
                )
                for what in ("result", "gradient"):
                    if reason := inaccuracy(getattr(actual, what), getattr(eager, what), getattr(truth, what)):
                        return f"its {what} {where}: {reason}"
                if odd := sorted(actual.reached ^ eager.reached):
                    return f"its gradient {where}: that of {', '.join(odd)} is there in one of the two alone"
    return None


class Run(NamedTuple):
    """What a module gave, on the CPU."""

    result: Tensor
    gradient: Tensor  # of the first argument, for a fixed weighting of the result
    reached: frozenset[str]  # the parameters that have a gradient


def _run(module: nn.Module, x: Tensor, case: Case) -> Run:
    forked = [x.device] if x.device.type == "cuda" else []
    parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    with _buffers_restored(module), torch.random.fork_rng(devices=forked), torch.enable_grad():
        torch.manual_seed(SEED)  # what is random in the module is the same in all of them
        leaf = x.detach().clone().requires_grad_()
        out = module(leaf, **case.arguments)
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device=out.device).view_as(out).to(out.dtype)
        leaves = [leaf, *parameters.values()]
        gradient, *others = torch.autograd.grad((out * weights).sum(), leaves, allow_unused=True)
    if gradient is None:
        raise ValueError("its result does not depend on its argument")
    reached = frozenset(name for name, found in zip(parameters, others, strict=True) if found is not None)
    return Run(out.detach().cpu(), gradient.detach().cpu(), reached)


@contextmanager
def _buffers_restored(module: nn.Module) -> Iterator[None]:
    """Lets each run begin with the same buffers, which a spectral norm changes in training."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


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
