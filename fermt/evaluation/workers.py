"""Several processes that take sequences as they have time for them."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from .job import Job
from .lanes import Advanced, Event, Failed, Finished, Tell

EVERY = 0.2  # seconds between two words of a worker: after one it knows, too, whether anybody listens


class Wanted(NamedTuple):
    """A worker has time for another sequence."""


class Broken(NamedTuple):
    """A worker cannot go on, and nor can any other."""

    reason: str


class Worker(NamedTuple):
    process: BaseProcess
    pipe: Connection
    at_hand: set[int]  # sequences that it was given, and has not spoken of since


def run_in_processes(job: Job, indices: Iterable[int], count: int, tell: Tell) -> None:
    """Runs sequences in `count` processes, each with a model of its own; `tell` learns of everything that happens.

    A process that ends before its time fails the sequences that it had; the others go on.

    Raises:
        RuntimeError: a worker met an error that is not a sequence's, or none is left; results that are there stay.
    """
    left = deque(indices)
    context = multiprocessing.get_context("spawn")
    workers: list[Worker] = []
    try:
        with _interrupts_ignored():  # by those that start, for the whole of their lives: this process ends them
            for number in range(count):
                here, there = context.Pipe()
                process = context.Process(target=_work, args=(job, there), name=f"fermt-eval-{number}", daemon=True)
                process.start()
                there.close()
                workers.append(Worker(process, here, set()))
        while workers:
            ready = wait([worker.pipe for worker in workers])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                if not _answered(worker, left, tell):
                    workers.remove(worker)
        if left:
            raise RuntimeError(f"all {count} worker processes ended, and {len(left)} sequences are left")
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()


def _answered(worker: Worker, left: deque[int], tell: Tell) -> bool:
    """Takes one word of a worker; False if it has ended."""
    try:
        word = worker.pipe.recv()
        if isinstance(word, Wanted):
            index = left.popleft() if left else None
            worker.at_hand.update(() if index is None else (index,))
            worker.pipe.send(index)
            return True
    except (EOFError, OSError):
        worker.process.join()
        for index in sorted(worker.at_hand):
            tell(Failed(index, f"its process ended with status {worker.process.exitcode}"))
        return False
    if isinstance(word, Broken):
        raise RuntimeError(word.reason)
    if isinstance(word, Finished | Failed):
        worker.at_hand.discard(word.sequence)
    tell(word)
    return True


def _work(job: Job, pipe: Connection) -> None:
    """A worker's life."""
    try:
        lanes = job.lanes(job.load().network)
        lanes.run(lambda: _asked(pipe), _spoken(pipe))
    except (BrokenPipeError, EOFError, ConnectionResetError):
        return  # nobody listens any more
    except (OSError, ValueError, RuntimeError) as error:
        with suppress(OSError):
            pipe.send(Broken(str(error) or type(error).__name__))


def _asked(pipe: Connection) -> int | None:
    pipe.send(Wanted())
    index: int | None = pipe.recv()
    return index


def _spoken(pipe: Connection) -> Tell:
    """Tells the pipe of everything, of frames now and then."""
    frames, last = 0, time.monotonic()

    def tell(event: Event) -> None:
        nonlocal frames, last
        if isinstance(event, Advanced):
            frames += event.frames
            if time.monotonic() - last < EVERY:
                return
        pipe.send(Advanced(frames))
        frames, last = 0, time.monotonic()
        if not isinstance(event, Advanced):
            pipe.send(event)

    return tell


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
