"""The command `fermt eval`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from .cli_common import DTYPES, INTERRUPTED, console, failed, output_path
from .evaluation import record
from .evaluation.benchmarks import BENCHMARKS, open_benchmark
from .evaluation.plots import CURVES, SUFFIXES
from .evaluation.plots import plot as draw
from .evaluation.protocols import PROTOCOLS
from .evaluation.report import attribute_table, notes, table
from .evaluation.scores import Report, evaluate
from .evaluation.sequences import Benchmark
from .files import write_aside
from .machine import headline
from .roots import VARIABLE, root_of


@dataclasses.dataclass(frozen=True)
class Asked:
    """How to run, as the command has it; 0 and "" are not asked for."""

    weights: Path
    out: Path
    workers: int
    side_by_side: int
    threads: int
    device: str
    dtype: str
    backend: str
    resume: bool


class Ran(NamedTuple):
    """What came of a run."""

    failed: dict[str, str]  # by sequence: why
    withheld: bool  # whether there is truth that is not at hand


def evaluation(
    dataset: Annotated[str, typer.Option(help=f"The benchmark: {', '.join(BENCHMARKS)}.")],
    root: Annotated[Path | None, typer.Option(help=f"Its folder; {VARIABLE}'s if not given.")] = None,
    split: Annotated[str, typer.Option(help="Its split; the usual one if not given.")] = "",
    weights: Annotated[
        Path | None, typer.Option(help="Run these weights first: by fermt.save or `fermt convert`, or packed (.fermt).")
    ] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="Score this folder of results instead, of any tracker. Repeatable.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="A sequence to keep to, repeatable; or a file with one a line.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; results/<dataset>-<split>/<weights> if not given.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help=f"Whose arithmetic: auto, what papers use for the set, or {', '.join(PROTOCOLS)}.")
    ] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: as many as fit the CPU, and one on a GPU.")] = 0,
    side_by_side: Annotated[
        int, typer.Option(min=0, help="Sequences that share each call of the network; 0: 1 on a CPU, 32 on a GPU.")
    ] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of each process; 0: one, or its share.")] = 0,
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1 ...")] = "cpu",
    dtype: Annotated[
        str, typer.Option(help=f"What is computed in: {', '.join(DTYPES)}; the weights' own if not given.")
    ] = "",
    backend: Annotated[
        str, typer.Option(help="Kernels: auto, or a name from fermt_kernels.backends(); reference is plain PyTorch.")
    ] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on with the run in --out, or delete its files and start.")
    ] = True,
    attributes: Annotated[bool, typer.Option("--attributes", help="Print scores by attribute, too.")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the scores to this file as JSON, too.")] = None,
    plot: Annotated[Path | None, typer.Option(help=f"Draw a curve of all trackers: {', '.join(SUFFIXES)}.")] = None,
    curve: Annotated[str, typer.Option(help=f"The curve to draw: {', '.join(CURVES)}.")] = next(iter(CURVES)),
) -> None:
    """Run a tracker over a benchmark and print its scores, or score results that are there.

    The same command again goes on where it was cut off. A sequence that cannot be read is named and left out; the exit
    status is then 1. Ctrl-C keeps the sequences that are done; 130.

    Times: seconds of init and of each update, reading images left out, no frame left out as a warm-up, as the GOT-10k
    toolkit has it. They measure speed with --workers 1 --side-by-side 1 alone.
    """
    output_path(json_out, (".json",))
    output_path(plot, SUFFIXES)
    _check(dataset, protocol, dtype, curve)
    if (weights is None) == (not results):
        raise typer.BadParameter("give --weights FILE to run a tracker, or --results DIR to score one; not both")
    try:
        root = root_of(dataset, root)
        benchmark = open_benchmark(dataset, root, split=split or None, only=_only(only or []))
        folders, ran = results or [], Ran({}, False)
        if weights is not None:
            folder = out or Path("results") / f"{benchmark.name}-{benchmark.split}" / weights.stem
            asked = Asked(weights, folder, workers, side_by_side, threads, device, dtype, backend, resume)
            ran, folders = _run(asked, benchmark), [folder]
        if ran.withheld:
            _say_how_to_submit(benchmark, root, folder)
        if ran.withheld or len(ran.failed) == len(benchmark):
            folders = []
        reports = [_report(folder, benchmark, protocol) for folder in folders]
        _print(reports, attributes)
        if json_out is not None:
            write_aside(json_out, json.dumps({"reports": [report.to_dict() for report in reports]}, indent=1) + "\n")
        if plot is not None and reports:
            draw(reports, curve, plot)
    except KeyboardInterrupt as error:
        console.print("Interrupted: the same command goes on after the sequences that are done.", style="bold yellow")
        raise typer.Exit(INTERRUPTED) from error
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise failed(error) from error
    if ran.failed:
        raise typer.Exit(1)


def _check(dataset: str, protocol: str, dtype: str, curve: str) -> None:
    choices = {
        "dataset": (dataset, tuple(BENCHMARKS)),
        "protocol": (protocol, ("auto", *PROTOCOLS)),
        "dtype": (dtype, ("", *DTYPES)),
        "curve": (curve, tuple(CURVES)),
    }
    for name, (value, known) in choices.items():
        if value not in known:
            raise typer.BadParameter(f"{name} must be one of {', '.join(filter(None, known))}; got {value!r}")


def _only(given: Sequence[str]) -> Sequence[str] | Path | None:
    """The sequences to keep to: a file of them, or their names, or None for all."""
    return Path(given[0]) if len(given) == 1 and Path(given[0]).is_file() else given or None


def _run(asked: Asked, benchmark: Benchmark) -> Ran:
    """Runs what is left, and says what is done, how, and what came of it."""
    from .evaluation.display import Display
    from .evaluation.job import Job, describe, shares
    from .evaluation.lanes import Event, Failed
    from .evaluation.run import Outcome, run, todo

    parts = shares(asked.device, asked.workers, asked.threads, asked.side_by_side, len(benchmark))
    job = Job(
        *(benchmark, asked.out, asked.weights, asked.backend, asked.device, DTYPES.get(asked.dtype)),
        *(parts.threads, parts.abreast),
    )
    loaded = job.load()
    facts = describe(job, loaded, parts.workers)
    with record.locked(asked.out):
        if not asked.resume:
            record.clear(asked.out)
        kept = record.open_record(asked.out, benchmark.sequence_names, facts, parts.why_no_speed)
        with console.status("reading what there is to do"):
            work = todo(benchmark, asked.out)
        frames = sum(work.left.values())
        _say(f"{benchmark.title}: {len(benchmark)} sequences, {len(work.done)} done before, {frames:,} frames to do")
        _say(f"runs on {asked.device}: {parts}; {facts['frame']} frame in {facts['dtype']}; results in {asked.out}")
        with Display(console, frames, len(benchmark), len(work.done)) as display:

            def heard(outcome: Outcome, event: Event) -> None:
                display.show(outcome.frames, outcome.finished)
                if isinstance(event, Failed):
                    display.say(f"{benchmark.sequence_names[event.sequence]}: {event.reason}", "bold red")

            outcome = run(job, loaded.network, work, min(parts.workers, len(work.left)), heard)
        _say_speed(asked.out, kept, benchmark, outcome.failed)
    for line in _failures(outcome.failed, len(benchmark)):
        _say(line, "bold red")
    return Ran(outcome.failed, work.withheld)


def _failures(failed: dict[str, str], sequences: int) -> list[str]:
    if not failed:
        return []
    reasons = [f"  {name}: {reason}" for name, reason in sorted(failed.items())]
    return [f"{len(failed)} of {sequences} sequences have no result; the same command tries them again:", *reasons]


def _say_speed(folder: Path, kept: record.Record, benchmark: Benchmark, failed: Collection[str]) -> None:
    done = [name for name in benchmark.sequence_names if name not in failed]
    if kept.speed:
        _say(f"speed: times are no measurement of it ({kept.speed}); --workers 1 --side-by-side 1 measures")
    elif done:
        frames, tracking, reading = record.read_speed(folder, done)
        _say(
            f"speed: {frames / tracking:.1f} frames/s in init and update, {frames / (tracking + reading):.1f} with "
            "reading images; one sequence at a time, frames over seconds, none left out as a warm-up; "
            f"{headline(kept.run['machine'])}"
        )


def _say_how_to_submit(benchmark: Benchmark, root: Path, folder: Path) -> None:
    _say(f"{benchmark.title}: the truth is kept by its server, so there is nothing to score here. To submit:")
    _say(f"  fermt pack {benchmark.name} --results {folder} --root {root} --out {folder.name}.zip")


def _report(folder: Path, benchmark: Benchmark, protocol: str) -> Report:
    """The scores of a folder; no speed where its record says that times are no measurement of it."""
    report = evaluate(folder, benchmark, protocol=protocol)
    kept = record.read_record(folder)
    return dataclasses.replace(report, fps=None) if kept is not None and kept.speed else report


def _print(reports: Sequence[Report], attributes: bool) -> None:
    """A table, and below it what its numbers rest on; what differs between trackers has the tracker before it."""
    if not reports:
        return
    printed = Console()
    for shown in (table(*reports), *([attribute_table(*reports)] if attributes else [])):
        needed = printed.measure(shown, options=printed.options.update(max_width=1000)).maximum
        Console(width=max(printed.width, needed)).print(shown)  # wrapped rather than cut where that is too wide
    lines = [notes(report) for report in reports]
    shared = set(lines[0]).intersection(*lines[1:])
    for report, own in zip(reports, lines, strict=True):
        for line in own:
            if line not in shared:
                printed.print(f"{report.tracker}: {line}", highlight=False, markup=False, soft_wrap=True)
    for line in lines[0]:
        if line in shared:
            printed.print(line, highlight=False, markup=False, soft_wrap=True)


def _say(text: str, style: str | None = None) -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
