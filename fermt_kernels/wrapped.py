"""The model inside PyTorch's wrappers, and state dicts without the prefixes that wrappers leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch.nn as nn

Value = TypeVar("Value")

WRAPPED_ATTRIBUTE = {  # class of a wrapper -> the attribute that has the model
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "AveragedModel": "module",
}
PREFIXES = frozenset(WRAPPED_ATTRIBUTE.values())
WRAPPER_KEYS = frozenset({"n_averaged"})  # what wrappers add to a state dict
ADAPTER_ATTRIBUTE = "base_layer"  # the name under which PEFT's adapters keep the layer that they adapt
NAMES_SHOWN = 10


def unwrapped(model: Any) -> Any:
    """The model inside any nesting of `torch.compile`, `DataParallel`, `DistributedDataParallel` and `AveragedModel`.

    What is not wrapped is returned as it is.

    Raises:
        ValueError: the model has adapters (PEFT) that are not merged into its weights.
    """
    while attribute := WRAPPED_ATTRIBUTE.get(type(model).__name__):
        model = getattr(model, attribute)
    if isinstance(model, nn.Module):
        adapted = [name for name, _ in model.named_modules() if name.split(".")[-1] == ADAPTER_ATTRIBUTE]
        if adapted:
            raise ValueError(
                f"the model has adapters that are not merged ({shortened(adapted)}); merge them first: "
                "model = model.merge_and_unload()"
            )
    return model


def stripped(state: Mapping[str, Value]) -> dict[str, Value]:
    """A state dict under the model's own keys: without `module.` and `_orig_mod.`, wherever wrappers have put them.

    Raises:
        ValueError: two keys become one.
    """
    result: dict[str, Value] = {}
    for key, value in state.items():
        own = ".".join(part for part in key.split(".") if part not in PREFIXES)
        if own in WRAPPER_KEYS:
            continue
        if own in result:
            raise ValueError(f"the state dict has {own!r} twice, with and without a wrapper's prefix ({key!r})")
        result[own] = value
    return result


def shortened(names: list[str]) -> str:
    """The first ten names, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
