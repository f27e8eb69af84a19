"""Files of boxes of all frames: CSV, JSON lines, or plain x,y,w,h."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from fermt_kernels.files import atomic_path, named

from .target import Track

COLUMNS = ("frame", "id", "x", "y", "w", "h", "score", "lost")


class Row(NamedTuple):
    """The result for one target in one frame."""

    frame: int  # from 0
    id: str
    track: Track


def _csv(row: Row) -> str:
    (box, score, lost), line = row.track, StringIO()
    values = (row.frame, row.id, *(f"{value:.3f}" for value in box), f"{score:.4f}", int(lost))
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _json(row: Row) -> str:
    (box, score, lost) = row.track
    values = (row.frame, row.id, *(round(value, 3) for value in box), round(score, 4), lost)
    return json.dumps(dict(zip(COLUMNS, values, strict=True))) + "\n"


def _plain(row: Row) -> str:
    return ",".join(f"{value:.3f}" for value in row.track.box) + "\n"


# By suffix: the first line, and the form of a row.
FORMATS: dict[str, tuple[str, Callable[[Row], str]]] = {
    ".csv": (",".join(COLUMNS) + "\n", _csv),
    ".jsonl": ("", _json),
    ".txt": ("", _plain),
}


class ResultFile:
    """Writes rows to a file, which gets its name when the context ends without an error.

    The file has whole frames at any time: a part of a frame that a full disk cuts off is removed.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, 0
        self._atomic = atomic_path(path)
        self._header, self._line = FORMATS[path.suffix.lower()]
        self._file: BinaryIO | None = None

    def __enter__(self) -> ResultFile:
        path = self._atomic.__enter__()
        try:
            self._file = path.open("wb", buffering=0)
            self._append(self._header)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        if self._file is not None:
            self._file.close()
        self._atomic.__exit__(*error)

    def write(self, rows: Sequence[Row]) -> None:
        """Appends the rows of a frame, all or none of them; OSError if the disk is full."""
        self._append("".join(map(self._line, rows)))
        self.rows += len(rows)

    def _append(self, text: str) -> None:
        assert self._file is not None
        end, left = self._file.tell(), memoryview(text.encode())
        try:
            with named(self.path):
                while left:
                    left = left[self._file.write(left) :]
        except BaseException:
            self._file.truncate(end)
            raise
