"""What a run writes down as it goes: lines of a .csv, and TensorBoard where it is asked for."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import write_aside
from .validation import Validation

VALIDATED = tuple(f"val_{name}" for name in Validation._fields)
MEASURED = ("loss", "focal", "l1", "giou", "iou", "grad_norm")
COLUMNS = ("step", "epoch", "lr", *MEASURED, "skipped", "pairs_per_second", *VALIDATED)


class Metrics:
    """A .csv with a whole line for each call of `write`, appended; cells that were not measured are empty."""

    def __init__(self, path: Path, done: int, tensorboard: bool) -> None:
        """`done`: steps that the run goes on from; lines of later steps, from before it was cut off, are left out.

        Raises:
            ValueError: TensorBoard is asked for and not installed.
        """
        self.path = path
        kept = [line for line in _whole_lines(path) if int(line.split(",", 1)[0]) <= done]
        write_aside(path, _line(COLUMNS) + "".join(kept))
        self._board = _board(path.parent / "tensorboard", done) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        row = {"step": step} | dict(values)
        with self.path.open("a") as file:  # one write of one line
            file.write(_line([_shown(row.get(name)) for name in COLUMNS]))
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file that end as lines do and have every column, less the headings."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)[1:]
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
        raise ValueError("tensorboard=true takes `pip install 'fermt-kernels[train]'`") from error
    return SummaryWriter(str(folder), purge_step=done + 1)
