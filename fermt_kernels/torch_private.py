"""All uses of PyTorch's private API, for torch >= 2.10; last checked with torch 2.13.

`tests/test_torch_private.py` checks them with the installed version. Each function says why no public API serves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

Function = TypeVar("Function", bound=Callable)


def constant_when_traced(function: Function) -> Function:
    """Marks a function whose result `torch.compile` takes as a constant of the graph.

    `torch.compiler.assume_constant_result` does the same, but imports all of torch._dynamo: a second at every start.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def excluding_dispatch_key(name: str) -> Callable[[], AbstractContextManager]:
    """A function that makes a context in which the dispatcher skips key `name`, such as "AutocastCPU".

    An autocast kernel calls its own op this way. `torch.library.register_autocast` casts to one fixed dtype only, and
    entering `torch.autocast(device_type, enabled=False)` takes 8 us a call where this takes 1.

    Raises:
        AttributeError: there is no such key.
    """
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, name))
    return lambda: torch._C._ExcludeDispatchKeyGuard(keys)


def transformed(tensors: Iterable[Tensor]) -> bool:
    """Whether a torch.func transform is running, or one of the tensors has a tangent of forward-mode differentiation.

    There is no public way to ask for either. While `torch.compile` traces, tangents that are given from outside are not
    seen.
    """
    if torch._C._are_functorch_transforms_active():
        return True
    if torch.compiler.is_compiling():
        return False
    in_dual_level = forward_ad._current_level >= 0
    return in_dual_level and any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def extension_path() -> Path:
    """The file of torch's own extension module, which depends on all of its libraries wherever they are."""
    return Path(torch._C.__file__)
