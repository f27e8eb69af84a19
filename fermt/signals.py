"""Signals to stop a process: SIGINT (Ctrl-C), SIGTERM (docker stop, SLURM) and SIGHUP (a closed terminal)."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
REPEAT_INTERVAL = 1.0  # seconds; `timeout` and SLURM signal a process, then its group


class Stopped(KeyboardInterrupt):
    """A signal to stop has arrived. `number` is the signal's."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def exit_status(error: KeyboardInterrupt) -> int:
    """The exit status after a signal, 128 + its number as in shells: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)


class StopRequest:
    """Whether a signal to stop has arrived; see `deferred`."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the first signal

    def check(self) -> None:
        """Raises Stopped if there has been a request."""
        if self.number is not None:
            raise Stopped(self.number)


@contextmanager
def raising() -> Iterator[None]:
    """Raises `Stopped` in this context when a signal asks the process to stop, as Python does for Ctrl-C alone."""

    def stop(number: int) -> None:
        raise Stopped(number)

    with _handled(stop):
        yield


@contextmanager
def deferred() -> Iterator[StopRequest]:
    """Collects requests to stop in this context, so that the work at hand can be finished.

    A second request, more than `REPEAT_INTERVAL` seconds after the first, has the effect that it has outside the
    context.
    """
    request = StopRequest()

    def note(number: int) -> None:
        request.number = number

    with _handled(note):
        yield request


@contextmanager
def inherited_as_ignored() -> Iterator[None]:
    """Child processes that start in this context ignore Ctrl-C and a closed terminal: this process ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPPING if number != signal.SIGTERM}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def _handled(first: Callable[[int], None]) -> Iterator[None]:
    """Calls `first` on the first signal. Signals that are ignored (nohup) stay ignored; other threads handle none."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}
    before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    process = os.getpid()
    came: list[float] = []  # the time of the first signal

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked child ends as it would without this context
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not came:
            came.append(time.monotonic())
            first(number)
        elif time.monotonic() - came[0] > REPEAT_INTERVAL:
            _as_before(before[signal.Signals(number)], number, frame)

    try:
        for number in before:
            signal.signal(number, handle)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _as_before(
    old: Callable[[int, FrameType | None], object] | int | None, number: int, frame: FrameType | None
) -> None:
    if callable(old):
        old(number, frame)
    else:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
