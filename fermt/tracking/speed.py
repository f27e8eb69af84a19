"""How fast tracking is here: the network alone, its parts beside it, and a whole update, for every way to run it."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data import crop_target
from ..model import FERMT, build_model
from .sources import open_source
from .tracker import Tracker
from .video import VideoWriter

FRAME = (360, 640)  # height and width of the frame that is tracked in
TARGET = (270.0, 120.0, 100.0, 120.0)
CLIP_FRAMES = 60
# Of the packed frame, by device: the backend that has it, and the dtypes.
PACKED = {
    "cpu": ("cpp", (torch.float32, torch.bfloat16)),
    "cuda": ("triton", (torch.float32, torch.bfloat16, torch.float16)),
}
PLAIN = (torch.float32, torch.bfloat16)  # of PyTorch's own operators


class Speed(NamedTuple):
    """Median seconds of one frame's parts; an update has the crop and the network."""

    name: str
    backend: str
    dtype: str
    encode: float  # the template, once a target
    crop: float
    network: float
    update: float


class Way(NamedTuple):
    """A way to run the tracker; making it raises ValueError where it is not possible."""

    name: str
    backend: str
    dtype: torch.dtype
    make: Callable[[], Tracker]


def ways(model: FERMT) -> Iterator[Way]:
    """All of them, on the model's device."""
    device = next(model.parameters()).device
    backend, dtypes = PACKED[device.type]
    for dtype in dtypes:
        yield Way("packed frame", backend, dtype, lambda dtype=dtype: Tracker(model, dtype=dtype))  # type: ignore[misc]
    plain = build_model(model.config, backend="reference").to(device)
    plain.load_state_dict(model.state_dict())
    for dtype in PLAIN:
        yield Way("PyTorch", "reference", dtype, lambda dtype=dtype: Tracker(copy.deepcopy(plain).to(dtype)))  # type: ignore[misc]


def measure(way: Way, seconds: float) -> Speed:
    """Times a tracker on one frame of noise, for about `seconds`, after a warm-up.

    Raises:
        ValueError: this way is not possible here; the message says why.
    """
    tracker = way.make()
    image = np.random.default_rng(0).integers(256, size=(*FRAME, 3), dtype=np.uint8)
    network = tracker.network
    search = crop_target(image, TARGET, network.search_factor, network.search_size).image
    template = crop_target(image, TARGET, network.template_factor, network.template_size).image
    with torch.inference_mode():
        parts: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {  # what comes before, what is timed
            "encode": (lambda: template, network.encode),
            "crop": (lambda: TARGET, lambda box: crop_target(image, box, network.search_factor, network.search_size)),
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
    return Speed(way.name, way.backend, str(way.dtype).removeprefix("torch."), **medians)


def decoding(video: Path | None = None) -> float:
    """Median seconds to read a frame of a video as RGB; without one, of a moving pattern, 640 x 360, in MPEG-4."""
    with tempfile.TemporaryDirectory() as folder:
        samples, before = [], time.perf_counter()
        source = open_source(video or _clip(Path(folder) / "pattern.mp4"))
        for _, _ in zip(source, range(CLIP_FRAMES), strict=False):
            samples.append(time.perf_counter() - before)
            before = time.perf_counter()
    return statistics.median(samples)


def _clip(path: Path) -> Path:
    rows, columns = np.mgrid[: FRAME[0], : FRAME[1]]
    with VideoWriter(path, 30.0) as writer:
        for i in range(CLIP_FRAMES):
            planes = (rows + 3 * i, columns - 2 * i, rows * columns // 64 + i)
            writer.write(np.stack(planes, axis=2).astype(np.uint8))
    return path


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
