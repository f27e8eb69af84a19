"""CUDA graphs and asynchronous uploads for frames on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

SLOTS = 2  # uploads that are on their way at a time
WHOLE: tuple[slice, ...] = ()


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
    """Copies tensors from the CPU into `target`, or a part of it, on its own stream, while the previous frame runs."""

    def __init__(self, target: Tensor) -> None:
        self._target, self._turn = target, 0
        with torch.cuda.device(target.device):
            self._stream = torch.cuda.Stream()
            self._slots = [
                _Slot(
                    torch.empty((target.numel(),), dtype=target.dtype, pin_memory=True, device="cpu"),
                    torch.empty_like(target).view(-1),
                    torch.cuda.Event(),
                    torch.cuda.Event(),
                )
                for _ in range(SLOTS)
            ]
            # Kernels that are still running may read this memory as an earlier tensor's.
            self._stream.wait_stream(torch.cuda.current_stream())

    def __call__(self, source: Tensor, part: tuple[slice, ...] = WHOLE) -> None:
        """Copies `source`, of the shape of that part of the target, into it."""
        slot = self._slots[self._turn]
        host, device = (memory[: source.numel()].view(source.shape) for memory in (slot.host, slot.device))
        self._turn = (self._turn + 1) % SLOTS
        slot.copied.synchronize()  # until the slot's previous copy has read its pinned memory
        host.copy_(source)
        with torch.cuda.device(self._target.device):
            current = torch.cuda.current_stream()
            with torch.cuda.stream(self._stream):
                self._stream.wait_event(slot.taken)
                device.copy_(host, non_blocking=True)
                slot.copied.record(self._stream)
            current.wait_event(slot.copied)
            self._target[part].copy_(device)
            slot.taken.record(current)
