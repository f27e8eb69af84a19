"""Progress display for long work: a bar on a terminal, a line from time to time elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

FIRST = 3.0  # seconds until the first line
EVERY = 30.0  # seconds between further lines


class ProgressDisplay:
    """Shows how much is done, at which rate, and how long the rest will take; a context manager.

    Args:
        console: where to print; a bar needs a terminal.
        label: what is going on, such as "tracking".
        total: units to do in all; None or 0 if unknown.
        done: units that an earlier run has done.
        unit: name of a unit in the plural, such as "frames".
    """

    def __init__(self, console: Console, label: str, total: int | None, done: int = 0, *, unit: str) -> None:
        self.total, self._console, self._label, self._unit = total or None, console, label, unit
        columns = (
            *(TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}")),
            *(TimeElapsedColumn(), TimeRemainingColumn()),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=self.total, completed=done, text="")
        self._start_time, self._start, self._done = time.perf_counter(), done, done
        self._text = ""  # of the last report
        self._due = self._start_time + FIRST

    def __enter__(self) -> ProgressDisplay:
        self._start_time = time.perf_counter()
        self._due = self._start_time + FIRST
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self._done - self._start) / max(time.perf_counter() - self._start_time, 1e-9)

    @property
    def time_left(self) -> str:
        """The remaining time at the present rate, such as "5 min left"; empty if unknown."""
        if not self.total or not self.rate:
            return ""
        seconds = (self.total - self._done) / self.rate
        return f"{seconds / 60:.0f} min left" if seconds >= 100 else f"{seconds:.0f} s left"

    def update(self, done: int, text: str = "") -> None:
        """Shows that `done` units are done; elsewhere than on a terminal, prints a line if one is due."""
        self._done = done
        text = f"{text}  {self.rate:.1f} {self._unit}/s".strip()
        self._bar.update(self._task, completed=done, text=text)
        if time.perf_counter() >= self._due:
            self._line(text)

    def report(self, done: int, text: str) -> None:
        """Shows text of the caller's own, in a line at once if there is no bar."""
        self._done, self._text = done, text
        self._bar.update(self._task, completed=done, text=text)
        self._line(text)

    def advance(self, done: int) -> None:
        """Shows that `done` units are done with the last text, in a line if one is due."""
        self._done = done
        self._bar.update(self._task, completed=done)
        if time.perf_counter() >= self._due:
            self._line(self._text or f"{self.rate:.1f} {self._unit}/s")

    def say(self, text: str, style: str | None = None) -> None:
        """Prints a line above the bar."""
        self._console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    def _line(self, text: str) -> None:
        self._due = time.perf_counter() + EVERY
        if self._console.is_terminal:
            return
        count = f"{self._done}" if self.total is None else f"{self._done}/{self.total}"
        self.say(f"{self._label} {self._unit} {count}  {text}  {self.time_left}".rstrip())
