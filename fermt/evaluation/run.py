"""A tracker through all sequences of a benchmark: what is left to do, who does it, and what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..tracking.network import ModuleNetwork, PackedNetwork
from .job import Job
from .lanes import Advanced, Event, Failed, Finished
from .record import is_done
from .sequences import Benchmark
from .workers import run_in_processes


class Todo(NamedTuple):
    """The sequences of a run."""

    left: dict[int, int]  # to be run, the longest first: frames of each
    done: list[int]  # whose results are there
    failed: dict[str, str]  # those that cannot be read: why
    withheld: bool  # whether the truth of any is


@dataclasses.dataclass
class Outcome:
    """What came of a run so far."""

    failed: dict[str, str]  # by sequence: why
    finished: int = 0
    frames: int = 0


def todo(benchmark: Benchmark, folder: Path) -> Todo:
    """What a folder has, and what it lacks, of a benchmark's sequences."""
    left: dict[int, int] = {}
    done: list[int] = []
    failed: dict[str, str] = {}
    withheld = False
    for index, name in enumerate(benchmark.sequence_names):
        try:
            sequence = benchmark[index]
            count = len(sequence.frames)
        except (OSError, ValueError) as error:
            failed[name] = str(error)
            continue
        withheld |= sequence.withheld
        if is_done(folder, name, count):
            done.append(index)
        else:
            left[index] = count
    longest_first = sorted(left, key=lambda index: -left[index])
    return Todo({index: left[index] for index in longest_first}, done, failed, withheld)


def run(
    job: Job, network: PackedNetwork | ModuleNetwork, work: Todo, workers: int, tell: Callable[[Outcome, Event], None]
) -> Outcome:
    """Runs what is left; `tell` learns of everything that happens, with what came of it so far.

    Interrupted, results that are there stay, and the next run goes on after them.

    Args:
        job: what to run.
        network: as the job loads it; other processes load their own.
        work: as `todo` has it for the job's benchmark and folder.
        workers: processes; one is this process.

    Raises:
        OSError, ValueError, RuntimeError: what no sequence is to blame for.
    """
    names = job.benchmark.sequence_names
    outcome = Outcome(dict(work.failed))

    def heard(event: Event) -> None:
        if isinstance(event, Advanced):
            outcome.frames += event.frames
        elif isinstance(event, Finished):
            outcome.finished += 1
        elif isinstance(event, Failed):
            outcome.failed[names[event.sequence]] = event.reason
        tell(outcome, event)

    if workers > 1:
        run_in_processes(job, work.left, workers, heard)
    elif work.left:
        left = iter(work.left)
        job.lanes(network).run(lambda: next(left, None), heard)
    return outcome
