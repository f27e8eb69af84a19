"""A stand-in for `torch.cuda` that knows what is ordered before what, and finds accesses to memory that are not.

Each stream, and the host, has a vector clock: how much of every stream surely is done when its next operation runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from types import SimpleNamespace
from typing import Any

import torch

Clock = dict[str, int]
HOST = "host"


class Cuda:
    """The host, the default stream and others; the operations of each are counted from 1."""

    def __init__(self) -> None:
        self.clocks: dict[str, Clock] = {HOST: {}, "default": {}}
        self.stack = ["default"]
        self.devices: list[Any] = []
        self.capturing: _Graph | None = None
        self.Stream, self.Event, self.CUDAGraph = (
            (lambda: _Stream(self)),
            (lambda: _Event(self)),
            (lambda: _Graph(self)),
        )

    def torch(self) -> SimpleNamespace:
        """What stands for the module `torch` in code that copies to a GPU."""
        return SimpleNamespace(cuda=self, empty=self.pinned, empty_like=self.like)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype, pin_memory: bool, device: str) -> Memory:
        assert device == "cpu"
        assert pin_memory, "a copy from other memory waits"
        return Memory(self, shape, dtype, on=HOST)

    def like(self, other: Memory) -> Memory:
        return Memory(self, other.shape, other.dtype)

    def current_stream(self) -> _Stream:
        return _Stream(self, self.stack[-1])

    @contextmanager
    def device(self, device: Any) -> Iterator[None]:
        self.devices.append(device)
        yield
        self.devices.pop()

    @contextmanager
    def stream(self, stream: _Stream) -> Iterator[None]:
        self.stack.append(stream.name)
        yield
        self.stack.pop()

    @contextmanager
    def graph(self, graph: _Graph, stream: _Stream | None = None, capture_error_mode: str = "global") -> Iterator[None]:
        """Captures on a stream of the current device; torch's default is one of the device that captured first."""
        assert self.capturing is None
        assert getattr(stream, "device", None) == self.devices[-1], "the graph of a second GPU would be empty"
        assert capture_error_mode == "thread_local", "an allocation of another thread would break the capture"
        self.capturing = graph
        with self.stream(stream):
            yield
        self.capturing = None

    def order(self, later: Clock, earlier: Clock) -> None:
        for name, count in earlier.items():
            later[name] = max(later.get(name, 0), count)

    def operate(self, on: str, reads: list[Memory], writes: list[Memory]) -> None:
        """An operation on a stream, after all that the host has seen done when it asks for it."""
        if self.capturing is not None and on != HOST:
            self.capturing.operations.append((reads, writes))
            return
        clock = self.clocks[on]
        self.order(clock, self.clocks[HOST])
        clock[on] = clock.get(on, 0) + 1
        for memory in reads:
            memory.check(memory.writes, clock, f"{on} reads what")
            memory.reads.append((on, clock[on]))
        for memory in writes:
            memory.check(memory.reads + memory.writes, clock, f"{on} overwrites what")
            memory.writes.append((on, clock[on]))


class Memory:
    """A tensor's memory: its contents, and who read and wrote it when."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.uint8, on: str = "") -> None:
        self.cuda, self.shape, self.dtype, self.on, self.value = cuda, shape, dtype, on, 0
        self.device = "cpu" if on == HOST else "cuda:1"
        self.reads: list[tuple[str, int]] = []
        self.writes: list[tuple[str, int]] = []
        if not on:  # the allocator gives what another tensor had, and kernels on this stream may still be at
            cuda.operate(cuda.stack[-1], [], [self])

    def numel(self) -> int:
        return prod(self.shape)

    def view(self, *_: Any) -> Memory:
        return self

    def __getitem__(self, _: Any) -> Memory:
        """Any part of it: who writes a part at the wrong time is found as if it were the whole."""
        return self

    def check(self, accesses: list[tuple[str, int]], clock: Clock, what: str) -> None:
        for name, count in accesses:
            assert clock.get(name, 0) >= count, f"{what} {name} has at hand"

    def copy_(self, other: Memory, non_blocking: bool = False) -> None:
        where = HOST if self.on == other.on == HOST else self.cuda.stack[-1]
        if where != HOST:
            assert self.cuda.devices == ["cuda:1"]
        self.cuda.operate(where, [other], [self])
        if HOST in (self.on, other.on) and not non_blocking:
            self.cuda.order(self.cuda.clocks[HOST], self.cuda.clocks[where])
        self.value = other.value


class _Stream:
    def __init__(self, cuda: Cuda, name: str | None = None) -> None:
        self.cuda, self.name = cuda, name or f"stream {len(cuda.clocks)}"
        self.device = cuda.devices[-1] if cuda.devices else None
        cuda.clocks.setdefault(self.name, {})

    def wait_stream(self, other: _Stream) -> None:
        self.cuda.order(self.cuda.clocks[self.name], self.cuda.clocks[other.name])

    def wait_event(self, event: _Event) -> None:
        self.cuda.order(self.cuda.clocks[self.name], event.clock)


class _Event:
    """One that was never recorded is waited for in vain: not at all."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda, self.clock = cuda, {}

    def record(self, stream: _Stream) -> None:
        self.clock = dict(self.cuda.clocks[stream.name])

    def synchronize(self) -> None:
        self.cuda.order(self.cuda.clocks[HOST], self.clock)


class _Graph:
    def __init__(self, cuda: Cuda) -> None:
        self.cuda, self.replays = cuda, 0
        self.operations: list[tuple[list[Memory], list[Memory]]] = []

    def replay(self) -> None:
        self.replays += 1
        for reads, writes in self.operations:
            self.cuda.operate(self.cuda.stack[-1], reads, writes)


def kernel(cuda: Cuda, reads: list[Memory], writes: list[Memory]) -> Callable[[], None]:
    """Launches on the current stream."""
    return lambda: cuda.operate(cuda.stack[-1], reads, writes)
