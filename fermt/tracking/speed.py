"""Measures the speed of tracking: the network alone, an update with a frame in memory, and an update with decoding.

The batch size is 1, after a warm-up of `WARM_UP` frames, with torch's threads; `PROTOCOL` defines each quantity.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import fermt_kernels as fk

from ..boxes import Box
from ..config import ModelConfig
from ..data import crop_target
from ..flops import frame_macs
from ..model import FERMT, build_model
from .sources import Source, open_source
from .tracker import Tracker
from .video import VideoWriter

PATTERN_SIZE = (360, 640)  # height and width of the synthetic pattern
PATTERN_BOX = (270.0, 120.0, 100.0, 120.0)  # box in such a frame; scaled with the size of other frames
CLIP_FRAMES = 20
WARM_UP = 5
# The backend and the dtypes of the packed frame, by device.
PACKED_RUNS = {
    "cpu": ("cpp", (torch.float32, torch.bfloat16)),
    "cuda": ("triton", (torch.float32, torch.bfloat16, torch.float16)),
}
PACKED_FRAME = "packed frame"
# Dtypes of packed frames that cost no accuracy; bfloat16 at most half a point of AO.
EXACT_DTYPES = ("float32", "bfloat16")
PYTORCH_DTYPES = (torch.float32, torch.bfloat16)  # dtypes of PyTorch's own operators
PROTOCOL = {
    "encode": "encoding of the template, once for each target; median",
    "crop": "cutting and resizing of the search region of a frame in memory, by OpenCV; median",
    "network": "the network alone, from crop to box, with an encoded template; median",
    "update": "crop, network and box for a frame in memory, without decoding; on a GPU it crops, too; median",
    "with_decode": "an update with reading and decoding of its frame; mean of wall-clock time",
    # The toolkit also includes the init, whose large 1/t would outweigh all updates.
    "got10k_fps": "updates as in the GOT-10k toolkit, without decoding: mean of 1/t; but without the init",
}


class Speed(NamedTuple):
    """Speed of one variant: seconds per frame, and frames per second, as `PROTOCOL` defines them."""

    name: str
    backend: str
    dtype: str
    encode: float
    crop: float
    network: float
    update: float
    with_decode: float
    got10k_fps: float


class Variant(NamedTuple):
    """A form in which the tracker runs; `make` raises ValueError if it is not possible here."""

    name: str
    backend: str
    dtype: torch.dtype
    make: Callable[[], Tracker]


class Clip(NamedTuple):
    """The first frames of a video, in memory and as a source to decode again."""

    name: str
    source: Source
    frames: list[np.ndarray]
    box: Box
    decode: float  # seconds to read and decode a frame: median without the first


def variants(model: FERMT, clip: Clip) -> Iterator[Variant]:
    """Yields the variants of a model on its device: packed (int8 is calibrated on the clip), and in plain PyTorch."""
    device = next(model.parameters()).device
    backend, dtypes = PACKED_RUNS[device.type]
    for dtype in dtypes:
        yield Variant(PACKED_FRAME, backend, dtype, lambda dtype=dtype: Tracker(model, dtype=dtype))  # type: ignore[misc]
    if device.type == "cpu":
        yield Variant(PACKED_FRAME, backend, torch.int8, lambda: Tracker(_in_int8(model, clip)))
    plain = build_model(model.config, backend="reference").to(device)
    plain.load_state_dict(model.state_dict())
    for dtype in PYTORCH_DTYPES:
        yield Variant("PyTorch", "reference", dtype, lambda dtype=dtype: Tracker(copy.deepcopy(plain).to(dtype)))  # type: ignore[misc]


@contextmanager
def open_clip(video: Path | None = None) -> Iterator[Clip]:
    """Opens the first 20 frames of a video or folder of images; by default, of a moving pattern, 640 x 360, in MPEG-4.

    Raises:
        OSError, ValueError: there is no such video, it cannot be read, or it has fewer than two frames.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(video or _pattern(Path(folder) / "pattern.mp4"))
        frames, seconds, before = [], [], time.perf_counter()
        for frame in islice(source, CLIP_FRAMES):
            seconds.append(time.perf_counter() - before)
            frames.append(frame)
            before = time.perf_counter()
        if len(frames) < 2:
            raise ValueError(f"speed needs a video of two frames or more; {source.name!r} has {len(frames)}")
        down, across = (size / default for size, default in zip(frames[0].shape, PATTERN_SIZE, strict=False))
        x, y, w, h = PATTERN_BOX
        box = (x * across, y * down, w * across, h * down)
        name = str(video) if video else f"a pattern of {PATTERN_SIZE[1]} x {PATTERN_SIZE[0]} in MPEG-4"
        yield Clip(name, source, frames, box, statistics.median(seconds[1:]))


def measure(variant: Variant, clip: Clip, seconds: float) -> Speed:
    """Measures a tracker for about `seconds`, at least the time that the clip takes.

    The box is reset before each frame, so that crops do not depend on the weights.

    Raises:
        ValueError: this variant is not possible here; the message says why.
    """
    tracker = variant.make()
    with torch.inference_mode():
        samples = _interleaved(tracker, clip, seconds / 2)
    end, walls = time.perf_counter() + seconds / 2, [_wall(tracker, clip)]
    while time.perf_counter() < end:
        walls.append(_wall(tracker, clip))
    return Speed(
        variant.name,
        variant.backend,
        str(variant.dtype).removeprefix("torch."),
        **{part: statistics.median(values) for part, values in samples.items()},
        with_decode=statistics.fmean(walls),
        got10k_fps=statistics.fmean(1 / value for value in samples["update"]),
    )


def fastest(seconds: Mapping[str, float]) -> str:
    """Says which packed frame to use, from the seconds of each by dtype: the fastest one that costs no accuracy.

    Of int8, which costs some, it says how much faster it is, if it is.
    """
    exact = {dtype: seconds[dtype] for dtype in EXACT_DTYPES if dtype in seconds}
    best = min(exact, key=lambda dtype: exact[dtype])
    others = "".join(f", {dtype} {value * 1e3:.1f}" for dtype, value in exact.items() if dtype != best)
    text = f"Fastest packed frame at no loss of accuracy: {best}, {exact[best] * 1e3:.1f} ms{others}."
    if (quick := seconds.get("int8", exact[best])) < exact[best]:
        text += f" int8 takes {quick / exact[best]:.2f} of its time and may cost 1.5 points of AO (fk.frame.pack)."
    return text


def fraction_of_peak(config: ModelConfig, seconds: float, peak: float) -> float:
    """Computes which part of `peak`, FLOP/s, a packed frame reaches, by the MACs that Winograd's algorithm leaves."""
    return 2 * frame_macs(config, winograd=True) / seconds / peak


def _in_int8(model: FERMT, clip: Clip) -> fk.frame.PackedModel | fk.frame.CudaPackedModel:
    def crops(factor: float, size: int) -> torch.Tensor:
        return torch.stack([torch.from_numpy(crop_target(each, clip.box, factor, size).image) for each in clip.frames])

    config = model.config
    calibration = (
        crops(config.template_factor, config.template_size),
        crops(config.search_factor, config.search_size),
    )
    return fk.frame.pack(model, torch.int8, calibration=calibration)


def _interleaved(tracker: Tracker, clip: Clip, seconds: float) -> dict[str, list[float]]:
    """Seconds of each part of a frame in memory and of an update, measured in turn, without the warm-up."""
    network, frames = tracker.network, cycle(clip.frames)
    image = next(frames)
    search = crop_target(image, clip.box, network.search_factor, network.search_size).image
    template = crop_target(image, clip.box, network.template_factor, network.template_size).image
    tracker.init(image, clip.box)

    def next_frame() -> np.ndarray:
        following = next(frames)
        tracker.reinit(following, clip.box)
        return following

    parts: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {  # preparation, and the call that is timed
        "encode": (lambda: template, network.encode),
        "crop": (
            lambda: image,
            lambda image: crop_target(image, clip.box, network.search_factor, network.search_size),
        ),
        "network": (lambda: network.encode(template), lambda encoded: network.locate([[encoded]], search[None])),
        "update": (next_frame, tracker.update),
    }
    samples: dict[str, list[float]] = {part: [] for part in parts}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples["update"]) < 2 * WARM_UP:
        for part, (prepare, run) in parts.items():
            prepared = prepare()
            _wait(network.device)
            start = time.perf_counter()
            run(prepared)
            _wait(network.device)
            samples[part].append(time.perf_counter() - start)
    return {part: values[WARM_UP:] for part, values in samples.items()}


def _wall(tracker: Tracker, clip: Clip) -> float:
    """Mean seconds of a frame of the clip after the first, with reading and decoding."""
    source = iter(clip.source)
    tracker.init(next(source), clip.box)
    count, start = 0, time.perf_counter()
    for image in islice(source, len(clip.frames) - 1):
        tracker.reinit(image, clip.box)
        tracker.update(image)
        count += 1
    _wait(tracker.network.device)
    return (time.perf_counter() - start) / count


def _pattern(path: Path) -> Path:
    rows, columns = np.mgrid[: PATTERN_SIZE[0], : PATTERN_SIZE[1]]
    with VideoWriter(path, 30.0) as writer:
        for i in range(CLIP_FRAMES):
            planes = (rows + 3 * i, columns - 2 * i, rows * columns // 64 + i)
            writer.write(np.stack(planes, axis=2).astype(np.uint8))
    return path


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
