"""Tables of scores by tracker and by attribute, and notes on how the scores were computed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from ..messages import first_few
from .scores import Report, Score

FPS_RULE = "fps: the mean of 1 / t over all frames, with first ones, as in the GOT-10k toolkit: short times weigh most"


def table(*reports: Report) -> Table:
    """Makes a table with a row for each tracker, with 95 % intervals where there are any.

    Raises:
        ValueError: no report, or reports of different benchmarks or protocols.
    """
    first = check_comparable(reports)
    shown = Table(title=f"{first.benchmark}, protocol {first.protocol}")
    shown.add_column("tracker")
    for name in (*first.scores, "fps", "sequences"):
        shown.add_column(name, justify="right", no_wrap=True)
    for report in reports:
        cells = [_with_interval(score, report.digits) for score in report.scores.values()]
        of = len(report.sequences) + len(report.failed) + (0 if report.missing_scored else len(report.missing))
        shown.add_row(escape(report.tracker), *cells, _number(report.fps, 1), f"{len(report.sequences)} of {of}")
    return shown


def attribute_table(*reports: Report) -> Table:
    """Makes a table with a row for each attribute: all scores of one tracker, or the first score of several.

    Raises:
        ValueError: no report, reports of different benchmarks or protocols, or a benchmark without attributes.
    """
    first = check_comparable(reports)
    if not first.attributes:
        raise ValueError(f"{first.benchmark} has no attributes")
    names = [*first.scores] if len(reports) == 1 else [*first.scores][:1]
    shown = Table(title=f"{first.benchmark}, protocol {first.protocol}, by attribute")
    shown.add_column("attribute")
    shown.add_column("sequences", justify="right")
    for report in reports:
        for name in names:
            shown.add_column(name if len(reports) == 1 else escape(f"{report.tracker} {name}"), justify="right")
    for attribute in sorted({attribute for report in reports for attribute in report.attributes}):
        having = {report.attribute_sequences.get(attribute, 0) for report in reports}
        found = [report.attributes.get(attribute, {}).get(name) for report in reports for name in names]
        counts = str(min(having)) if len(having) == 1 else f"{min(having)}-{max(having)}"
        shown.add_row(escape(attribute), counts, *(_number(value, first.digits) for value in found))
    return shown


def notes(report: Report) -> list[str]:
    """Lists notes for below the table: warnings about missing sequences, then how the scores were computed."""
    lines = []
    if report.missing:
        fate = "scored as boxes of zeros" if report.missing_scored else "NOT in the scores"
        lines.append(
            f"WARNING: {len(report.missing)} sequences have no result and are {fate}: {first_few(report.missing)}"
        )
    lines += [f"WARNING: {name} is NOT in the scores: {why}" for name, why in report.failed.items()]
    resampled = f"; intervals: 95 %, from {report.resamples} resamples of the sequences" if report.resamples else ""
    repeated = f", up to {report.repetitions} repetitions" if report.repetitions > 1 else ""
    return [
        *lines,
        f"protocol {report.protocol}: {report.toolkit}; scores out of {report.unit:g}",
        f"{len(report.sequences)} sequences{repeated}, {report.frames} frames counted, "
        f"{report.invalid} frames invalid{resampled}",
        *report.policy,
        *([] if report.fps is None else [FPS_RULE]),
    ]


def check_comparable(reports: Sequence[Report]) -> Report:
    """Returns the first report; ValueError if there is none, or they are of different benchmarks or protocols."""
    if not reports:
        raise ValueError("expected one report or more")
    kinds = dict.fromkeys((report.benchmark, report.protocol) for report in reports)
    if len(kinds) > 1:
        listed = ", ".join(f"{benchmark} by {protocol}" for benchmark, protocol in kinds)
        raise ValueError(f"expected reports of one benchmark and protocol, got {listed}")
    return reports[0]


def _with_interval(score: Score, digits: int) -> str:
    if score.low is None or score.high is None:
        return _number(score.value, digits)
    return f"{_number(score.value, digits)} [{score.low:.{digits}f}, {score.high:.{digits}f}]"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
