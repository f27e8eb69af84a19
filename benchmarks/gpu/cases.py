"""The models, targets, images and batches on which a frame on a GPU is checked and measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt.boxes import Box
from fermt.data import target_square
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
IMAGE, SMALL_IMAGE = (720, 1280), (48, 64)  # height and width
FACTOR = 4.0  # side of a search region over the square root of its target's area
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


def image(height: int, width: int) -> Tensor:
    """An image of noise, (H, W, 3) uint8 on the CPU."""
    return torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def boxes(height: int, width: int, count: int) -> list[Box]:
    """Targets all over an image, a tenth of its height to a fifth; some search regions reach outside."""
    drawn = torch.rand(count, 4, generator=torch.Generator().manual_seed(0)).tolist()
    return [(x * 0.8 * width, y * 0.8 * height, (1 + w) * 0.1 * height, (1 + h) * 0.1 * height) for x, y, w, h in drawn]


def squares(around: list[Box]) -> Tensor:
    """The search regions of these targets, as `fk.frame.crop` takes them, on the CPU."""
    return torch.tensor([target_square(box, FACTOR) for box in around], dtype=torch.int32)


@contextmanager
def tf32_allowed() -> Iterator[None]:
    """PyTorch's setting under which products of float32 use TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
