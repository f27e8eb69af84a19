"""What a run over a benchmark shows: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY = 30.0  # seconds between two lines


class Display:
    """Sequences done, frames a second, and the time that is left; failures as they come."""

    def __init__(self, console: Console, frames: int, sequences: int, done: int) -> None:
        """`frames` are to be done in `sequences` sequences, of which `done` are done already."""
        self._console, self._frames, self._sequences, self._done = console, frames, sequences, done
        columns = (
            *(TextColumn("tracking"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[text]}")),
            *(TimeElapsedColumn(), TimeRemainingColumn()),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=frames, text=f"{done}/{sequences} sequences")
        self._began = self._last = time.perf_counter()

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, frames: int, finished: int) -> None:
        """Where the run is: frames done, and sequences finished, since it began."""
        now = time.perf_counter()
        rate = frames / (now - self._began)
        text = f"{self._done + finished}/{self._sequences} sequences  {rate:.0f} frames/s"
        self._bar.update(self._task, completed=frames, text=text)
        if not self._console.is_terminal and now - self._last > EVERY:
            self._last = now
            self.say(f"{text}  {self.left(frames)}")

    def left(self, frames: int) -> str:
        """How long the rest takes, at the rate of the frames that are done."""
        if not frames:
            return ""
        seconds = (self._frames - frames) * (time.perf_counter() - self._began) / frames
        return f"{seconds / 60:.0f} min left" if seconds >= 100 else f"{seconds:.0f} s left"

    def say(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
