"""Checks archives for evaluation servers and names every fault before they are submitted."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..datasets.benchmark import Benchmark, TestSequence
from .submissions import SUBMISSIONS, Submission

MAX_BYTES = 1 << 26  # bytes of one file; sequences have thousands of frames, not millions
BOX_TOLERANCE = 0.01  # pixels between a first box and its truth that rounding to two decimals explains
READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)
MAX_SHOWN = 40  # characters of a wrong line that a finding has


class Finding(NamedTuple):
    """A fault of an archive, or a warning."""

    kind: str
    where: str  # the file and its content
    fault: bool  # the server may refuse or misread the archive; else a warning


def check_archive(path: Path, benchmark_name: str, benchmark: Benchmark | None = None) -> list[Finding]:
    """Checks an archive for the server of a benchmark.

    Faults are what the server may refuse or misread. Warnings are boxes of zero width or height, which are misses; a
    first box that is not the given one; sequences with fewer repetitions; a folder around everything, where accepted.

    Args:
        path: the archive.
        benchmark_name: a key of `SUBMISSIONS`.
        benchmark: the data, for names of sequences, numbers of frames and first boxes; without it, only names are
            checked, if the benchmark numbers them.

    Raises:
        FileNotFoundError: there is no such file.
        OSError, ValueError: the data cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    try:
        archive = zipfile.ZipFile(path)
    except READ_ERRORS as error:
        return [Finding("not a zip archive", f"{path.name}: {error}", True)]
    with archive:
        return list(findings_in(archive, SUBMISSIONS[benchmark_name], benchmark))


def findings_in(archive: zipfile.ZipFile, form: Submission, benchmark: Benchmark | None) -> Iterator[Finding]:
    """Yields what `check_archive` finds in an open archive of this form."""
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
        rows = _read(archive, parts[repetition], (4,))
        if isinstance(rows, Finding):
            yield rows
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
    rows = _read(archive, parts[0], (1, len(repetitions)))
    if isinstance(rows, Finding):
        yield rows
        return
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
    if sequence is not None and len(rows) and not np.allclose(rows[0], sequence.boxes[0], rtol=0, atol=BOX_TOLERANCE):
        given = ",".join(f"{value:g}" for value in sequence.boxes[0])
        got = ",".join(f"{value:g}" for value in rows[0])
        yield Finding("first box is not the given one", f"{file} has {got}, given is {given}", False)


def _read(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, columns: tuple[int, int] | tuple[int]
) -> np.ndarray | Finding:
    """Reads a table of numbers, (N, one of `columns`) float64; the finding if a file or a line is something else."""
    file = info.filename
    if info.file_size > MAX_BYTES:
        return Finding("damaged file", f"{file} has {info.file_size:,} bytes, which no result has", True)
    try:
        lines = archive.read(info).decode("utf-8").rstrip().splitlines()
    except READ_ERRORS as error:
        return Finding("damaged file", f"{file}: {error}", True)
    if not lines:
        return Finding("empty file", file, True)
    rows = [_numbers(line) for line in lines]
    count = len(rows[0]) if len(rows[0]) in columns else columns[-1]
    wrong = [number for number, row in enumerate(rows, 1) if len(row) != count]
    if not wrong:
        return np.array(rows, np.float64)
    more = f" and {len(wrong) - 1} more" if wrong[1:] else ""
    expected = f"not {count} finite number{'s with commas between' if count > 1 else ''}"
    return Finding(expected, f"{file}, line {wrong[0]}: {lines[wrong[0] - 1][:MAX_SHOWN]!r}{more}", True)


def _numbers(line: str) -> list[float]:
    """The finite numbers of a line between commas; empty if it has anything else."""
    try:
        row = [float(word) for word in line.split(",")]
    except ValueError:
        return []
    return row if np.isfinite(row).all() and "_" not in line else []


def _first(wrong: np.ndarray) -> int:
    """The number, from 1, of the first line with a fault."""
    return int(np.argmax(wrong.any(axis=1))) + 1
