"""Tracks the sequences of a benchmark: one at a time, or several in each call of the network."""

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

from ..datasets.benchmark import Benchmark
from ..images import read_image
from ..tracking.network import Network, PackedNetwork
from ..tracking.target import Options, Target, Track, advance
from .record import save_sequence

READ_AHEAD = 2  # images of each sequence that are read in advance
SEQUENCE_ERRORS = (OSError, ValueError, TypeError, RuntimeError, cv2.error)  # fail one sequence only
FATAL_ERRORS = (torch.AcceleratorError, torch.OutOfMemoryError)  # RuntimeErrors that would fail the next one, too


class Advanced(NamedTuple):
    """Event: this many frames were tracked."""

    frames: int


class Finished(NamedTuple):
    """Event: the result of a sequence was written."""

    sequence: int


class Failed(NamedTuple):
    """Event: a sequence has no result."""

    sequence: int
    reason: str


Event = Advanced | Finished | Failed


class TimedImage(NamedTuple):
    """An image and the seconds it took to read."""

    image: np.ndarray
    seconds: float


@dataclasses.dataclass
class ActiveSequence:
    """A sequence that is being tracked; the lists have an entry for each frame so far."""

    index: int
    name: str
    images: Iterator[TimedImage]
    target: Target
    boxes: list[Sequence[float]]
    seconds: list[float]
    decoding: list[float]


class SequenceRunner:
    """Runs a network over sequences of a benchmark and writes their results to a folder.

    A sequence that cannot be read, or whose first box is not valid, fails with a reason; the others continue.

    Args:
        network: the network to run; tracking options are those of the paper's protocol.
        benchmark: the benchmark; each sequence has at least one box.
        folder: for the results.
        batch_size: sequences tracked in one call. With 1, each image is read just before it is tracked, so that times
            are those of the tracker alone; with more, threads read ahead and a frame's time is its share of the call's.
    """

    def __init__(self, network: Network, benchmark: Benchmark, folder: Path, batch_size: int) -> None:
        self._network, self._benchmark, self._folder, self._batch_size = network, benchmark, folder, batch_size
        self._options = Options(brighten=False)  # the protocol of the paper's benchmarks
        # The compiled library gives the same bits for any batch size. Other networks are padded to a constant size, so
        # that a result does not depend on which sequences share a batch.
        compiled = isinstance(network, PackedNetwork) and network.device.type == "cpu"
        self._min_batch = 1 if compiled else batch_size

    @torch.inference_mode()
    def run(self, next_sequence: Callable[[], int | None], on_event: Callable[[Event], None]) -> None:
        """Tracks the sequences whose indices `next_sequence` returns, until it returns None."""
        active: list[ActiveSequence] = []
        with ExitStack() as stack:
            readers: ThreadPoolExecutor | None = None
            if self._batch_size > 1:
                readers = ThreadPoolExecutor(self._batch_size, "reader")
                stack.callback(readers.shutdown, cancel_futures=True)
            more = True
            while True:
                while more and len(active) < self._batch_size:
                    index = next_sequence()
                    more = index is not None
                    if index is not None and (started := self._start(index, readers, on_event)):
                        active.append(started)
                if not active:
                    return
                active = self._advance_all(active, on_event)

    def _start(
        self, index: int, readers: ThreadPoolExecutor | None, on_event: Callable[[Event], None]
    ) -> ActiveSequence | None:
        """Opens a sequence and takes the target from its first frame; None if that failed."""
        try:
            sequence = self._benchmark[index]
            if not len(sequence.frames):
                raise ValueError("it has no frames")
            box = sequence.boxes[0].tolist()
            images = read_ahead(sequence.frames, readers) if readers else map(timed_read, sequence.frames)
            first = next(images)
            began = time.perf_counter()
            target = Target(self._network, self._options, first.image, box)
            self._synchronize()
            seconds = time.perf_counter() - began
        except FATAL_ERRORS:
            raise
        except SEQUENCE_ERRORS as error:
            on_event(Failed(index, _reason(error)))
            return None
        on_event(Advanced(1))
        return ActiveSequence(index, sequence.name, images, target, [box], [seconds], [first.seconds])

    def _advance_all(self, active: Sequence[ActiveSequence], on_event: Callable[[Event], None]) -> list[ActiveSequence]:
        """Advances all sequences by one frame; returns those that have not ended or failed."""
        pairs: list[tuple[ActiveSequence, np.ndarray]] = []
        for sequence in active:
            try:
                read = next(sequence.images, None)
            except SEQUENCE_ERRORS as error:
                on_event(Failed(sequence.index, _reason(error)))
                continue
            if read is None:
                columns = map(np.array, (sequence.boxes, sequence.seconds, sequence.decoding))
                save_sequence(self._folder, sequence.name, *columns)
                on_event(Finished(sequence.index))
            else:
                sequence.decoding.append(read.seconds)
                pairs.append((sequence, read.image))
        tracked = self._track(pairs, on_event) if pairs else []
        if tracked:
            on_event(Advanced(len(tracked)))
        return tracked

    def _track(
        self, pairs: Sequence[tuple[ActiveSequence, np.ndarray]], on_event: Callable[[Event], None]
    ) -> list[ActiveSequence]:
        """Tracks sequences in their next images in one batch; if that fails, each one alone. Returns the successes."""
        sequences = [sequence for sequence, _ in pairs]
        began = time.perf_counter()
        try:
            tracks = self._advance(pairs)
        except FATAL_ERRORS:
            raise
        except SEQUENCE_ERRORS as error:
            if len(pairs) > 1:
                return [sequence for pair in pairs for sequence in self._track([pair], on_event)]
            on_event(Failed(sequences[0].index, _reason(error)))
            return []
        seconds = (time.perf_counter() - began) / len(sequences)
        for sequence, track in zip(sequences, tracks, strict=True):
            sequence.boxes.append(track.box)
            sequence.seconds.append(seconds)
        return sequences

    def _advance(self, pairs: Sequence[tuple[ActiveSequence, np.ndarray]]) -> list[Track]:
        targets, images = [sequence.target for sequence, _ in pairs], [image for _, image in pairs]
        return advance(self._network, targets, images, self._min_batch)

    def _synchronize(self) -> None:
        """Waits for a GPU to encode the template, whose result stays there; the result of an update is on the CPU."""
        if self._network.device.type == "cuda":
            torch.cuda.synchronize(self._network.device)


def timed_read(path: Path) -> TimedImage:
    """Reads an image and measures the time; ImageError if it is missing or damaged."""
    began = time.perf_counter()
    image = read_image(path)
    return TimedImage(image, time.perf_counter() - began)


def read_ahead(paths: Iterable[Path], readers: ThreadPoolExecutor) -> Iterator[TimedImage]:
    """Yields images in order while threads read the next ones; ImageError when the image concerned is due."""
    waiting: deque[Future[TimedImage]] = deque()
    for path in paths:
        waiting.append(readers.submit(timed_read, path))
        if len(waiting) > READ_AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
