"""CUDA graphs and asynchronous uploads for frames on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

SLOTS = 2  # batches of crops that are being uploaded at a time


class Captured:
    """Runs a function as one CUDA graph; it must do nothing but launch kernels on the current stream."""

    def __init__(self, run: Callable[[], None], device: torch.device) -> None:
        self._run, self._device = run, device
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        with torch.cuda.device(self._device):
            if self._graph is None:
                self._graph = self._capture()
            self._graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            self._run()  # compiles kernels, which cannot be captured
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # The default stream of captures belongs to the GPU that captured first. Other threads may allocate during one.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            self._run()
        return graph


class _Slot(NamedTuple):
    host: Tensor  # pinned
    device: Tensor
    copied: torch.cuda.Event  # from host to device
    taken: torch.cuda.Event  # from device to the target


class Upload:
    """Copies crops from the CPU into `target` on its own stream, while the previous frame still runs."""

    def __init__(self, target: Tensor) -> None:
        self._target, self._turn = target, 0
        with torch.cuda.device(target.device):
            self._stream = torch.cuda.Stream()
            self._slots = [
                _Slot(
                    torch.empty(target.shape, dtype=target.dtype, pin_memory=True, device="cpu"),
                    torch.empty_like(target),
                    torch.cuda.Event(),
                    torch.cuda.Event(),
                )
                for _ in range(SLOTS)
            ]
            # Kernels that are still running may read this memory as an earlier tensor's.
            self._stream.wait_stream(torch.cuda.current_stream())

    def __call__(self, crops: Tensor) -> None:
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % SLOTS
        slot.copied.synchronize()  # until the slot's previous copy has read its pinned memory
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
