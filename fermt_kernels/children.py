"""Checks on child modules whose weights this package reads instead of calling them."""

from __future__ import annotations

import torch.nn as nn
from torch.nn.utils import parametrize

PLAIN_LAYERS = (nn.Conv2d, nn.Linear, nn.Sequential, nn.ReLU, nn.Sigmoid, nn.GELU, nn.Identity)


def is_hooked(module: nn.Module) -> bool:
    """Whether a module has hooks that its calls would run, or a forward put on the instance, as Accelerate does."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def is_plain(module: nn.Module) -> bool:
    """Whether a module and its children are PyTorch's own layers, parametrized or not, without hooks.

    Adapters, quantized or sharded layers and layers with hooks are not plain, and must be called.
    """
    if type(module) not in PLAIN_LAYERS and parametrize.type_before_parametrizations(module) not in PLAIN_LAYERS:
        return False
    return not is_hooked(module) and all(child is None or is_plain(child) for child in module._modules.values())
