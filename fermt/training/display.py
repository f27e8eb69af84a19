"""What a run shows on the terminal: a bar where there is one, a line now and then where there is not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SHOWN = ("loss", "focal", "l1", "giou", "iou")


class Display:
    """Steps done, pairs a second, time left, and the loss's parts."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        self.console, self.total = console, total
        columns = (
            *(TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}")),
            *(TimeElapsedColumn(), TimeRemainingColumn()),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=total, completed=done, text="")
        self._began, self._first = time.perf_counter(), done

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, done: int) -> None:
        self._bar.update(self._task, completed=done)

    def line(self, done: int, epoch: int, values: Mapping[str, float]) -> None:
        """The latest means."""
        parts = "  ".join(f"{name} {values[name]:.3f}" for name in SHOWN if name in values)
        text = f"epoch {epoch + 1}  {parts}  {values['pairs_per_second']:.0f} pairs/s"
        self._bar.update(self._task, text=text)
        if not self.console.is_terminal:
            left = (time.perf_counter() - self._began) / max(done - self._first, 1) * (self.total - done)
            self.say(f"step {done}/{self.total}  {text}  {left / 60:.0f} min left")

    def say(self, text: str, style: str | None = None) -> None:
        self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
