"""The GPU room. It holds no kernels in this version; CUDA tensors run on the reference."""

from __future__ import annotations

import torch

DEVICES = ("cuda",)
SUPPORTS: dict[str, tuple[torch.dtype, ...]] = {}


def why_not() -> str | None:
    return "this version has no Triton kernels yet; CUDA tensors run on the reference"
