"""Sequences on their way through a tracker: one, or several side by side in one call of the network."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from ..data.sequences import ImageError, read_image
from ..tracking.network import Network, PackedNetwork
from ..tracking.target import Options, Target, Track, advance
from .record import keep
from .sequences import Benchmark

AHEAD = 2  # images of a sequence that are read while others are tracked in
FAILURES = (ImageError, OSError, ValueError, TypeError, RuntimeError, cv2.error)  # those of one sequence
BEYOND = (torch.AcceleratorError, torch.OutOfMemoryError)  # RuntimeErrors that the next sequence would meet, too


class Advanced(NamedTuple):
    """So many frames were done."""

    frames: int


class Finished(NamedTuple):
    """The result of a sequence is written."""

    sequence: int


class Failed(NamedTuple):
    """A sequence has no result."""

    sequence: int
    reason: str


Event = Advanced | Finished | Failed
Tell = Callable[[Event], None]


class Read(NamedTuple):
    """An image, and the seconds that reading it took."""

    image: np.ndarray
    seconds: float


@dataclasses.dataclass
class Lane:
    """One sequence: where its target is, its images to come, and what was found so far, an entry a frame."""

    index: int
    name: str
    images: Iterator[Read]
    target: Target
    boxes: list[Sequence[float]]
    seconds: list[float]
    decoding: list[float]


class Lanes:
    """Takes the sequences of a benchmark through a network, and writes their results to a folder.

    A sequence that cannot be read, or whose first box is no target, fails with its reason, and the others go on.

    Args:
        network: what is run; options are those of the paper's protocol.
        benchmark: whose sequences these are; each has at least a box.
        folder: for their results.
        abreast: sequences that advance together. With one, each image is read when its turn comes, so that times are
            those of the tracker alone; with more, threads read ahead, and a frame's time is its share of the call's.
    """

    def __init__(self, network: Network, benchmark: Benchmark, folder: Path, abreast: int) -> None:
        self._network, self._benchmark, self._folder, self._abreast = network, benchmark, folder, abreast
        self._options = Options()
        # A frame of the compiled library has the same bits in any batch; elsewhere the batch is kept constant, so that
        # a result does not depend on which sequences meet.
        compiled = isinstance(network, PackedNetwork) and network.device.type == "cpu"
        self._least = 1 if compiled else abreast

    @torch.inference_mode()
    def run(self, take: Callable[[], int | None], tell: Tell) -> None:
        """Runs the sequences that `take` gives, until it gives None; `tell` learns of everything that happens."""
        lanes: list[Lane] = []
        with ExitStack() as stack:
            readers: ThreadPoolExecutor | None = None
            if self._abreast > 1:
                readers = ThreadPoolExecutor(self._abreast, "reader")
                stack.callback(readers.shutdown, cancel_futures=True)
            more = True
            while True:
                while more and len(lanes) < self._abreast:
                    index = take()
                    more = index is not None
                    if index is not None and (lane := self._begun(index, readers, tell)):
                        lanes.append(lane)
                if not lanes:
                    return
                lanes = self._onward(lanes, tell)

    def _begun(self, index: int, readers: ThreadPoolExecutor | None, tell: Tell) -> Lane | None:
        """A sequence with its target taken in its first frame; None if it failed."""
        try:
            sequence = self._benchmark[index]
            if not len(sequence.frames):
                raise ValueError("it has no frames")
            start = sequence.boxes[0].tolist()
            images = read_ahead(sequence.frames, readers) if readers else map(timed_image, sequence.frames)
            first = next(images)
            began = time.perf_counter()
            target = Target(self._network, self._options, first.image, start)
            self._wait()
            seconds = time.perf_counter() - began
        except BEYOND:
            raise
        except FAILURES as error:
            tell(Failed(index, _reason(error)))
            return None
        tell(Advanced(1))
        return Lane(index, sequence.name, images, target, [start], [seconds], [first.seconds])

    def _onward(self, lanes: list[Lane], tell: Tell) -> list[Lane]:
        """Takes all lanes one frame on; those that still have frames."""
        reading: list[tuple[Lane, np.ndarray]] = []
        for lane in lanes:
            try:
                read = next(lane.images, None)
            except FAILURES as error:
                tell(Failed(lane.index, _reason(error)))
                continue
            if read is None:
                keep(self._folder, lane.name, *map(np.array, (lane.boxes, lane.seconds, lane.decoding)))
                tell(Finished(lane.index))
            else:
                lane.decoding.append(read.seconds)
                reading.append((lane, read.image))
        left = self._tracked(reading, tell) if reading else []
        if left:
            tell(Advanced(len(left)))
        return left

    def _tracked(self, pairs: Sequence[tuple[Lane, np.ndarray]], tell: Tell) -> list[Lane]:
        """Lanes whose target was found in its next image; if one cannot be followed, each goes by itself."""
        lanes = [lane for lane, _ in pairs]
        began = time.perf_counter()
        try:
            tracks = self._advance(pairs)
        except BEYOND:
            raise
        except FAILURES as error:
            if len(pairs) > 1:
                return [lane for pair in pairs for lane in self._tracked([pair], tell)]
            tell(Failed(lanes[0].index, _reason(error)))
            return []
        seconds = (time.perf_counter() - began) / len(lanes)
        for lane, track in zip(lanes, tracks, strict=True):
            lane.boxes.append(track.box)
            lane.seconds.append(seconds)
        return lanes

    def _advance(self, pairs: Sequence[tuple[Lane, np.ndarray]]) -> list[Track]:
        return advance(self._network, [lane.target for lane, _ in pairs], [image for _, image in pairs], self._least)

    def _wait(self) -> None:
        """A GPU is not done when a call returns; an update's result is on the CPU, a template's stays there."""
        if self._network.device.type == "cuda":
            torch.cuda.synchronize(self._network.device)


def timed_image(path: Path) -> Read:
    """An image and the seconds that it took; ImageError if it is missing or damaged."""
    began = time.perf_counter()
    image = read_image(path)
    return Read(image, time.perf_counter() - began)


def read_ahead(paths: Iterable[Path], readers: ThreadPoolExecutor) -> Iterator[Read]:
    """Images in their order, the next ones read meanwhile; ImageError when its turn comes."""
    waiting: deque[Future[Read]] = deque()
    for path in paths:
        waiting.append(readers.submit(timed_image, path))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
