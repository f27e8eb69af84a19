"""The module that stands in for a model's own attention."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..children import is_hooked
from ..ops import attention_packed

torch.fx.wrap("attention_packed")  # torch.fx.symbolic_trace records a call and does not look inside

TEMPLATE_GRID = ("Hz", "Wz")  # the template's patches along its sides, as trackers of this family pass them
BLOCK_NUMBER = "i"  # the block's number
SUPPORTED_ARGUMENTS = (*TEMPLATE_GRID, "Hx", "Wx", BLOCK_NUMBER)  # arguments that are understood
# Arguments that may only be passed as None or False.
UNSUPPORTED_ARGUMENTS = ("mask", "attn_mask", "return_attention", "is_causal", "attn_bias")
CALLED_CHILDREN = ("qkv", "proj", "proj_drop")  # children that stay and are called
KEPT_DROPOUT = "proj_drop"  # the child that is called after the projection
# Plain values that do not affect the result, or that the comparison covers.
HARMLESS_ATTRIBUTES = {
    *("num_heads", "head_dim", "scale", "dim", "attn_dim", "in_dim", "qkv_bias", "qk_scale", "fused_attn"),
    *("z_size", "x_size"),
}
OFF_VALUES = (None, False, 0, 0.0, "", ())  # values of an unknown attribute that switches nothing on
MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
HOOKS = tuple(name for name in MODULE_ATTRIBUTES if "_hooks" in name)  # dictionaries of those who listen to a module
HOOK_KIND = "_is_full_backward_hook"
SHARED_DICTIONARIES = ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set")
OWN_ATTRIBUTES = (
    *("patterns", "block", "num_template", "backend", "ignored", "one_for_all"),
    *("_names", "_defaults", "_original"),
)


class SwappedAttention(nn.Module):
    """Stands in for an attention: its projections and arguments, and the fused kernel between them.

    Children, buffers and hooks are the original's own dictionaries: what is wrapped, hooked or taken off is so in both,
    and the state dict keeps its order. The original is kept, outside the module tree, for `unswap`.

    Args:
        original: the attention.
        patterns: one, or one for each block.
        block: its own number, for a forward that takes none.
        num_template: template tokens, or None for all.
        backend: as of `attention_packed`.
        ignored: names that the caller of `swap` knows to change nothing.
        one_for_all: whether one pattern was requested for all blocks, whatever their number.
    """

    qkv: nn.Module
    proj: nn.Module
    proj_drop: nn.Module
    num_heads: int
    scale: float | None
    patterns: tuple[str, ...]
    block: int
    num_template: int | None
    backend: str
    ignored: frozenset[str]
    one_for_all: bool
    _names: tuple[str, ...]
    _defaults: dict[str, Any]
    _original: tuple[nn.Module]

    def __init__(
        self,
        original: nn.Module,
        patterns: Sequence[str],
        block: int,
        num_template: int | None,
        backend: str,
        ignored: Collection[str] = (),
        one_for_all: bool = False,
    ) -> None:
        super().__init__()
        for name in SHARED_DICTIONARIES:
            self.__dict__[name] = vars(original)[name]
        share_hooks(original, self)
        self.__dict__.update(plain_attributes(original))
        parameters = inspect.signature(original.forward).parameters
        own = {
            "num_heads": int(getattr(original, "num_heads")),  # noqa: B009  (an int, which mypy takes for a module)
            "scale": getattr(original, "scale", None),
            "patterns": tuple(patterns),
            "block": block,
            "num_template": num_template,
            "backend": backend,
            "ignored": frozenset(ignored),
            "one_for_all": one_for_all,
            "_names": tuple(parameters),
            "_defaults": {
                name: parameter.default
                for name, parameter in parameters.items()
                if name in SUPPORTED_ARGUMENTS and parameter.default is not parameter.empty
            },
            "_original": (original,),  # in a tuple, or it would become a child
        }
        self.__dict__.update(own)
        self.train(original.training)

    @property
    def original(self) -> nn.Module:
        """The attention that was replaced, with what its parts, its attributes and its hooks are now."""
        module = self._original[0]
        kept = {
            name: value for name, value in plain_attributes(self) if name in vars(module) and name not in OWN_ATTRIBUTES
        }
        module.__dict__.update(kept)
        share_hooks(self, module)
        return module.train(self.training)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses to set what the original's forward may read, and this one does not."""
        kept = vars(self).get("_original")
        if (
            kept
            and name not in (*OWN_ATTRIBUTES, *CALLED_CHILDREN, *HARMLESS_ATTRIBUTES, *self.ignored)
            and name not in self._modules
        ):
            own = name in vars(kept[0]) and name not in MODULE_ATTRIBUTES
            if (own or hasattr(type(kept[0]), name)) and not hasattr(nn.Module, name) and not switched_off(value):
                raise AttributeError(
                    f"a fused attention does not read {name} (set to {value!r:.60}); fk.unswap(model), set it, and swap"
                )
        super().__setattr__(name, value)

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
            if (
                name not in SUPPORTED_ARGUMENTS
                and name not in self.ignored
                and value is not None
                and value is not False
            ):
                raise ValueError(f"a fused attention has no {name}; restore the original (fk.unswap) to use it")
        for name, child in self._modules.items():
            if child is not None and name not in self.ignored and (reason := child_objection(name, child, True)):
                raise RuntimeError(f"{reason}; restore the original (fk.unswap) to use it")
        given = self._defaults | given
        n = given["Hz"] * given["Wz"] if "Hz" in given else self.num_template
        heads = attention_packed(
            self.qkv(x),
            self.num_heads,
            x.shape[1] if n is None else n,
            self._pattern(given.get(BLOCK_NUMBER)),
            scale=self.scale,
            backend=self.backend,
        )
        out: Tensor = self.proj(heads)
        return self.proj_drop(out) if KEPT_DROPOUT in self._modules else out

    def _pattern(self, number: int | None) -> str:
        """The pattern of the block of that number; None where the forward takes none."""
        if self.one_for_all:
            return self.patterns[0]
        if number is None:
            return self.patterns[self.block if len(self.patterns) > 1 else 0]
        if not 0 <= number < len(self.patterns):
            raise ValueError(
                f"expected {BLOCK_NUMBER} from 0 to {len(self.patterns) - 1}, of the blocks compared, got {number}; "
                "request one pattern for each block's number (swap(..., pattern=...)), or fk.unswap(model)"
            )
        return self.patterns[number]

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, block={self.block}, backend={self.backend!r}"


def plain_attributes(module: nn.Module) -> list[tuple[str, Any]]:
    """Names and values of a module's attributes other than its parameters, buffers, children and hooks."""
    return [
        (name, value)
        for name, value in vars(module).items()
        if name not in MODULE_ATTRIBUTES and name != HOOK_KIND and not name.startswith("__")
    ]


def switched_off(value: Any) -> bool:
    """Whether a plain value is one that switches nothing on."""
    return isinstance(value, (type(None), bool, int, float, str, tuple)) and value in OFF_VALUES


def attention_dropout(module: nn.Module) -> float:
    """The probability of an attention's `attn_drop`, 0 where there is none."""
    return float(getattr(getattr(module, "attn_drop", None), "p", 0.0))


def child_objection(name: str, child: nn.Module, acting: bool = False) -> str | None:
    """Why a child of an attention, which a fused one does not call, may be missed; None if it is called or idle.

    Args:
        name, child: as of `named_children`.
        acting: whether a dropout `attn_drop` counts, as it does in a call; a swap counts it elsewhere.
    """
    if name in CALLED_CHILDREN:
        return None
    if is_hooked(child):
        return f"its child {name} has hooks, and would not be called any more"
    if isinstance(child, nn.Dropout):
        if child.p == 0 or (not child.training if acting else name == "attn_drop"):
            return None
        return f"a fused attention has no dropout; set the p of {name} to 0 (it is {child.p})"
    if isinstance(child, nn.Identity) or (name == "softmax" and isinstance(child, nn.Softmax) and child.dim in (-1, 3)):
        return None
    return f"it has a child {name} ({type(child).__name__}), which a fused attention would leave out"


def share_hooks(original: nn.Module, replacement: nn.Module) -> None:
    """Gives a replacement the hooks of the original: the same dictionaries, so that their handles still remove them."""
    for name in (*HOOKS, HOOK_KIND):
        if name in vars(original):
            replacement.__dict__[name] = vars(original)[name]
