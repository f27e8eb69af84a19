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
from fermt.data import crop_target
from fermt_kernels import triton as triton_backend

from ..cases import OURS
from . import cases
from .clocks import BY_THE_WALL, FRAME_CLOCKS, Machine, Run, Runner, timed

BATCHES, SMALL_BATCHES = (1, 32, 128), (1, 3)
SIZE, SMALL_SIZE = 256, 16


def measure(machine: Machine) -> Iterator[dict[str, Any]]:
    """Yields a line per number of targets, runner and clock."""
    small, device = not machine.on_gpu, machine.device
    (height, width), size = (cases.SMALL_IMAGE, SMALL_SIZE) if small else (cases.IMAGE, SIZE)
    image = cases.image(height, width)
    there, pixels = image.to(device), image.numpy()
    waiting = image if small else image.pin_memory()
    for batch in SMALL_BATCHES if small else BATCHES:
        boxes = cases.boxes(height, width, batch)
        squares = cases.squares(boxes).to(device)
        ours = partial(_ours, squares, torch.empty(batch, size, size, 3, dtype=torch.uint8, device=device))
        theirs = partial(by_opencv, pixels, boxes, size)
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
    image = torch.empty(*cases.IMAGE, 3, dtype=torch.uint8)
    for batch in BATCHES:
        squares, out = torch.empty(batch, 3, dtype=torch.int32), torch.empty(batch, SIZE, SIZE, 3, dtype=torch.uint8)
        triton_backend.crop_forward(image, squares, out)


def _ours(squares: Tensor, out: Tensor, image: Tensor) -> Tensor:
    image = image.to(out.device, non_blocking=True)
    return fk.frame.crop(image, squares, out.shape[1], out=out, backend="triton")


def by_opencv(image: np.ndarray, boxes: list[Box], size: int, device: str = "cpu") -> Tensor:
    """One box after the other, as a tracker of several targets does it."""
    return torch.stack([torch.from_numpy(crop_target(image, box, cases.FACTOR, size).image) for box in boxes]).to(
        device
    )
