"""The models, targets and batches on which a frame on a GPU is checked and measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch

import fermt
import fermt_kernels as fk
from fermt.model import layers

from ..frame_report import Scene

CHECKED: dict[str, dict[str, Any]] = {
    "center": {"dau": True},
    "corner": {"head": "corner", "dau": True},
    "corner, reweight, no DAU": {"head": "corner", "reweight": True, "dau": False},
}
SMALL: dict[str, Any] = {
    "patterns": ("mixed", "cross"), "dim": 32, "num_heads": 2, "mlp_ratio": 1.5,
    "patch_size": 8, "template_size": 16, "search_size": 32, "dau": False,
}  # fmt: skip
SMALL_HEAD = (16, 16, 16, 16)
SPREAD = 0.02  # what is added to every weight, so that none is at its special first value


def model(small: bool, **overrides: Any) -> fermt.FERMT:
    """A FERMT in evaluation mode, on the CPU; a tiny one for the interpreter. The same weights in every run."""
    narrow = patch.object(layers, "WIDTHS", SMALL_HEAD) if small else nullcontext()
    with narrow, torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        built = fermt.build_model("fermt", **((SMALL if small else {}) | overrides)).eval()
        for tensor in built.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor) * SPREAD)
    return built


def scene(config: fermt.ModelConfig | fk.frame.CudaPackedModel, count: int) -> Scene:
    """Crops of `count` targets, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    sizes = (config.template_size, config.search_size)
    return Scene(
        *(torch.randint(256, (count, size, size, 3), dtype=torch.uint8, generator=generator) for size in sizes)
    )


@contextmanager
def tf32_allowed() -> Iterator[None]:
    """PyTorch's setting under which products of float32 use TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
