"""Progress display for long work: a bar on a terminal, a line from time to time elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

FIRST_LINE = 3.0  # seconds until the first line
LINE_INTERVAL = 30.0  # seconds between further lines


def duration(seconds: float) -> str:
    """In words: 8 s, 2 min 10 s."""
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


class ProgressDisplay:
    """Shows how much is done and how long the rest will take; a context manager where there may be a bar.

    Args:
        console: where to print; a bar needs a terminal.
        label: what is going on, such as "tracking".
        total: units to do in all; None or 0 if unknown.
        done: units that an earlier run has done.
        unit: name of a unit in the plural, such as "frames".
        bar: whether to draw a bar on a terminal; its thread would disturb timings.
        every: seconds between the lines of `update` and `note`.
    """

    def __init__(
        self,
        console: Console,
        label: str,
        total: int | None,
        done: int = 0,
        *,
        unit: str,
        bar: bool = True,
        every: float = LINE_INTERVAL,
    ) -> None:
        self.total, self._console, self._label, self._unit = total or None, console, label, unit
        self._has_bar, self._every = bar and console.is_terminal, every
        columns = (
            *(TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}")),
            *(TimeElapsedColumn(), TimeRemainingColumn()),
        )
        self._bar = Progress(*columns, console=console, disable=not self._has_bar)
        self._task = self._bar.add_task("", total=self.total, completed=done, text="")
        self._start = self._done = done
        self._text = ""  # of the last report
        self._restart()

    def _restart(self) -> None:
        self._start_time = time.perf_counter()
        self._due = self._start_time + FIRST_LINE

    def __enter__(self) -> ProgressDisplay:
        self._restart()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start_time

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self._done - self._start) / max(self.elapsed, 1e-9)

    @property
    def time_left(self) -> str:
        """The time left at the present rate, such as "about 5 min 0 s left"; empty if unknown, or if all is done."""
        if not self.total or not self.rate or self._done >= self.total:
            return ""
        return f"about {duration((self.total - self._done) / self.rate)} left"

    def update(self, done: int, text: str = "") -> None:
        """Shows that `done` units are done, with text and rate, or without text with the last report; a line if due."""
        self._done = done
        rate = f"{self.rate:.1f} {self._unit}/s"
        self._show(done, f"{text}  {rate}" if text else self._text or rate, time.perf_counter() >= self._due)

    def report(self, done: int, text: str) -> None:
        """Shows text of the caller's own, in a line at once if there is no bar."""
        self._text = text
        self._show(done, text, True)

    def step(self, text: str) -> None:
        """Reports one more unit."""
        self.report(self._done + 1, text)

    def note(self, text: str) -> None:
        """Shows what is going on within a unit, in a line if one is due."""
        self._show(self._done, text, time.perf_counter() >= self._due)

    def say(self, text: str, style: str | None = None) -> None:
        """Prints a line above the bar."""
        self._console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    def _show(self, done: int, text: str, line: bool) -> None:
        self._done = done
        self._bar.update(self._task, completed=done, text=text)
        if not line:
            return
        self._due = time.perf_counter() + self._every
        if not self._has_bar:
            count = f"{done}" if self.total is None else f"{done}/{self.total}"
            times = ", ".join(filter(None, (duration(self.elapsed), self.time_left)))
            self.say(f"{self._label} {count} {self._unit}: {text} ({times})".lstrip())
