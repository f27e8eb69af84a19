"""`fermt eval`: runs a tracker on a benchmark and scores it, or scores existing results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fermt_kernels.files import atomic_write

from ..datasets import BENCHMARK_FILES, BENCHMARKS, Benchmark, open_benchmark
from ..evaluation import record
from ..evaluation.job import Job, Shares, describe, divide
from ..evaluation.plots import CURVES, SUFFIXES
from ..evaluation.plots import plot as draw
from ..evaluation.protocols import PROTOCOLS
from ..evaluation.report import attribute_table, notes, table
from ..evaluation.run import RunState, plan, run
from ..evaluation.runner import Event, Failed
from ..evaluation.scores import Report, evaluate
from ..locks import locked
from ..machine import headline, pick_device
from ..progress import ProgressDisplay
from .common import (
    DATASET_FORM,
    DTYPES,
    Backend,
    Device,
    Dtype,
    JsonOut,
    check_choice,
    check_inputs_kept,
    check_output,
    console,
    failed,
    interrupted,
    parse_dataset,
    print_wide,
    say,
)


def evaluate_tracker(
    dataset: Annotated[str, typer.Option(help=f"Benchmark, one of {', '.join(BENCHMARKS)}: {DATASET_FORM}.")],
    split: Annotated[str, typer.Option(help="Split of the benchmark; default: the usual one.")] = "",
    weights: Annotated[
        Path | None, typer.Option(help="Weights to run: written by fermt.save or `fermt convert`, or packed (.fermt).")
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of results to score instead, of any tracker. Repeatable."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Use only this sequence (repeatable), or those that a file names, one per line."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; default: results/<dataset>-<split>/<weights>.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help=f"Scoring protocol: auto (that of the literature for the set), {', '.join(PROTOCOLS)}.")
    ] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0: as many as fit the CPU, or one on a GPU.")] = 0,
    batch_size: Annotated[
        int, typer.Option(min=0, help="Sequences tracked in one batch by each process; 0: 1 on a CPU, 32 on a GPU.")
    ] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of each process; 0: one, or its share.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "",
    backend: Backend = "auto",
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Continue the run in --out, or delete its files and start again.")
    ] = True,
    attributes: Annotated[bool, typer.Option("--attributes", help="Also print scores by attribute.")] = False,
    json_out: JsonOut = None,
    plot: Annotated[Path | None, typer.Option(help=f"Plot a curve of all trackers: {', '.join(SUFFIXES)}.")] = None,
    curve: Annotated[str, typer.Option(help=f"Curve to plot: {', '.join(CURVES)}.")] = next(iter(CURVES)),
) -> None:
    """Run a tracker on a benchmark and print its scores, or score existing results.

    Example: fermt eval --dataset got10k=/data/GOT-10k --weights fermt.safetensors

    A run that was interrupted continues when the same command is given again. Ctrl-C, SIGTERM and SIGHUP keep the
    finished sequences (exit status 128 + the signal's number). A sequence that cannot be read is reported and left out
    (exit status 1).

    Recorded times are seconds of init and of each update, without reading images and without a warm-up, as in the
    GOT-10k toolkit. They measure speed only with --workers 1 --batch-size 1.
    """
    check_output(json_out, (".json",))
    check_output(plot, SUFFIXES)
    for option, value, allowed in (
        ("protocol", protocol, ("auto", *PROTOCOLS)),
        ("dtype", dtype, ("", *DTYPES)),
        ("curve", curve, CURVES),
    ):
        check_choice(option, value, allowed)
    chosen = parse_dataset(dataset, BENCHMARKS)
    if (weights is None) == (not results):
        raise typer.BadParameter("give --weights FILE to run a tracker, or --results DIR to score one; not both")
    chosen_names = _only(only or [])
    listed = chosen_names if isinstance(chosen_names, Path) else None
    records = {f"--results {folder}": folder / record.RECORD for folder in results or []}
    check_inputs_kept(
        {"--json": json_out, "--plot": plot, "--out": out, f"{record.RECORD} of --out": out and out / record.RECORD},
        {"--dataset": chosen.files(BENCHMARK_FILES), "--weights": weights, "--only": listed, **records},
    )
    try:
        device = pick_device(device, weights)
        root = chosen.root
        benchmark = open_benchmark(chosen.name, root, split=split or None, only=chosen_names)
        folders, failures, withheld = results or [], dict[str, str](), False
        if weights is not None:
            folder = out or Path("results") / f"{benchmark.name}-{benchmark.split}" / weights.stem
            shares = divide(device, workers, threads, batch_size, len(benchmark))
            job = Job(
                *(benchmark, folder, weights, backend, device, DTYPES.get(dtype)), *(shares.threads, shares.batch_size)
            )
            failures, withheld = _run(job, shares, resume)
            folders = [folder]
        if withheld:
            _print_how_to_submit(benchmark, root, folder)
        if withheld or len(failures) == len(benchmark):
            folders = []
        reports = [_report(folder, benchmark, protocol) for folder in folders]
        _print(reports, attributes)
        if json_out is not None:
            atomic_write(json_out, json.dumps({"reports": [report.to_dict() for report in reports]}, indent=1) + "\n")
        if plot is not None and reports:
            draw(reports, curve, plot)
    except KeyboardInterrupt as error:
        raise interrupted(error, "Interrupted: the same command continues after the finished sequences.") from error
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise failed(error) from error
    if failures:
        raise typer.Exit(1)


def _only(values: Sequence[str]) -> Sequence[str] | Path | None:
    """The sequences to restrict the run to: a file of names, names, or None for all."""
    return Path(values[0]) if len(values) == 1 and Path(values[0]).is_file() else values or None


def _run(job: Job, shares: Shares, resume: bool) -> tuple[dict[str, str], bool]:
    """Runs the sequences that have no result yet, showing progress, and prints a summary.

    Returns:
        The reason by sequence for those that failed, and whether a server keeps the ground truth of any.
    """
    benchmark, folder = job.benchmark, job.folder
    loaded = job.load()
    facts = describe(job, loaded, shares.workers)
    with locked(folder), ExitStack() as stack:
        stack.callback(record.tidy, folder)  # after a signal workers are ended at once
        if not resume:
            record.clear(folder)
        kept = record.open_record(folder, benchmark.sequence_names, facts, shares.speed_caveat)
        with console.status("reading the benchmark and existing results"):
            work = plan(benchmark, folder)
        frames, sequences, done = sum(work.left.values()), len(benchmark), len(work.done)
        say(f"{benchmark.title}: {sequences} sequences, {done} done before, {frames:,} frames to do")
        say(f"runs on {job.device}: {shares}; {facts['frame']} frame in {facts['dtype']}; results in {folder}")
        with ProgressDisplay(console, "tracking", frames, unit="frames") as display:

            def on_event(state: RunState, event: Event) -> None:
                display.update(state.frames, f"{done + state.finished}/{sequences} sequences")
                if isinstance(event, Failed):
                    display.say(f"{benchmark.sequence_names[event.sequence]}: {event.reason}", "bold red")

            failures = run(job, loaded.network, work, min(shares.workers, len(work.left)), on_event).failed
        _print_speed(folder, kept, benchmark, failures)
    if failures:
        say(f"{len(failures)} of {sequences} sequences have no result; the same command tries them again:", "bold red")
    for name, reason in sorted(failures.items()):
        say(f"  {name}: {reason}", "bold red")
    return failures, work.withheld


def _print_speed(folder: Path, kept: record.Record, benchmark: Benchmark, failures: Collection[str]) -> None:
    done = [name for name in benchmark.sequence_names if name not in failures]
    if kept.speed:
        say(f"speed: times are no measurement of it ({kept.speed}); --workers 1 --batch-size 1 measures")
    elif done:
        frames, tracking, reading = record.read_speed(folder, done)
        say(
            f"speed: {frames / tracking:.1f} frames/s in init and update, {frames / (tracking + reading):.1f} with "
            "reading images; one sequence at a time, frames over seconds, none left out as a warm-up; "
            f"{headline(kept.run['machine'])}"
        )


def _print_how_to_submit(benchmark: Benchmark, root: Path, folder: Path) -> None:
    say(f"{benchmark.title}: its server keeps the ground truth, so nothing can be scored here. To submit:")
    say(f"  fermt pack --dataset {benchmark.name}={root} --results {folder} --out {folder.name}.zip")


def _report(folder: Path, benchmark: Benchmark, protocol: str) -> Report:
    """The scores of a folder, without speed if its record says that times do not measure it."""
    report = evaluate(folder, benchmark, protocol=protocol)
    kept = record.read_record(folder)
    return dataclasses.replace(report, fps=None) if kept is not None and kept.speed else report


def _print(reports: Sequence[Report], attributes: bool) -> None:
    """Prints the table and the notes below it; a note that not all trackers share begins with the tracker's name."""
    if not reports:
        return
    for shown in (table(*reports), *([attribute_table(*reports)] if attributes else [])):
        print_wide(shown)
    output = Console(highlight=False, markup=False, soft_wrap=True)
    lines = [notes(report) for report in reports]
    shared = set(lines[0]).intersection(*lines[1:])
    for report, own in zip(reports, lines, strict=True):
        for line in own:
            if line not in shared:
                output.print(f"{report.tracker}: {line}")
    for line in lines[0]:
        if line in shared:
            output.print(line)
