"""Puts the kernels into somebody else's model, in place: attention and Dual Attention Units of the usual shape."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn as nn
from torch import Tensor

from . import checks
from .backends import requested
from .modules import DualAttentionUnit, Linear, PatchEmbed, TemplateSearchAttention
from .ops import attention_packed
from .spec.dual_attention_unit import STATE_KEYS

_UNUSABLE = ("mask", "attn_mask", "return_attention")  # arguments that ask for what a fused kernel does not have
_GRID = ("Hz", "Wz")  # the template's patches along its sides, as trackers of this family pass them


class Replacement(NamedTuple):
    """One module that `swap` met."""

    name: str  # its path in the model
    kind: str  # "attention" or "dual attention unit"
    done: bool
    detail: str  # the pattern; or, where nothing was replaced, why


class SwapReport(tuple[Replacement, ...]):
    """What `swap` replaced and what it refused; prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        lines = [f"{'replaced' if row.done else 'refused':<9} {row.kind:<20} {row.name}: {row.detail}" for row in self]
        return "\n".join(lines)


def swap(
    model: nn.Module,
    *,
    pattern: str | Sequence[str] | None = None,
    num_template: int | None = None,
    backend: str = "auto",
) -> SwapReport:
    """Replaces the attention and the Dual Attention Units of `model` by the kernels; parameters and state dict stay.

    An attention is a module with linear layers `qkv` and `proj` and an int `num_heads` (timm's, OSTrack's, FERMT's).
    Where its forward takes `(x, Hz, Wz, Hx, Wx, i)`, the template has Hz * Wz tokens and block i its pattern; where it
    takes x alone, `num_template` says, and the block is the number in the module's path. A Dual Attention Unit is a
    module with FERMT's keys. Modules of this package only get the backend.

    Args:
        model: changed in place.
        pattern: one pattern for all blocks, or one for each; None means FERMT's (first half "mixed", second half
            "cross") where the forward takes Hz and Wz, and "full" where it takes x alone.
        num_template: template tokens, for a forward that takes x alone; not needed for "full".
        backend: "auto" or a name from `fermt_kernels.backends()`.

    Returns:
        What was replaced, and what was refused with the reason: attention dropout above 0 in training, parameters
        beyond `qkv` and `proj`, a missing `num_template`. A call that asks for a mask or for the attention map
        raises when it comes.

    Raises:
        ValueError: an unknown pattern or backend, as many patterns as there are not blocks, or nothing to replace.
    """
    requested(backend)
    attentions = [name for name, module in model.named_modules() if _is_attention(module)]
    patterns = [pattern] if isinstance(pattern, str) else list(pattern or ())
    for name in patterns:
        checks.pattern("swap", name)
    if len(patterns) > 1 and len(patterns) != len(attentions):
        raise ValueError(f"swap: expected one pattern or one for each of {len(attentions)} blocks, got {len(patterns)}")
    rows = []
    for name, module in list(model.named_modules()):
        if isinstance(module, (Linear, PatchEmbed)):
            module.backend = backend
        elif isinstance(module, (TemplateSearchAttention, DualAttentionUnit)):
            module.backend = backend
            kind = "attention" if isinstance(module, TemplateSearchAttention) else "dual attention unit"
            rows.append(Replacement(name, kind, True, f"a module of this package, now on {backend}"))
        elif _is_attention(module):
            rows.append(_swap_attention(model, name, module, patterns, len(attentions), num_template, backend))
        elif _is_unit(module):
            rows.append(_swap_unit(model, name, module, backend))
    if not rows:
        raise ValueError(
            "swap: found nothing to replace; expected modules with linear layers 'qkv' and 'proj' and an int "
            "'num_heads', or a Dual Attention Unit under FERMT's keys"
        )
    return SwapReport(rows)


class SwappedAttention(nn.Module):
    """Stands in for a model's attention: its parameters, its arguments, our kernel."""

    def __init__(
        self, original: nn.Module, patterns: Sequence[str], block: int, num_template: int | None, backend: str
    ) -> None:
        super().__init__()
        self.qkv, self.proj = original.get_submodule("qkv"), original.get_submodule("proj")
        self.proj_drop: nn.Module = getattr(original, "proj_drop", nn.Identity())
        self.num_heads = int(getattr(original, "num_heads"))  # noqa: B009  (an int, which mypy takes for a module)
        self.scale = getattr(original, "scale", None)
        self.attention_dropout = _dropout(original)
        self.patterns, self.block, self.num_template, self.backend = tuple(patterns), block, num_template, backend
        self._names = tuple(inspect.signature(original.forward).parameters)
        self.train(original.training)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        given = dict(zip(self._names[1:], args, strict=False)) | kwargs
        for name in _UNUSABLE:
            if given.get(name) is not None and given[name] is not False:
                raise ValueError(f"a fused attention has no {name}; call the original module for it")
        if self.training and self.attention_dropout > 0:
            raise RuntimeError(f"a fused attention has no dropout; set attn_drop to 0 (it is {self.attention_dropout})")
        n = given["Hz"] * given["Wz"] if "Hz" in given else self.num_template
        pattern = self.patterns[given.get("i", self.block) if len(self.patterns) > 1 else 0]
        heads = attention_packed(
            self.qkv(x), self.num_heads, x.shape[1] if n is None else n, pattern, scale=self.scale, backend=self.backend
        )
        return self.proj_drop(self.proj(heads))

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, block={self.block}, backend={self.backend!r}"


def _is_attention(module: nn.Module) -> bool:
    layers = (getattr(module, "qkv", None), getattr(module, "proj", None))
    named = all(isinstance(layer, nn.Linear) for layer in layers) and isinstance(
        getattr(module, "num_heads", None), int
    )
    return named and not isinstance(module, (TemplateSearchAttention, SwappedAttention))


def _is_unit(module: nn.Module) -> bool:
    own = {name for name, _ in module.named_parameters()}
    return own == set(STATE_KEYS.values()) and not isinstance(module, DualAttentionUnit)


def _swap_attention(
    model: nn.Module,
    name: str,
    module: nn.Module,
    patterns: Sequence[str],
    depth: int,
    num_template: int | None,
    backend: str,
) -> Replacement:
    arguments = tuple(inspect.signature(module.forward).parameters)
    by_grid = all(side in arguments for side in _GRID)
    if not patterns:
        half = depth // 2
        patterns = ("mixed",) * (depth - half) + ("cross",) * half if by_grid else ("full",)
    index = re.findall(r"\d+", name)
    block = int(index[-1]) if index else 0
    own = patterns[min(block, len(patterns) - 1)]
    extra = [key for key, _ in module.named_parameters() if key.split(".")[0] not in ("qkv", "proj")]
    reason = None
    if extra:
        reason = f"it has parameters beyond qkv and proj ({', '.join(extra)}), which a fused attention would leave out"
    elif module.training and _dropout(module) > 0:
        reason = f"attention dropout is {_dropout(module)} in training; a fused attention has none, so set it to 0"
    elif not by_grid and num_template is None and own != "full":
        reason = f"pattern {own!r} needs num_template, and its forward takes neither Hz nor Wz"
    if reason:
        return Replacement(name, "attention", False, reason)
    model.set_submodule(name, SwappedAttention(module, patterns, block, num_template, backend))
    return Replacement(
        name, "attention", True, f"pattern {own!r}" + (" (of the block's argument i)" if "i" in arguments else "")
    )


def _swap_unit(model: nn.Module, name: str, module: nn.Module, backend: str) -> Replacement:
    parameters = dict(module.named_parameters())
    channels, hidden = parameters["proj_1.weight"].shape[0], parameters["spatial_gating_unit.fc.0.weight"].shape[0]
    unit = DualAttentionUnit(channels, hidden, backend=backend)
    shapes = {key: tuple(value.shape) for key, value in unit.named_parameters()}
    odd = [key for key, value in parameters.items() if tuple(value.shape) != shapes[key]]
    if odd:
        return Replacement(name, "dual attention unit", False, f"shapes differ from FERMT's: {', '.join(odd)}")
    for key, parameter in parameters.items():
        owner, _, leaf = key.rpartition(".")
        setattr(unit.get_submodule(owner), leaf, parameter)
    model.set_submodule(name, unit.train(module.training))
    return Replacement(name, "dual attention unit", True, f"{channels} channels")


def _dropout(module: nn.Module) -> float:
    return float(getattr(getattr(module, "attn_drop", None), "p", 0.0))
