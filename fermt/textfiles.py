"""Reading of text files that people make: with or without a byte-order mark, with an error that names the file."""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path
from typing import Any


def read_text(path: Path) -> str:
    """Reads a UTF-8 file, without the byte-order mark that some editors put first.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8; the message has the file, the line and the byte.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{str(path)!r}, line {line}: expected text in UTF-8, got the byte "
            f"{data[error.start : error.start + 1]!r}; save the file as UTF-8"
        ) from error


def read_lines(path: Path) -> list[str]:
    """Reads the lines of a text file, without empty lines at its end; errors as `read_text`."""
    return read_text(path).rstrip().splitlines()


def read_numbers(
    path: Path, columns: Container[int], expected: str, *, skip: int = 0, error: type[ValueError] = ValueError
) -> list[list[float]]:
    """Reads the numbers of each line, between commas, tabs or spaces; a comma may end a line.

    Args:
        columns: how many numbers a line may have.
        expected: what a line should be, for messages.
        skip: lines left out at the start.
        error: what is raised.

    Raises:
        ValueError, or `error`: a line has another form, or the file is not UTF-8; the message has the file and line.
    """
    try:
        lines = read_lines(path)
    except ValueError as reason:
        raise error(f"expected {expected} a line: {reason}") from reason
    rows = []
    for number, line in enumerate(lines[skip:], 1 + skip):
        try:
            row = [number_of(word) for word in _words(line)]
        except ValueError:
            row = []
        if len(row) not in columns:
            raise error(f"{str(path)!r}, line {number}: expected {expected}, got {line[:80]!r}")
        rows.append(row)
    return rows


def number_of(word: str) -> float:
    """Converts a number; ValueError also for what only Python accepts: 1_000, digits of other scripts."""
    if "_" in word or not word.isascii():
        raise ValueError(f"expected a number, got {word!r}")
    return float(word)


def _words(line: str) -> list[str]:
    """The words of a line; an empty one between two commas, so that a number that is missing is not overlooked."""
    return [word for cell in line.rstrip().removesuffix(",").split(",") for word in cell.split() or [""]]


def read_names(path: Path) -> list[str]:
    """Reads a list, an entry a line, without spaces around it and without empty lines; errors as `read_text`."""
    return [line.strip() for line in read_lines(path) if line.strip()]


def read_json(path: Path) -> Any:
    """Reads a JSON file; ValueError names a file that is not UTF-8 or not JSON, otherwise as `read_text`."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also for a number of more digits than Python converts
        raise ValueError(f"{str(path)!r} is not JSON: {error}") from error
