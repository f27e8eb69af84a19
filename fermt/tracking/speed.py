"""How fast tracking is here: the network alone, its parts beside it, and a whole update, for every way to run it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data import crop_target
from ..model import FERMT, build_model
from .tracker import Tracker

FRAME = (360, 640)  # height and width of the frame that is tracked in
TARGET = (270.0, 120.0, 100.0, 120.0)

# Of the packed frame, by device.
DTYPES = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.float32, torch.bfloat16, torch.float16)}


class Speed(NamedTuple):
    """Median seconds of one frame's parts; an update has them all."""

    name: str
    dtype: str
    encode: float  # the template, once a target
    crop: float
    network: float
    update: float


def ways(model: FERMT) -> dict[tuple[str, torch.dtype], Callable[[], Tracker]]:
    """(what runs, dtype) -> its tracker; some may turn out not to be possible here, and raise ValueError when made."""
    device = next(model.parameters()).device
    other = build_model(model.config, backend="reference").to(device)
    other.load_state_dict(model.state_dict())
    found: dict[tuple[str, torch.dtype], Callable[[], Tracker]] = {
        ("packed frame", dtype): lambda dtype=dtype: Tracker(model, dtype=dtype)  # type: ignore[misc]
        for dtype in DTYPES[device.type]
    }
    return found | {("PyTorch", torch.float32): lambda: Tracker(other)}


def measure(tracker: Tracker, name: str, dtype: torch.dtype, seconds: float) -> Speed:
    """Times a tracker on one frame of noise, for about `seconds`, after a warm-up."""
    image = np.random.default_rng(0).integers(256, size=(*FRAME, 3), dtype=np.uint8)
    network = tracker.network
    search = crop_target(image, TARGET, network.search_factor, network.search_size).image
    template = crop_target(image, TARGET, network.template_factor, network.template_size).image
    with torch.inference_mode():
        parts: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {  # what comes before, and what is timed
            "encode": (lambda: template, network.encode),
            "crop": (
                lambda: image,
                lambda image: crop_target(image, TARGET, network.search_factor, network.search_size),
            ),
            "network": (lambda: network.encode(template), lambda encoded: network.locate([[encoded]], search[None])),
            "update": (lambda: tracker.init(image, TARGET), lambda _: tracker.update(image)),
        }
        samples: dict[str, list[float]] = {part: [] for part in parts}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(samples["update"]) < 6:
            for part, (prepare, run) in parts.items():
                prepared = prepare()
                _wait(network.device)
                start = time.perf_counter()
                run(prepared)
                _wait(network.device)
                samples[part].append(time.perf_counter() - start)
    medians = {part: statistics.median(values[1:]) for part, values in samples.items()}  # the first is the warm-up
    return Speed(name, str(dtype).removeprefix("torch."), **medians)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
