"""The module that stands in for a model's own attention."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..ops import attention_packed

torch.fx.wrap("attention_packed")  # torch.fx.symbolic_trace records a call and does not look inside

GRID = ("Hz", "Wz")  # the template's patches along its sides, as trackers of this family pass them
PASSED_ON = (*GRID, "Hx", "Wx", "i")  # arguments that are understood
UNSUPPORTED = ("mask", "attn_mask", "return_attention", "is_causal", "attn_bias")  # may be passed as None or False only
HOOKS = tuple(name for name in vars(nn.Module()) if "_hooks" in name)  # dictionaries of those who listen to a module
KEPT_DROPOUT = "proj_drop"  # the child that is called after the projection
HOOK_KIND = "_is_full_backward_hook"


class SwappedAttention(nn.Module):
    """Stands in for an attention: its projections and arguments, and the fused kernel between them.

    Hooks of the original are shared, so that they are called as before and their handles still remove them. The
    original is kept, outside the module tree, for `unswap`.
    """

    def __init__(
        self, original: nn.Module, patterns: Sequence[str], block: int, num_template: int | None, backend: str
    ) -> None:
        super().__init__()
        self.qkv, self.proj = original.get_submodule("qkv"), original.get_submodule("proj")
        self.proj_drop: nn.Module = getattr(original, KEPT_DROPOUT, nn.Identity())
        self.num_heads = int(getattr(original, "num_heads"))  # noqa: B009  (an int, which mypy takes for a module)
        self.scale = getattr(original, "scale", None)
        self.attention_dropout = attention_dropout(original)
        self.patterns, self.block, self.num_template, self.backend = tuple(patterns), block, num_template, backend
        self._names = tuple(inspect.signature(original.forward).parameters)
        self._original = (original,)  # in a tuple, or it would become a child
        share_hooks(original, self)
        self.train(original.training)

    @property
    def original(self) -> nn.Module:
        """The attention that was replaced, with what its projections, its scale and its hooks are now."""
        module = self._original[0]
        module.qkv, module.proj = self.qkv, self.proj
        if KEPT_DROPOUT in dict(module.named_children()):
            module.proj_drop = self.proj_drop
        if "scale" in vars(module):
            vars(module)["scale"] = self.scale
        share_hooks(self, module)
        return module.train(self.training)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        if not 0 < len(args) + len(kwargs) <= len(self._names):
            raise TypeError(f"expected 1 to {len(self._names)} arguments ({', '.join(self._names)})")
        given = dict(zip(self._names, args, strict=False)) | kwargs
        if self._names[0] not in given:
            raise TypeError(f"expected an argument {self._names[0]!r}, got {', '.join(given)}")
        x: Tensor = given.pop(self._names[0])
        for name, value in given.items():
            if name not in self._names:
                raise TypeError(f"unexpected argument {name!r}; expected some of {', '.join(self._names)}")
            if name not in PASSED_ON and value is not None and value is not False:
                raise ValueError(f"a fused attention has no {name}; restore the original (fk.unswap) to use it")
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


def attention_dropout(module: nn.Module) -> float:
    """The probability of an attention's `attn_drop`, 0 where there is none."""
    return float(getattr(getattr(module, "attn_drop", None), "p", 0.0))


def share_hooks(original: nn.Module, replacement: nn.Module) -> None:
    """Gives a replacement the hooks of the original: the same dictionaries, so that their handles still remove them."""
    for name in (*HOOKS, HOOK_KIND):
        if name in vars(original):
            replacement.__dict__[name] = vars(original)[name]
