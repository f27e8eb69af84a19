"""Whether a module's weights may be read in place of calling it."""

from __future__ import annotations

import torch.nn as nn
from torch.nn.utils import parametrize

PLAIN = (nn.Conv2d, nn.Linear, nn.Sequential, nn.ReLU, nn.Sigmoid, nn.GELU, nn.Identity)


def is_hooked(module: nn.Module) -> bool:
    """Whether a module has hooks that its calls would run."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def is_plain(module: nn.Module) -> bool:
    """Whether a module and its children are PyTorch's own layers, parametrized or not, and nothing hangs on them.

    An adapter, a quantized layer, a sharded one or a layer with hooks is not: it has to be called.
    """
    return all(
        parametrize.type_before_parametrizations(part) in PLAIN and not is_hooked(part) for part in module.modules()
    )
