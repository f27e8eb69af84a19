"""Tracks sequences in several processes, each with a model of its own."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import RawArray
from typing import Any

from ..signals import inherited_as_ignored
from ..workers import end_with_parent
from .job import Job
from .runner import Advanced, Event, Failed, Finished, SequenceRunner

POLL_INTERVAL = 0.2  # seconds between two looks at what the workers have done
WAITING, RUNNING, FINISHED, FAILED = range(4)  # states of a sequence
CRASHED = "the process that tracked it ended without an error: killed, or out of memory"


class Board:
    """The state and the number of tracked frames of every sequence, in memory shared with the workers.

    One process at a time writes the entries of a sequence, so no lock is needed, and none is left locked by a crash.
    """

    def __init__(self, sequences: int) -> None:
        self.states, self.frames = RawArray("b", sequences), RawArray("q", sequences)

    def in_state(self, state: int) -> list[int]:
        """Lists the sequences in a state."""
        return [index for index, value in enumerate(self.states) if value == state]


def run_in_processes(job: Job, indices: Sequence[int], workers: int, on_event: Callable[[Event], None]) -> None:
    """Runs the sequences `indices` in `workers` processes.

    If a process crashes, the sequences that were being tracked are tried again one by one, each in a process of its
    own, and those that crash it again fail; then the others continue.

    Raises:
        RuntimeError: a worker met an error that concerns every sequence; results written so far stay.
    """
    board = Board(len(job.benchmark))
    pool = _Pool(job, board, on_event)
    left = list(indices)
    while left:
        # With one sequence at a time a worker gets the next when it is done; a batch is refilled from the worker's own.
        tasks = [(i,) for i in left] if job.batch_size == 1 else [tuple(left[w::workers]) for w in range(workers)]
        if not pool.run([task for task in tasks if task], workers):
            return
        suspects = board.in_state(RUNNING)
        if not suspects:
            raise RuntimeError(f"the worker processes end before they track a sequence; {len(left)} sequences are left")
        for index in suspects:
            if pool.run([(index,)], 1):
                board.states[index] = FAILED
                pool.announce(Failed(index, CRASHED))
        left = [index for index in left if index not in pool.announced]


class _Pool:
    """Runs tasks in pools of processes and turns what the board shows into events."""

    def __init__(self, job: Job, board: Board, on_event: Callable[[Event], None]) -> None:
        self._job, self._board, self._on_event = job, board, on_event
        self._frames = 0
        self.announced: set[int] = set()  # sequences that have finished or failed

    def run(self, tasks: Sequence[tuple[int, ...]], workers: int) -> bool:
        """Runs tasks, which are tuples of sequences, in a new pool; returns whether a process crashed."""
        for index in (index for task in tasks for index in task):
            self._board.states[index] = WAITING
        context = multiprocessing.get_context("spawn")
        others, crashed = set(multiprocessing.active_children()), False
        shared = (self._job, self._board.states, self._board.frames)
        with ProcessPoolExecutor(min(workers, len(tasks)), context, _initialize, shared) as executor:
            try:
                with inherited_as_ignored():  # inherited by the workers, which start now: this process ends them
                    futures: set[Future[dict[int, str]]] = {executor.submit(_track, task) for task in tasks}
                while futures:
                    done, futures = wait(futures, POLL_INTERVAL)
                    crashed |= self._look(done)
            except BaseException:
                for child in set(multiprocessing.active_children()) - others:
                    child.terminate()
                raise
        return crashed

    def announce(self, event: Finished | Failed) -> None:
        """Passes on the event that ends a sequence."""
        self.announced.add(event.sequence)
        self._on_event(event)

    def _look(self, done: set[Future[dict[int, str]]]) -> bool:
        """Announces what has happened since the last look; returns whether a process crashed."""
        frames = sum(self._board.frames)
        if frames != self._frames:
            self._on_event(Advanced(frames - self._frames))
            self._frames = frames
        for index in self._board.in_state(FINISHED):
            if index not in self.announced:
                self.announce(Finished(index))
        crashed = False
        for future in done:
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                crashed = True
            elif error is not None:
                raise RuntimeError(str(error) or type(error).__name__) from error
            else:
                for index, reason in future.result().items():
                    self.announce(Failed(index, reason))
        return crashed


_shared: tuple[Job, Any, Any]  # in a worker: the job, the states and the frames of `Board`


def _initialize(job: Job, states: Any, frames: Any) -> None:
    """Prepares a worker process, which ends when its parent does."""
    global _shared
    _shared = job, states, frames
    end_with_parent()


@functools.cache
def _runner() -> SequenceRunner:
    """The runner of this worker, whose model is loaded once."""
    job = _shared[0]
    return job.runner(job.load().network)


def _track(indices: tuple[int, ...]) -> dict[int, str]:
    """Worker entry point: tracks sequences and returns the reasons of those that failed."""
    _, states, frames = _shared
    left, failed = iter(indices), dict[int, str]()
    runner = _runner()
    counter = indices[0]  # the frames of all sequences of a task are counted at its first

    def next_sequence() -> int | None:
        index = next(left, None)
        if index is not None:
            states[index] = RUNNING
        return index

    def on_event(event: Event) -> None:
        if isinstance(event, Advanced):
            frames[counter] += event.frames
        elif isinstance(event, Finished):
            states[event.sequence] = FINISHED
        else:
            states[event.sequence] = FAILED
            failed[event.sequence] = event.reason

    runner.run(next_sequence, on_event)
    return failed
