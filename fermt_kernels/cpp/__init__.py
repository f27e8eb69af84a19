"""The CPU room: compiled kernels from csrc/, reached through ctypes. Importing it loads nothing."""

from __future__ import annotations

import torch

from . import library
from .attention import attention_forward

DEVICES = ("cpu",)
SUPPORTS = {"attention_forward": (torch.float32,)}


def why_not() -> str | None:
    return library.why_not()


def describe() -> str:
    ops = ", ".join(
        f"{op} ({'/'.join(str(d).removeprefix('torch.') for d in dtypes)})" for op, dtypes in SUPPORTS.items()
    )
    return f"compiled for the CPU, {library.load().isa} of {', '.join(library.supported_isas())}: {ops}"


__all__ = ["DEVICES", "SUPPORTS", "attention_forward", "describe", "why_not"]
