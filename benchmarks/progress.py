"""What a benchmark says while it measures: how many steps and about how long, then a line a step, as it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

Item = TypeVar("Item")
EVERY = 10.0  # seconds between two lines within a long step, or for many short ones


def duration(seconds: float) -> str:
    """In words: 8 s, 2 min 10 s."""
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


class Progress:
    """Lines on standard error, so that tables and JSON have standard output to themselves.

    Args:
        what: what is measured.
        steps: how many times `step` will be called.
        seconds: how long such a run takes on two cores with AVX2, as measured once; later lines go by the steps done.
        stream: where the lines go, in place of standard error.
    """

    def __init__(self, what: str, steps: int, seconds: float, stream: TextIO | None = None) -> None:
        self._steps, self._done, self._stream = steps, 0, stream
        self._began = time.perf_counter()
        self.say(f"{what}: {steps} step{'s' * (steps != 1)}, about {duration(seconds)} on two cores with AVX2")

    def say(self, text: str) -> None:
        """A line."""
        print(text, file=self._stream or sys.stderr, flush=True)
        self._told = time.perf_counter()

    def now(self, text: str) -> None:
        """A line about the step that is going on, unless one was printed within the last `EVERY` seconds."""
        if time.perf_counter() - self._told >= EVERY:
            self.say(f"[{self._done + 1}/{self._steps}] {text}")

    def step(self, text: str, done: int = 1) -> None:
        """A line: one more step is done, or as many as `done` says."""
        self._done += done
        spent = time.perf_counter() - self._began
        left = spent / self._done * (self._steps - self._done)
        rest = f", about {duration(left)} left" if left > 0 else ""
        self.say(f"[{self._done}/{self._steps}] {text} ({duration(spent)}{rest})")


def counted(items: Iterable[Item], what: str, total: int, seconds: float) -> Iterator[Item]:
    """The items, with a line every `EVERY` seconds that says how many are done."""
    progress, told, before = Progress(what, total, seconds), time.perf_counter(), 0
    for done, item in enumerate(items, 1):
        yield item
        if done == total or time.perf_counter() - told >= EVERY:
            progress.step(what, done - before)
            told, before = time.perf_counter(), done
