"""A small network, frames for it to follow a target through, and what the Tracker itself makes of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

import fermt

BOX = (30.0, 20.0, 25.5, 22.25)
FRAMES = [np.random.default_rng(i).integers(0, 256, (90, 120, 3), dtype=np.uint8) for i in range(5)]  # RGB


@cache
def model() -> fermt.FERMT:
    """What is tested with it does not depend on its size."""
    torch.manual_seed(0)
    return fermt.build_model("fermt", patterns=("mixed", "cross"), dim=48, num_heads=3)


def bgr(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])


def follow(frames: list[np.ndarray], **options: Any) -> list[fermt.Track]:
    """What the Tracker finds in all frames after the first."""
    tracker = fermt.Tracker(model(), **options)
    tracker.init(frames[0], BOX)
    return [tracker.update(frame) for frame in frames[1:]]


@cache
def tracks() -> list[fermt.Track]:
    """Of FRAMES. With the channels the other way round they would be others."""
    found = follow(FRAMES)
    assert found != follow([bgr(frame) for frame in FRAMES])
    return found
