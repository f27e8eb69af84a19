"""How an op reaches PyTorch's dispatcher; the same for every op, so written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

LIBRARY = torch.library.Library("fermt", "DEF")
_AUTOCAST_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


def define(schema: str, implementation: Callable, fake: Callable, *, autocast: bool = True) -> None:
    """Defines `fermt::<schema>`: one implementation for every device, its fake, and its autocast kernels, if any."""
    name = schema.split("(")[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fermt::{name}", fake, lib=LIBRARY)
    for device_type, key in _AUTOCAST_KEYS.items() if autocast else ():
        LIBRARY.impl(name, _autocast_kernel(name, device_type, key), key)


def register_gradient(op: str, backward: Callable, setup_context: Callable) -> None:
    """Gives `fermt::<op>` its gradient, and `fermt::<op>_backward` the error of a second derivative."""
    torch.library.register_autograd(f"fermt::{op}", backward, setup_context=setup_context, lib=LIBRARY)

    def refuse(ctx: Any, *grads: Tensor) -> NoReturn:
        raise RuntimeError(
            f"fermt::{op} can be differentiated once; for second derivatives use fermt_kernels.reference.{op}, "
            "which is plain PyTorch"
        )

    torch.library.register_autograd(f"fermt::{op}_backward", refuse, lib=LIBRARY)


def effective_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype that the op will run in: the tensor's, or autocast's where it is on (float64 is left alone)."""
    device_type = tensor.device.type
    casts = device_type in _AUTOCAST_KEYS and torch.is_autocast_enabled(device_type)
    return torch.get_autocast_dtype(device_type) if casts and tensor.dtype != torch.float64 else tensor.dtype


def needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _autocast_kernel(name: str, device_type: str, key: str) -> Callable:
    op = getattr(torch.ops.fermt, name).default
    keyset = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def cast(value: Any) -> Any:
        eligible = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64
        return value.to(torch.get_autocast_dtype(device_type)) if eligible else value

    def kernel(*args: Any) -> Any:
        # A gradient's op gets what its forward saved, lse in float32 among it: only forward ops are cast.
        converted = args if name.endswith("_backward") else tuple(map(cast, args))
        with torch._C._ExcludeDispatchKeyGuard(keyset):
            return op(*converted)

    return kernel
