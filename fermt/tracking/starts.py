"""Targets to start with: parsed from text, or read from files of boxes, those of `fermt track` among them."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..textfiles import number_of, read_text

LINE_FORMS = "x,y,w,h or frame,id,x,y,w,h"
BOX_COLUMNS = ("x", "y", "w", "h")
SCORE_COLUMN = "score"  # a column that only results have, in which every target comes again in every frame
LINE_COLUMNS = ("frame", "id", *BOX_COLUMNS)  # columns of a line without a header


class Start(NamedTuple):
    """A target and the frame in which tracking it starts."""

    frame: int
    name: str
    box: tuple[float, ...]  # xywh


def parse_box(text: str) -> tuple[float, ...] | None:
    """Parses x,y,w,h, four finite numbers between commas, semicolons, tabs or spaces; None if it is something else."""
    return _box(_split(text, (len(BOX_COLUMNS),)))


def starts_of(boxes: Sequence[str]) -> Iterator[Start]:
    """Targets of the first frame, called "0", "1" ...; ValueError if a text is not a box."""
    for i, text in enumerate(boxes):
        if (box := parse_box(text)) is None:
            raise ValueError(f"expected four numbers x,y,w,h in pixels (such as 372,108,125,240), got {text!r}")
        yield Start(0, str(i), box)


def read_starts(path: Path, named: int = 0) -> list[Start]:
    """Reads targets from a file: x,y,w,h or frame,id,x,y,w,h a line, or results of `fermt track` (.csv, .jsonl).

    A header line names the columns; x, y, w and h are required, unknown ones are ignored. Of results, which have a
    score, each target's first line is used. Blank lines and lines that begin with # are skipped.

    Args:
        path: the file.
        named: the first number that names a target without an id.

    Raises:
        ValueError: a line has another form, or a target comes twice; the message has the file and the line.
        OSError: the file cannot be read.
    """
    starts: dict[str, Start] = {}
    header: list[str] | None = None
    for number, line in enumerate(read_text(path).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if header is None and not starts and (header := _header(text)):
            continue
        values = _values(text, header)
        start = None if values is None else _start(values, str(named + len(starts)))
        if start is None:
            expected = (
                f"{','.join(header)} as in the header" if header not in (None, list(LINE_COLUMNS)) else LINE_FORMS
            )
            raise ValueError(f"{str(path)!r}, line {number}: expected {expected}, got {line[:80]!r}")
        if start.name not in starts:
            starts[start.name] = start
        elif SCORE_COLUMN not in (values or {}):
            raise ValueError(f"{str(path)!r}, line {number}: a second target {start.name!r}")
    return list(starts.values())


def _split(text: str, counts: Container[int]) -> list[str]:
    """The cells of a line between commas, or between semicolons; if their number is not in `counts`, their words.

    Only the first kind of separator counts, so that 2,5;3,5 is not four numbers.
    """
    separator = re.search(r"[,;]", re.sub(r'"[^"]*"', "", text))
    if separator is None:
        return text.split()
    try:
        cells = [cell.strip() for cell in next(csv.reader([text], delimiter=separator[0], skipinitialspace=True))]
    except csv.Error:  # a cell of 100 kB
        return []
    return cells if len(cells) in counts else [word for cell in cells for word in cell.split() or [""]]


def _header(text: str) -> list[str] | None:
    """The columns that a line names; None if it names no box."""
    columns = [column.strip("\"'").lower() for column in _split(text, range(len(BOX_COLUMNS), len(text)))]
    return columns if all(columns.count(name) == 1 for name in BOX_COLUMNS) else None


def _values(text: str, header: list[str] | None) -> Mapping[str, object] | None:
    """The values of a line by column."""
    if text.startswith("{"):
        try:
            return dict(json.loads(text, object_pairs_hook=_without_repeats))
        except (ValueError, TypeError, RecursionError):
            return None
    own = header if header not in (None, list(LINE_COLUMNS)) else None
    words = _split(text, (len(own),) if own else (len(BOX_COLUMNS), len(LINE_COLUMNS)))
    columns = own or (BOX_COLUMNS if len(words) == len(BOX_COLUMNS) else LINE_COLUMNS)
    return dict(zip(columns, words, strict=True)) if len(words) == len(columns) else None


def _without_repeats(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    if len(values := dict(pairs)) < len(pairs):
        raise ValueError
    return values


def _start(values: Mapping[str, object], name: str) -> Start | None:
    box = _box([values.get(key) for key in BOX_COLUMNS])
    frame = str(values.get("frame", 0))
    if box is None or not (frame.isascii() and frame.isdecimal()):
        return None
    own = values.get("id")
    try:
        own = name if own is None else str(own).encode().decode()
    except UnicodeEncodeError:  # half a pair of surrogates, which no file of results can have
        return None
    return Start(int(frame), own, box)


def _number(word: object) -> float:
    """A number in a cell or of JSON, whose `true` is none."""
    if isinstance(word, bool):
        raise ValueError
    return number_of(word) if isinstance(word, str) else float(word)  # type: ignore[arg-type]


def _box(words: Sequence[object]) -> tuple[float, ...] | None:
    try:
        box = tuple(_number(word) for word in words)
    except (TypeError, ValueError, OverflowError):
        return None
    return box if len(box) == len(BOX_COLUMNS) and all(map(math.isfinite, box)) else None
