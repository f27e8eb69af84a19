"""Metrics of a training run: lines of a .csv file, and TensorBoard on request."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fermt_kernels.files import atomic_write

from ..textfiles import read_text
from .validation import Validation

VALIDATED = tuple(f"val_{name}" for name in Validation._fields)
MEASURED = ("loss", "focal", "l1", "giou", "matching", "iou", "grad_norm")
COLUMNS = ("step", "epoch", "lr", *MEASURED, "skipped", "pairs_per_second", *VALIDATED)


class Metrics:
    """A .csv file to which each call of `write` appends a line; cells that were not measured are empty."""

    def __init__(self, path: Path, done: int, tensorboard: bool) -> None:
        """Opens the file and deletes its lines for steps after `done`, at which the run continues.

        Raises:
            ValueError: TensorBoard is requested and not installed.
        """
        self.path = path
        kept = [line for line in _whole_lines(path) if int(line.split(",", 1)[0]) <= done]
        atomic_write(path, _line(COLUMNS) + "".join(kept))
        self._board = _board(path.parent / "tensorboard", done) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends the values of a step."""
        row = {"step": step} | dict(values)
        with self.path.open("a") as file:  # one write, so that no line is cut off
            file.write(_line([_shown(row.get(name)) for name in COLUMNS]))
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()


def _whole_lines(path: Path) -> list[str]:
    """Reads the complete lines of a file, without the header."""
    if not path.exists():
        return []
    lines = read_text(path).splitlines(keepends=True)[1:]
    return [line for line in lines if line.endswith("\n") and line.count(",") == len(COLUMNS) - 1]


def _line(cells: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _board(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError("tensorboard=true needs `pip install 'fermt-kernels[train]'`") from error
    return SummaryWriter(str(folder), purge_step=done + 1)
