"""What makes a frame on a GPU one launch, and its crops come without a wait: a CUDA graph, and copies beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

SLOTS = 2  # batches of crops on their way at a time


class Captured:
    """Calls `run`, which launches kernels on the current stream and nothing else, as one CUDA graph."""

    def __init__(self, run: Callable[[], None], device: torch.device) -> None:
        self._run, self._device = run, device
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        with torch.cuda.device(self._device):
            if self._graph is None:
                self._graph = self._capture()
            self._graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        current, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            self._run()  # compiles what is not compiled yet, which cannot be captured
        current.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        return graph


class _Slot(NamedTuple):
    host: Tensor  # pinned
    device: Tensor
    copied: torch.cuda.Event  # host to device
    taken: torch.cuda.Event  # from there


class Upload:
    """Copies crops from the CPU into `target`, on a stream of its own: a frame runs while the next one's crops come."""

    def __init__(self, target: Tensor) -> None:
        self._target, self._turn = target, 0
        with torch.cuda.device(target.device):
            self._stream = torch.cuda.Stream()
            self._slots = [
                _Slot(
                    torch.empty(target.shape, dtype=target.dtype, pin_memory=True),
                    torch.empty_like(target),
                    torch.cuda.Event(),
                    torch.cuda.Event(),
                )
                for _ in range(SLOTS)
            ]
            # Their memory may have been another tensor's, which kernels on their way still read.
            self._stream.wait_stream(torch.cuda.current_stream())

    def __call__(self, crops: Tensor) -> None:
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % SLOTS
        slot.copied.synchronize()  # of this slot's last turn: its pinned memory is free again
        slot.host.copy_(crops)
        with torch.cuda.device(self._target.device):
            current = torch.cuda.current_stream()
            with torch.cuda.stream(self._stream):
                self._stream.wait_event(slot.taken)
                slot.device.copy_(slot.host, non_blocking=True)
                slot.copied.record(self._stream)
            current.wait_event(slot.copied)
            self._target.copy_(slot.device)
            slot.taken.record(current)
