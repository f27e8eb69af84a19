"""Times of cropping one frame for many targets: ours on the GPU, and OpenCV on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fermt_kernels as fk
from fermt.boxes import Box
from fermt.data import crop_target, target_square
from fermt_kernels import triton as triton_backend

from ..cases import OURS
from .clocks import BY_THE_WALL, FRAME_CLOCKS, Machine, Run, Runner, timed

SEARCH_FACTOR = 4.0  # side of a square over the square root of its target's area
BATCHES, SMALL_BATCHES = (1, 32, 128), (1, 3)
FRAME, SIZE = (720, 1280), 256
SMALL_FRAME, SMALL_SIZE = (48, 64), 16


def _boxes(height: int, width: int, count: int) -> list[Box]:
    """Targets all over the image, a tenth of its height to a fifth; some squares reach outside."""
    drawn = torch.rand(count, 4, generator=torch.Generator().manual_seed(0)).tolist()
    return [(x * 0.8 * width, y * 0.8 * height, (1 + w) * 0.1 * height, (1 + h) * 0.1 * height) for x, y, w, h in drawn]


def measure(machine: Machine) -> Iterator[dict[str, Any]]:
    """Yields a line per number of targets, runner and clock."""
    small, device = not machine.on_gpu, machine.device
    (height, width), size = (SMALL_FRAME, SMALL_SIZE) if small else (FRAME, SIZE)
    image = torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    there, pixels = image.to(device), image.numpy()
    waiting = image if small else image.pin_memory()
    for batch in SMALL_BATCHES if small else BATCHES:
        boxes = _boxes(height, width, batch)
        squares = torch.tensor([target_square(box, SEARCH_FACTOR) for box in boxes], dtype=torch.int32, device=device)
        ours = partial(_ours, squares, torch.empty(batch, size, size, 3, dtype=torch.uint8, device=device))
        theirs = partial(_by_opencv, pixels, boxes, size)
        calls: dict[str, tuple[Run, tuple[str, ...]]] = {
            OURS: (partial(ours, there), FRAME_CLOCKS),
            f"{OURS}, with the image's copy": (partial(ours, waiting), BY_THE_WALL),
            "OpenCV on the CPU": (theirs, ("waited",)),
            "OpenCV on the CPU, with the crops' copy": (partial(theirs, device), ("waited",)),
        }
        runners = {name: Runner.of(*call) for name, call in calls.items()}
        shared = {"benchmark": "crop", "dtype": "uint8", "batch": batch}
        yield from timed(f"crop, B = {batch}", runners, shared, machine)


def launch_all() -> None:
    """Crops once for each number of targets, so that launches can be recorded."""
    image = torch.empty(*FRAME, 3, dtype=torch.uint8)
    for batch in BATCHES:
        squares, out = torch.empty(batch, 3, dtype=torch.int32), torch.empty(batch, SIZE, SIZE, 3, dtype=torch.uint8)
        triton_backend.crop_forward(image, squares, out)


def _ours(squares: Tensor, out: Tensor, image: Tensor) -> Tensor:
    image = image.to(out.device, non_blocking=True)
    return fk.frame.crop(image, squares, out.shape[1], out=out, backend="triton")


def _by_opencv(image: np.ndarray, boxes: list[Box], size: int, device: str = "cpu") -> Tensor:
    """One box after the other, as a tracker of several targets does it."""
    crops = [torch.from_numpy(crop_target(image, box, SEARCH_FACTOR, size).image) for box in boxes]
    return torch.stack(crops).to(device)
