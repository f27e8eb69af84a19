"""Checks archives for evaluation servers and names every fault before they are submitted."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..datasets.benchmark import Benchmark, TestSequence
from .submissions import SUBMISSIONS, Submission

LARGEST = 1 << 26  # bytes of one file; sequences have thousands of frames, not millions
NEAR = 0.01  # pixels between a first box and its truth that rounding to two decimals explains
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)
NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+|nan|inf|infinity)(e[-+]?\d+)?\s*", re.IGNORECASE)
SEPARATORS = {"\t": "a tab", " ": "a space", ";": "a semicolon"}


class Finding(NamedTuple):
    """A fault of an archive, or a warning."""

    kind: str
    where: str  # the file and its content
    fault: bool  # the server may refuse or misread the archive; else a warning


class Lines(NamedTuple):
    """The rows of a file of numbers, if all are valid, and the findings."""

    rows: np.ndarray | None  # (N, columns) float64
    findings: list[Finding]


def check_archive(path: Path, benchmark_name: str, benchmark: Benchmark | None = None) -> list[Finding]:
    """Checks an archive for the server of a benchmark.

    Faults are what the server may refuse or misread. Warnings are boxes of zero width or height, which are misses; a
    first box that is not the given one; sequences with fewer repetitions; a folder around everything, where accepted.

    Args:
        path: the archive.
        benchmark_name: a key of `SUBMISSIONS`.
        benchmark: the data, for names of sequences, numbers of frames and first boxes; without it, only names are
            checked, if they are known.

    Raises:
        FileNotFoundError: there is no such file.
        OSError, ValueError: the data cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGE as error:
        return [Finding("not a zip archive", f"{path.name}: {error}", True)]
    with archive:
        return check_open_archive(archive, benchmark_name, benchmark)


def check_open_archive(
    archive: zipfile.ZipFile, benchmark_name: str, benchmark: Benchmark | None = None
) -> list[Finding]:
    """Checks an archive as `check_archive` does."""
    return list(_check(archive, SUBMISSIONS[benchmark_name], benchmark))


def _check(archive: zipfile.ZipFile, form: Submission, benchmark: Benchmark | None) -> Iterator[Finding]:
    files: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.filename in files:
            yield Finding("file that is there twice", info.filename, True)
        files[info.filename] = info
    wrapping = _wrapping(files, form)
    if wrapping:
        taken = form.wrapped and wrapping.count("/") == 1
        yield Finding("extra folder", f"everything lies in {wrapping!r}: pack what is in it, not the folder", not taken)
    expected = benchmark.sequence_names if benchmark is not None else form.names
    found: dict[str, dict[int, zipfile.ZipInfo]] = {}
    for file, info in files.items():
        if file.endswith("/") and wrapping.startswith(file):
            continue
        name = file.removeprefix(wrapping)
        place = form.place(name)
        if place is not None and (place[0] in expected or not expected):
            found.setdefault(place[0], {})[place[1]] = info
        elif place is not None:
            yield Finding("extra sequence", name, True)
        elif not _is_folder(name, form, expected):
            yield Finding("extra file or folder", file, True)
    yield from _counted(found, expected, form, benchmark)
    frames = dict(zip(expected, range(len(expected)), strict=True)) if benchmark is not None else {}
    for name, parts in sorted(found.items()):
        sequence = benchmark[frames[name]] if benchmark is not None else None
        yield from _sequence(archive, name, parts, form, sequence)


def _wrapping(files: Mapping[str, object], form: Submission) -> str:
    """The superfluous folders, such as "tracker/", that contain everything; or ""."""
    parts = [file.split("/")[:-1] for file in files if not file.endswith("/")]
    wrapping = ""
    while parts and all(len(folders) > form.depth for folders in parts) and len({folders[0] for folders in parts}) == 1:
        wrapping += parts[0][0] + "/"
        parts = [folders[1:] for folders in parts]
    return wrapping


def _is_folder(name: str, form: Submission, expected: list[str]) -> bool:
    """Whether an entry is a folder of a sequence, which some archivers add."""
    return name.endswith("/") and form.depth > 0 and (name[:-1] in expected or not expected)


def _counted(
    found: Mapping[str, Mapping[int, object]], expected: list[str], form: Submission, benchmark: Benchmark | None
) -> Iterator[Finding]:
    """Findings on missing sequences and on numbers of sequences and repetitions."""
    for name in expected:
        if not any(found.get(name, {})):
            yield Finding("missing sequence", name, True)
    if not expected and len(found) != form.sequences:
        yield Finding("number of sequences", f"{len(found)}, and the server wants {form.sequences}", True)
    if benchmark is not None and len(expected) != form.sequences:
        where = f"{len(expected)} sequences in the data at hand, and the server wants {form.sequences}"
        yield Finding("number of sequences", where, False)
    counts = {name: sum(1 for repetition in parts if repetition) for name, parts in found.items()}
    if len(set(counts.values()) - {0}) > 1:
        most = max(counts.values())
        fewer = sorted(name for name, count in counts.items() if 0 < count < most)
        yield Finding("fewer repetitions", f"{len(fewer)} sequences, such as {fewer[0]}; others have {most}", False)


def _sequence(
    archive: zipfile.ZipFile,
    name: str,
    parts: Mapping[int, zipfile.ZipInfo],
    form: Submission,
    sequence: TestSequence | None,
) -> Iterator[Finding]:
    """Findings on the files of one sequence."""
    repetitions = sorted(set(parts) - {0})
    allowed = list(range(1, len(repetitions) + 1))
    if repetitions and (repetitions != allowed or len(repetitions) > form.repetitions):
        got = ", ".join(f"{repetition:03d}" for repetition in repetitions)
        yield Finding(
            "numbers of repetitions", f"{name} has {got}; expected 001 to {form.repetitions:03d} at most", True
        )
    wanted = len(sequence.frames) if sequence is not None else None
    for repetition in repetitions:
        file = parts[repetition].filename
        rows, findings = _read(archive, parts[repetition], (4,))
        yield from findings
        if rows is None:
            continue
        if wanted is not None and len(rows) != wanted:
            yield Finding("number of rows", f"{file} has {len(rows)}, and the sequence {wanted} frames", True)
        wanted = len(rows) if wanted is None else wanted
        yield from _boxes(file, rows, sequence)
    if not form.times or not repetitions:
        return
    if 0 not in parts:
        yield Finding("missing file of times", form.times.format(name), True)
        return
    rows, findings = _read(archive, parts[0], tuple(sorted({1, len(repetitions)})))
    yield from findings
    if rows is not None:
        file = parts[0].filename
        if wanted is not None and len(rows) != wanted:
            yield Finding("number of rows", f"{file} has {len(rows)} times for {wanted} frames", True)
        if (rows < 0).any():
            yield Finding("negative time", f"{file}, line {_first(rows < 0)}", True)


def _boxes(file: str, rows: np.ndarray, sequence: TestSequence | None) -> Iterator[Finding]:
    sizes = rows[:, 2:]
    if (sizes < 0).any():
        yield Finding("negative width or height", f"{file}, line {_first(sizes < 0)}", True)
    if (sizes == 0).any():
        yield Finding("zero width or height, a miss", f"{file}, line {_first(sizes == 0)}", False)
    if sequence is not None and len(rows) and not np.allclose(rows[0], sequence.boxes[0], rtol=0, atol=NEAR):
        given = ",".join(f"{value:g}" for value in sequence.boxes[0])
        got = ",".join(f"{value:g}" for value in rows[0])
        yield Finding("first box is not the given one", f"{file} has {got}, given is {given}", False)


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, columns: tuple[int, ...]) -> Lines:
    """Reads comma-separated numbers whose count in every line is the same and one of `columns`."""
    file = info.filename
    if info.file_size > LARGEST:
        return Lines(None, [Finding("damaged file", f"{file} has {info.file_size:,} bytes, which no result has", True)])
    try:
        lines = archive.read(info).decode("utf-8").rstrip().splitlines()
    except DAMAGE as error:
        return Lines(None, [Finding("damaged file", f"{file}: {error}", True)])
    faults: dict[str, list[int]] = {}
    rows = []
    for number, line in enumerate(lines, 1):
        kind, row = _row(line, columns)
        if kind:
            faults.setdefault(kind, []).append(number)
        rows.append(row)
    if not lines:
        faults["empty file"] = [1]
    if len({len(row) for row in rows}) > 1 and not faults:
        faults["wrong number of columns"] = [1]
    findings = [
        Finding(kind, f"{file}, line {numbers[0]}" + (f" and {len(numbers) - 1} more" if numbers[1:] else ""), True)
        for kind, numbers in faults.items()
    ]
    return Lines(None if findings else np.array(rows, np.float64), findings)


def _row(line: str, columns: tuple[int, ...]) -> tuple[str, list[float]]:
    """Returns the fault of a line, or "", and its numbers."""
    words = line.split(",")
    if len(words) in columns and all(NUMBER.fullmatch(word) for word in words):
        row = [float(word) for word in words]
        return ("" if np.isfinite(row).all() else "NaN or infinity"), row
    for separator, name in SEPARATORS.items():
        parts = line.split(separator)
        if len(parts) > 1 and len(list(filter(None, parts))) in columns and "," not in line:
            return f"wrong separator, {name} for a comma", []
    if len(words) not in columns or not line.strip():
        return f"wrong number of columns, not {' or '.join(map(str, columns))}", []
    return "not a number", []


def _first(wrong: np.ndarray) -> int:
    """The number, from 1, of the first line with a fault."""
    return int(np.argmax(wrong.any(axis=1))) + 1
