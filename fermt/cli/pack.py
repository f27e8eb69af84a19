"""`fermt pack`: writes or checks an archive of results for an evaluation server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..datasets import BENCHMARK_FILES, open_benchmark
from ..evaluation.pack import pack as write_archive
from ..evaluation.record import read_record
from ..evaluation.submissions import SUBMISSIONS
from ..evaluation.validate import Finding, check_archive
from ..messages import first_few
from .common import DATASET_FORM, Dataset, check_inputs_kept, check_output, failed, parse_dataset, say


def pack(
    dataset: Annotated[str, typer.Option(help=f"Benchmark, one of {', '.join(SUBMISSIONS)}: {DATASET_FORM}.")],
    results: Annotated[
        Path | None,
        typer.Option(
            help="Folder of results to pack: <sequence>.txt, or the GOT-10k toolkit's <sequence>/<sequence>_001.txt."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The .zip to write; default: <dataset>.zip.")] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            help="Existing .zip to check instead; without the benchmark's folder, only its names and formats are."
        ),
    ] = None,
) -> None:
    """Pack results of a benchmark's test sequences for its server, or check an existing archive.

    All faults are listed. If there is one, nothing is written and the exit status is 1.
    """
    chosen = parse_dataset(dataset, SUBMISSIONS)
    if (results is None) == (check is None):
        raise typer.BadParameter("give --results DIR to pack results, or --check FILE to check an archive; not both")
    if check is not None:
        _check(check, chosen)
    elif results is not None:
        out = out or Path(f"{chosen.name}.zip")
        check_output(out, (".zip",))
        check_inputs_kept({"--out": out}, {"--dataset": chosen.files(BENCHMARK_FILES)})
        _pack(results, chosen, out)


def _pack(results: Path, chosen: Dataset, out: Path) -> None:
    form = SUBMISSIONS[chosen.name]
    try:
        record = read_record(results)
        findings = write_archive(results, open_benchmark(chosen.name, chosen.root, split=form.split), out)
    except (OSError, ValueError) as error:
        raise failed(error) from error
    _print(findings)
    if any(finding.fault for finding in findings):
        raise failed(ValueError(f"nothing was written: {str(results)!r} is not what the server of {chosen.name} takes"))
    if form.times and record is not None and record.speed:
        say(f"Its times are no measurement of speed ({record.speed}).", "bold yellow")
    _conclude(out, chosen.name, findings)


def _check(archive: Path, chosen: Dataset) -> None:
    try:
        root = chosen.place
        split = SUBMISSIONS[chosen.name].split
        findings = check_archive(archive, chosen.name, open_benchmark(chosen.name, root, split=split) if root else None)
    except (OSError, ValueError) as error:
        raise failed(error) from error
    _print(findings)
    if any(finding.fault for finding in findings):
        raise typer.Exit(1)
    unchecked = f"; frames and first boxes were not checked: give --dataset {chosen.name}=FOLDER"
    _conclude(archive, chosen.name, findings, "" if root else unchecked)


def _conclude(archive: Path, dataset: str, findings: Sequence[Finding], more: str = "") -> None:
    count = len(findings)
    warnings = f", {count} warning{'s' * (count != 1)}" if count else ""
    say(f"{archive}: no fault{warnings}, for the server of {dataset}{more}")


def _print(findings: Sequence[Finding]) -> None:
    """Prints the first few findings of each kind, faults first."""
    for fault, word, style in ((True, "fault", "bold red"), (False, "warning", "bold yellow")):
        kinds: dict[str, list[str]] = {}
        for finding in findings:
            if finding.fault is fault:
                kinds.setdefault(finding.kind, []).append(finding.where)
        for kind, places in kinds.items():
            say(f"{word}: {kind} ({len(places)}): {first_few(places, '; ')}", style)
