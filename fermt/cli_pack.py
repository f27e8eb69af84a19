"""The commands `fermt pack ...`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from .cli_common import console, failed, output_path
from .data.readers.reader import told
from .evaluation.benchmarks import open_benchmark
from .evaluation.pack import pack as write_archive
from .evaluation.record import read_record
from .evaluation.submissions import SUBMISSIONS
from .evaluation.validate import Finding, check_archive
from .roots import VARIABLE, root_of

Results = Annotated[
    Path,
    typer.Option(help="Folder of results: <sequence>.txt, or the GOT-10k toolkit's <sequence>/<sequence>_001.txt."),
]
Root = Annotated[
    Path | None,
    typer.Option(help=f"Folder of the benchmark, whose frames the results must fit; {VARIABLE}'s if not given."),
]
Out = Annotated[Path, typer.Option(help="The .zip to write.")]
pack = typer.Typer(no_args_is_help=True, help="Archives for evaluation servers.")


@pack.command()
def got10k(results: Results, root: Root = None, out: Out = Path("got10k.zip")) -> None:
    """Pack results of GOT-10k's test sequences, with times, for its server. Nothing is written if a fault is found."""
    _pack("got10k", results, root, out)


@pack.command()
def trackingnet(results: Results, root: Root = None, out: Out = Path("trackingnet.zip")) -> None:
    """Pack results of TrackingNet's test sequences for its server. Nothing is written if a fault is found."""
    _pack("trackingnet", results, root, out)


@pack.command()
def check(
    archive: Annotated[Path, typer.Argument(help="The .zip, made by anything.")],
    dataset: Annotated[str, typer.Option(help=f"Whose server it is for: {', '.join(SUBMISSIONS)}.")],
    root: Annotated[
        Path | None, typer.Option(help="Folder of the benchmark; without it, frames and first boxes are not checked.")
    ] = None,
) -> None:
    """Name everything that is wrong with an archive. The exit status is 1 if any of it is a fault."""
    if dataset not in SUBMISSIONS:
        raise typer.BadParameter(f"dataset must be one of {', '.join(SUBMISSIONS)}; got {dataset!r}")
    try:
        benchmark = open_benchmark(dataset, root, split=SUBMISSIONS[dataset].split) if root else None
        findings = check_archive(archive, dataset, benchmark)
    except (OSError, ValueError) as error:
        raise failed(error) from error
    _tell(findings)
    if any(finding.fault for finding in findings):
        raise typer.Exit(1)
    part = "" if root else "; frames and first boxes were not checked, for want of --root"
    _conclude(archive, dataset, findings, part)


def _pack(dataset: str, results: Path, root: Path | None, out: Path) -> None:
    output_path(out, (".zip",))
    try:
        record = read_record(results)
        benchmark = open_benchmark(dataset, root_of(dataset, root), split=SUBMISSIONS[dataset].split)
        findings = write_archive(results, benchmark, out)
    except (OSError, ValueError) as error:
        raise failed(error) from error
    _tell(findings)
    if any(finding.fault for finding in findings):
        raise failed(ValueError(f"nothing was written: {str(results)!r} is not what the server of {dataset} takes"))
    if SUBMISSIONS[dataset].times and record is not None and record.speed:
        console.print(f"Its times are no measurement of speed ({record.speed}).", style="bold yellow", highlight=False)
    _conclude(out, dataset, findings, "")


def _conclude(archive: Path, dataset: str, findings: Sequence[Finding], more: str) -> None:
    count = len(findings)
    warnings = f", {count} warning{'s' * (count != 1)}" if count else ""
    text = f"{archive}: no fault{warnings}, for the server of {dataset}{more}"
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _tell(findings: Sequence[Finding]) -> None:
    """Faults first; the first few of each kind."""
    for fault, word, style in ((True, "fault", "bold red"), (False, "warning", "bold yellow")):
        kinds: dict[str, list[str]] = {}
        for finding in findings:
            if finding.fault is fault:
                kinds.setdefault(finding.kind, []).append(finding.where)
        for kind, places in kinds.items():
            text = f"{word}: {kind} ({len(places)}): {told(places, '; ')}"
            console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
