"""The harness of every benchmark: interleaved timing by any clock, progress, facts about the machine, and results."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table

import fermt_kernels as fk
from fermt.cli.common import help_text
from fermt.machine import cache_text, caches, cores, cpu_name
from fermt.progress import ProgressDisplay, duration
from fermt_kernels.cpp import library

ROOT = Path(__file__).parents[1]
CLIP, TARGET = ROOT / "examples" / "basketball.mp4", (372.0, 108.0, 125.0, 240.0)  # a video, its first frame's box
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PAUSE = 0.005  # seconds
LINE_INTERVAL = 10.0  # seconds between two lines of progress within a long step, or for many short ones
Item = TypeVar("Item")

# Options that several commands have.
Out = Annotated[Path | None, typer.Option(help="Append a JSON line per measurement to this file.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads for all runners; 0: PyTorch's default.")]


def run_command(main: Callable[..., None]) -> None:
    """Runs a benchmark's `main` as a command, with its docstring as the help."""
    app = typer.Typer(add_completion=False)
    app.command(help=help_text(main))(main)
    app()


class Case(NamedTuple):
    """Something to time. `prepare`, if given, runs before each timed call and is not timed."""

    run: Callable[[], object]
    prepare: Callable[[], object] | None = None


Sample = Callable[[], float]  # makes one measurement: the seconds of a call
Clock = Callable[[Case], Sample]


def wall_clock(case: Case) -> Sample:
    """The CPU's clock: the time from a call to its return."""

    def sample() -> float:
        if case.prepare:
            case.prepare()
        start = time.perf_counter()
        case.run()
        return time.perf_counter() - start

    return sample


class Timing(NamedTuple):
    """Seconds of one call: the median, and the 20th and 80th percentiles."""

    median: float
    p20: float
    p80: float

    def cells(self, digits: int = 2) -> list[str]:
        """Median and percentiles in milliseconds, for a table."""
        return [f"{self.median * 1e3:.{digits}f}", f"{self.p20 * 1e3:.{digits}f}-{self.p80 * 1e3:.{digits}f}"]


class Timings(dict[str, Timing]):
    """The timing of each case by name, from its samples of each round."""

    def __init__(self, rounds: Mapping[str, Sequence[Sequence[float]]]) -> None:
        super().__init__({name: _summary([s for samples in each for s in samples]) for name, each in rounds.items()})
        self._rounds = {name: [statistics.median(samples) for samples in each] for name, each in rounds.items()}

    def ratio(self, name: str, base: str) -> float:
        """How many times as long as `base` a call of `name` takes: the median of the ratios within each round."""
        return statistics.median(a / b for a, b in zip(self._rounds[name], self._rounds[base], strict=True))


def _summary(samples: list[float]) -> Timing:
    if len(samples) == 1:
        samples *= 2
    fifths = statistics.quantiles(samples, n=5, method="inclusive")
    return Timing(statistics.median(samples), fifths[0], fifths[3])


def interleave(cases: Mapping[str, Case], *, quick: bool = False, **turns: Any) -> Timings:
    """Times cases on the CPU in turns, as `take_turns` does; with `quick` in two rounds, of one sample each."""
    turns |= {"repeats": 1, "least_rounds": 2} if quick else {}
    return take_turns({name: wall_clock(case) for name, case in cases.items()}, **turns)


def take_turns(
    samples: Mapping[str, Sample],
    *,
    seconds: float,
    repeats: int = 3,
    least_rounds: int = 5,
    name: str = "",
    progress: ProgressDisplay | None = None,
) -> Timings:
    """Takes samples in turns, in rotating order, until about `seconds` a case have passed.

    A turn is a short pause, in which the worker threads that the last case left spinning go to sleep, one sample that
    does not count, and `repeats` that do. The order rotates, so that no case always follows the same neighbor.
    Whatever the machine does hits all cases alike, and ratios are taken within a round.

    Args:
        samples: what takes a sample of each case, made by a clock.
        seconds: time for each case; 0 leaves it at `least_rounds`.
        repeats: samples of a case in a round.
        least_rounds: rounds, however long they take.
        name: what `progress` calls these cases.
        progress: shows the medians, as one step.
    """
    names = list(samples)
    for each in names:
        samples[each]()
    rounds: dict[str, list[list[float]]] = {each: [] for each in names}
    budget, count = seconds * len(names), 0
    began = time.perf_counter()
    while (spent := time.perf_counter() - began) < budget or count < least_rounds:
        if progress:
            progress.note(f"{name}: timed for {spent:.0f} s, {count} rounds")
        shift = count % len(names)
        count += 1
        for each in names[shift:] + names[:shift]:
            time.sleep(PAUSE)
            samples[each]()
            rounds[each].append([samples[each]() for _ in range(repeats)])
    timings = Timings(rounds)
    if progress:
        progress.step(f"{name}: {', '.join(f'{each} {t.median * 1e3:.4g} ms' for each, t in timings.items())}")
    return timings


def start_progress(what: str, count: int, seconds: float, unit: str = "steps") -> ProgressDisplay:
    """Prints to standard error what a run consists of and how long it takes; returns its progress display.

    Lines go to standard error, so that tables and JSON have standard output to themselves. There is no bar: the thread
    that draws it would take time from what is measured.

    Args:
        what: what is measured.
        count: steps of the run.
        seconds: how long such a run takes on two cores with AVX2, as measured once; later lines go by the steps done.
        unit: name of the steps in the plural.
    """
    display = ProgressDisplay(Console(stderr=True), "", count, unit=unit, bar=False, every=LINE_INTERVAL)
    display.say(f"{what}: {count} {unit}, about {duration(seconds)} on two cores with AVX2")
    return display


def counted(items: Iterable[Item], what: str, unit: str, total: int, seconds: float) -> Iterator[Item]:
    """Yields the items; prints how many are done every `LINE_INTERVAL` seconds and at the end."""
    display = start_progress(what, total, seconds, unit)
    for done, item in enumerate(items, 1):
        yield item
        if done == total:
            display.report(done, "all done")
        else:
            display.update(done)


def in_process(module: str, *arguments: str, **variables: str) -> str:
    """Runs a module of this package in a separate process with these environment variables; returns what it prints.

    Raises:
        RuntimeError: the process failed; the message is what it printed.
    """
    command = [sys.executable, "-m", module, *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | variables)
    if finished.returncode:
        given = " ".join((*(f"{name}={value}" for name, value in variables.items()), *command))
        raise RuntimeError(f"{given} failed: {finished.stderr}")
    return finished.stdout


def commit() -> str | None:
    """The commit of this checkout, with "+" if files differ from it; None outside of a checkout."""
    git = ("git", "-C", str(ROOT))
    try:
        head, changes = (
            subprocess.run((*git, *what), capture_output=True, text=True, check=True).stdout.strip()
            for what in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changes)


def facts() -> dict[str, Any]:
    """The facts that are recorded with each number: commit, date, machine and versions."""
    return {
        "commit": commit(),
        "date": date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "caches": caches(),
        "isa": library.load().isa if library.unavailable_reason() is None else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fermt_kernels": fk.__version__,
    }


def headline(values: dict[str, Any]) -> str:
    """The facts in one line."""
    isa, sizes = values["isa"] or "no compiled library", cache_text(values["caches"])
    return (
        f"{values['cpu']}, {values['cores']} cores, {values['threads']} threads, ISA {isa}{sizes and ', ' + sizes}; "
        f"torch {values['torch']}, Python {values['python']}, {values['date']}"
    )


def append(out: Path | None, lines: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Appends lines, each joined with `about`, to a file of JSON lines; does nothing without a file."""
    if out is not None:
        with out.open("a") as file:
            file.writelines(json.dumps({**about, **line}) + "\n" for line in lines)


def table(title: str, headings: Iterable[str], rows: Iterable[Sequence[str]] = (), left: int = 1) -> Table:
    """A table for a console: the first `left` columns aligned left, the others right."""
    made = Table(title=title, box=box.SIMPLE, padding=(0, 0), pad_edge=False)
    for i, heading in enumerate(headings):
        made.add_column(heading, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def markdown(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    headings = tuple(headings)
    lines = (headings, ("---",) * len(headings), *rows)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def names_among(option: str, text: str, allowed: Iterable[str]) -> list[str]:
    """Splits names with commas between them; typer.BadParameter if one is not allowed, or there is none."""
    names, allowed = [name.strip() for name in text.split(",") if name.strip()], list(allowed)
    for name in names or [text]:
        if name not in allowed:
            raise typer.BadParameter(f"{option} takes some of {', '.join(allowed)}, with commas between; got {name!r}")
    return names
