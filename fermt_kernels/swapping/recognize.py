"""Recognizes attention and Dual Attention Units in other people's models, and says why a module is not taken."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn as nn
from torch.nn.utils import parametrize

from .. import checks
from ..children import PLAIN_LAYERS, is_hooked
from ..modules import DualAttentionUnit, TemplateSearchAttention
from ..spec.dual_attention_unit import LEAVES, STATE_KEYS
from ..wrapped import ADAPTER_ATTRIBUTE
from .attention import (
    CALLED_CHILDREN,
    HARMLESS_ATTRIBUTES,
    SUPPORTED_ARGUMENTS,
    TEMPLATE_GRID,
    UNSUPPORTED_ARGUMENTS,
    SwappedAttention,
    child_objection,
    plain_attributes,
    switched_off,
)

OVERRIDES = (  # what a class may do on its own, and a replacement does not
    *("train", "_apply", "get_extra_state", "set_extra_state", "state_dict", "load_state_dict"),
    *("_save_to_state_dict", "_load_from_state_dict"),
)


def is_attention(module: nn.Module) -> bool:
    """Whether a module has the parts of a joint-projection attention: `qkv`, `proj` and an int `num_heads`."""
    heads = checks.index(getattr(module, "num_heads", None))
    own = isinstance(module, (TemplateSearchAttention, SwappedAttention))
    has_parts = all(linear_in(getattr(module, name, None)) for name in ("qkv", "proj"))
    return has_parts and isinstance(heads, int) and not isinstance(heads, bool) and not own


def linear_in(module: Any) -> nn.Linear | None:
    """A linear layer itself, or the one inside adapters; None if it is something else."""
    while (inner := getattr(module, ADAPTER_ATTRIBUTE, None)) is not None:
        module = inner
    return module if isinstance(module, nn.Linear) else None


def is_unit(module: nn.Module) -> bool:
    """Whether a module has the parameters of a Dual Attention Unit, under the authors' names or those of wrappers."""
    names = {_original_name(name) for name, _ in module.named_parameters()}
    return names >= set(STATE_KEYS.values()) and not isinstance(module, DualAttentionUnit)


def _original_name(name: str) -> str:
    """The name that a parameter had before an adapter, a parametrization, a norm or pruning took it."""
    return re.sub(rf"\.{ADAPTER_ATTRIBUTE}(?=\.)|\.parametrizations(?=\.)|\.original[01]?$|_(orig|g|v)$", "", name)


def attention_objection(module: nn.Module, ignore: Collection[str]) -> str | None:
    """The reason not to replace an attention, judged by its parts; None if there is none."""
    checks: tuple[Callable[[nn.Module, Collection[str]], str | None], ...] = (
        _placement, _overrides, _signature, _parameters, _buffers, _children, _attributes,
    )  # fmt: skip
    return next((reason for check in checks if (reason := check(module, ignore))), None)


def unit_objection(module: nn.Module) -> str | None:
    """The reason not to replace a Dual Attention Unit, judged by its parts; None if there is none."""
    if reason := _placement(module, ()) or _overrides(module, ()):
        return reason
    names = list(inspect.signature(module.forward).parameters)
    if len(names) != 1:
        return f"its forward takes ({', '.join(names)}), expected the image alone"
    if "forward" in vars(module):
        return "its forward was replaced on the instance, and would not be called any more"
    for name, child in module.named_modules():
        if isinstance(child, nn.Dropout) and child.p > 0:
            return f"it has a dropout {name} of {child.p}, which a fused unit would leave out; set it to 0"
        if name and hasattr(child, ADAPTER_ATTRIBUTE):
            return f"{name} has an adapter, and its weights would be read instead of it being called; merge it first"
        if name and parametrize.is_parametrized(child):
            return f"{name} is parametrized, and its weights would be read once; remove the parametrization first"
        if name and is_hooked(child):
            return f"{name} has hooks, and its weights would be read instead of it being called"
        if name in LEAVES and type(child) not in PLAIN_LAYERS:
            return f"{name} is a {type(child).__name__}, whose weights would be read instead of it being called"
    if extra := [name for name, _ in module.named_parameters() if name not in STATE_KEYS.values()]:
        return f"it has parameters beyond those of a unit ({', '.join(extra)}), which a fused unit would leave out"
    if buffers := [name for name, _ in module.named_buffers()]:
        return f"it has buffers ({', '.join(buffers)}), which a fused unit would leave out"
    return None


def _placement(module: nn.Module, ignore: Collection[str]) -> str | None:
    parameters = [*module.parameters(), *module.buffers()]
    kinds = {type(parameter).__name__ for parameter in parameters} - {"Parameter", "Tensor"}
    if kinds:
        return f"its parameters are {', '.join(sorted(kinds))}, not plain tensors; swap before the model is sharded"
    if any(parameter.is_meta for parameter in parameters):
        return "it is on the meta device, where nothing can be compared; give it memory first (to_empty, load)"
    if any(parameter.numel() == 0 for parameter in module.parameters()):
        return "its parameters are empty, as sharded ones are outside a forward pass; swap before the model is sharded"
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if torch.is_tensor(value) and value.grad_fn is not None:
                return (
                    f"{name}.{attribute} is computed by a hook, as weight_norm's and prune's are, and has no copy to "
                    "compare with; remove that first (remove_weight_norm, prune.remove), or use torch.nn.utils."
                    "parametrizations"
                )
    return None


def _signature(module: nn.Module, ignore: Collection[str]) -> str | None:
    parameters = list(inspect.signature(module.forward).parameters.values())
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if not parameters or any(parameter.kind in kinds for parameter in parameters):
        return "its forward takes any arguments (*args or **kwargs), whose meaning is unknown"
    understood = {*SUPPORTED_ARGUMENTS, *UNSUPPORTED_ARGUMENTS, *ignore}
    unknown = [parameter.name for parameter in parameters[1:] if parameter.name not in understood]
    if unknown:
        supported = ", ".join(SUPPORTED_ARGUMENTS)
        return f"its forward takes {', '.join(unknown)}, which is not understood (supported: {supported})"
    names = [parameter.name for parameter in parameters]
    if any(side in names for side in TEMPLATE_GRID) and not all(side in names for side in TEMPLATE_GRID):
        return f"its forward takes only some of {', '.join(TEMPLATE_GRID)}"
    return None


def _parameters(module: nn.Module, ignore: Collection[str]) -> str | None:
    extra = [name for name, _ in module.named_parameters() if name.split(".")[0] not in ("qkv", "proj")]
    if extra:
        return f"it has parameters beyond qkv and proj ({', '.join(extra)}), which a fused attention would leave out"
    return None


def _buffers(module: nn.Module, ignore: Collection[str]) -> str | None:
    extra = [name for name, _ in module.named_buffers() if name.split(".")[0] not in (*CALLED_CHILDREN, *ignore)]
    return f"it has buffers ({', '.join(extra)}), which a fused attention would leave out" if extra else None


def _children(module: nn.Module, ignore: Collection[str]) -> str | None:
    if missing := [name for name in ("qkv", "proj") if name not in dict(module.named_children())]:
        return f"its {' and '.join(missing)} is no child of its own"
    children = ((name, child) for name, child in module.named_children() if name not in ignore)
    return next((reason for name, child in children if (reason := child_objection(name, child))), None)


def _attributes(module: nn.Module, ignore: Collection[str]) -> str | None:
    for name, value in plain_attributes(module):
        if not (name in HARMLESS_ATTRIBUTES or name in ignore or switched_off(value)):
            return (
                f"it has an attribute {name} = {value!r:.60}, which is not understood; if it changes nothing, "
                f"swap(..., ignore=({name!r},))"
            )
    return None


def _overrides(module: nn.Module, ignore: Collection[str]) -> str | None:
    own = [name for name in OVERRIDES if getattr(type(module), name) is not getattr(nn.Module, name)]
    return f"its class has its own {', '.join(own)}, which a replacement would leave out" if own else None
