"""Runs a tracker over the sequences of a benchmark that have no result yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..datasets.benchmark import Benchmark
from ..tracking.network import ModuleNetwork, PackedNetwork
from .job import Job
from .record import is_done
from .runner import Advanced, Event, Failed, Finished
from .workers import run_in_processes


class Plan(NamedTuple):
    """The sequences of a run."""

    left: dict[int, int]  # frames of each sequence to run, the longest first
    done: list[int]  # sequences that have a result
    failed: dict[str, str]  # reason by sequence, for those that cannot be read
    withheld: bool  # whether the ground truth of any sequence is kept by a server


@dataclasses.dataclass
class RunState:
    """Counts of a run so far."""

    failed: dict[str, str]  # reason by sequence
    finished: int = 0
    frames: int = 0


def plan(benchmark: Benchmark, folder: Path) -> Plan:
    """Finds out which sequences of a benchmark have results in a folder and which are left to run."""
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
    return Plan({index: left[index] for index in longest_first}, done, failed, withheld)


def run(
    job: Job,
    network: PackedNetwork | ModuleNetwork,
    work: Plan,
    workers: int,
    on_event: Callable[[RunState, Event], None],
) -> RunState:
    """Runs the sequences that are left.

    If it is interrupted, finished results stay, and the next run continues after them.

    Args:
        job: settings of the run.
        network: as loaded by the job, for this process; other processes load their own.
        work: the plan for the job's benchmark and folder.
        workers: number of processes; with one, this process does the work.
        on_event: called for every event with the state after it.

    Raises:
        OSError, ValueError, RuntimeError: an error that concerns every sequence.
    """
    names = job.benchmark.sequence_names
    state = RunState(dict(work.failed))

    def count(event: Event) -> None:
        if isinstance(event, Advanced):
            state.frames += event.frames
        elif isinstance(event, Finished):
            state.finished += 1
        elif isinstance(event, Failed):
            state.failed[names[event.sequence]] = event.reason
        on_event(state, event)

    if workers > 1:
        run_in_processes(job, list(work.left), workers, count)
    elif work.left:
        left = iter(work.left)
        job.runner(network).run(lambda: next(left, None), count)
    return state
