"""Writes archives of results for evaluation servers; an archive with a fault is not written."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fermt_kernels.files import atomic_write

from ..datasets.benchmark import Benchmark
from .results import Result, ResultError, read_result
from .submissions import SUBMISSIONS, Submission
from .validate import Finding, findings_in

EPOCH = (1980, 1, 1, 0, 0, 0)  # time of every file, so that the same results give the same bytes


def pack(results: Path, benchmark: Benchmark, target: Path) -> list[Finding]:
    """Writes a folder of results as the archive that the server of a benchmark accepts.

    Args:
        results: with `<sequence>.txt`, or `<sequence>/<sequence>_001.txt` and so on; see `read_result`.
        benchmark: the sequences whose ground truth the server keeps.
        target: the .zip to write.

    Returns:
        The findings of `check_archive`; if there is a fault among them, nothing is written.

    Raises:
        FileNotFoundError: there are no results of any of the sequences; the message has the expected layout.
    """
    form = SUBMISSIONS[benchmark.name]
    read: dict[str, list[Result]] = {}
    findings: list[Finding] = []
    absent: list[FileNotFoundError] = []
    for name in benchmark.sequence_names:
        try:
            read[name] = read_result(results, name)
        except FileNotFoundError as error:
            absent.append(error)
            findings.append(Finding("missing sequence", name, True))
        except ResultError as error:
            findings.append(Finding("damaged file", str(error), True))
    if len(absent) == len(benchmark):
        raise absent[0]
    if findings:
        return findings
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in sorted(read):
            for file, text in _files(form, name, read[name]):
                info = zipfile.ZipInfo(file, EPOCH)
                info.create_system, info.external_attr, info.compress_type = 3, 0o644 << 16, zipfile.ZIP_DEFLATED
                archive.writestr(info, text)
    with zipfile.ZipFile(content) as archive:
        findings = list(findings_in(archive, form, benchmark))
    if not any(finding.fault for finding in findings):
        atomic_write(target, content.getvalue())
    return findings


def _files(form: Submission, name: str, repetitions: list[Result]) -> Iterator[tuple[str, str]]:
    """Yields the names and contents of the files of one sequence."""
    for number, result in enumerate(repetitions, 1):
        lines = (",".join(f"{value:.3f}" for value in box) for box in result.boxes.tolist())
        yield form.boxes.format(name, number), "".join(f"{line}\n" for line in lines)
    columns = [result.seconds.tolist() for result in repetitions if result.seconds is not None]
    if form.times and columns:
        rows = zip(*columns, strict=False)  # their number is checked later
        lines = (",".join(f"{value:.8f}" for value in row) for row in rows)
        yield form.times.format(name), "".join(f"{line}\n" for line in lines)
