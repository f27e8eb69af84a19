"""Registration of ops with PyTorch's dispatcher: schema, implementation, fake, autocast and gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor

from .. import checks
from ..torch_private import excluding_dispatch_key

LIBRARY = torch.library.Library("fermt", "DEF")
_AUTOCAST_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


def define(schema: str, implementation: Callable, fake: Callable, *, autocast: bool = True) -> None:
    """Defines the op `fermt::<schema>` with one implementation for all devices, its fake and, if wanted, autocast."""
    name = schema.split("(")[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fermt::{name}", fake, lib=LIBRARY)
    for device_type, key in _AUTOCAST_KEYS.items() if autocast else ():
        LIBRARY.impl(name, _autocast_kernel(name, device_type, key), key)


def register_gradient(op: str, backward: Callable, setup_context: Callable) -> None:
    """Registers the gradient of `fermt::<op>`; differentiating it twice raises a RuntimeError."""
    torch.library.register_autograd(f"fermt::{op}", backward, setup_context=setup_context, lib=LIBRARY)

    def refuse(ctx: Any, *grads: Tensor) -> NoReturn:
        raise RuntimeError(
            f"fermt::{op} can be differentiated once; for second derivatives use "
            f"fermt_kernels.reference.{op.removesuffix('_packed')}, which is plain PyTorch"
        )

    torch.library.register_autograd(f"fermt::{op}_backward", refuse, lib=LIBRARY)


def effective_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype in which an op computes: the tensor's or, if autocast is on, autocast's; float64 stays float64."""
    device_type = tensor.device.type
    casts = device_type in _AUTOCAST_KEYS and checks.autocasts(device_type)
    return torch.get_autocast_dtype(device_type) if casts and tensor.dtype != torch.float64 else tensor.dtype


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether autograd records an op on these tensors."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _autocast_kernel(name: str, device_type: str, key: str) -> Callable:
    op = getattr(torch.ops.fermt, name).default
    without_autocast = excluding_dispatch_key(key)

    def cast(value: Any) -> Any:
        eligible = isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64
        return value.to(torch.get_autocast_dtype(device_type)) if eligible else value

    def kernel(*args: Any) -> Any:
        # A backward op gets tensors that its forward saved, such as lse in float32: only forward ops are cast.
        converted = args if name.endswith("_backward") else tuple(map(cast, args))
        with without_autocast():
            return op(*converted)

    return kernel
