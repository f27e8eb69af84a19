"""One way of measuring: the calls interleaved in one run, so that whatever the machine does hits all of them alike."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress

PAUSE = 0.005  # seconds


class Case(NamedTuple):
    """Something to time. `prepare`, if given, runs before each timed call and is not timed."""

    run: Callable[[], object]
    prepare: Callable[[], object] | None = None


class Timing(NamedTuple):
    """Seconds of one call: the median, and the 20th and 80th percentiles."""

    median: float
    p20: float
    p80: float

    def per_second(self) -> float:
        return 1.0 / self.median


def interleave(
    cases: Mapping[str, Case], *, seconds: float, repeats: int = 3, least_rounds: int = 5
) -> dict[str, Timing]:
    """Gives the cases turns, in rotating order, until about `seconds` a case have passed.

    A turn is a short pause, in which the worker threads that the last case left spinning go to sleep, one call that is
    not timed, and `repeats` that are. The order rotates, so that no case always follows the same neighbour.
    """
    names = list(cases)
    for name in names:
        _timed(cases[name])
    samples: dict[str, list[float]] = {name: [] for name in names}
    budget, rounds = seconds * len(names), 0
    began = time.perf_counter()
    with Progress(transient=True, disable=not sys.stderr.isatty(), console=Console(stderr=True)) as progress:
        task = progress.add_task("measuring", total=budget)
        while (spent := time.perf_counter() - began) < budget or rounds < least_rounds:
            progress.update(task, completed=min(spent, budget))
            shift = rounds % len(names)
            rounds += 1
            for name in names[shift:] + names[:shift]:
                time.sleep(PAUSE)
                _timed(cases[name])
                samples[name] += [_timed(cases[name]) for _ in range(repeats)]
    return {name: _summary(values) for name, values in samples.items()}


def _timed(case: Case) -> float:
    if case.prepare:
        case.prepare()
    start = time.perf_counter()
    case.run()
    return time.perf_counter() - start


def _summary(samples: list[float]) -> Timing:
    fifths = statistics.quantiles(samples, n=5, method="inclusive")
    return Timing(statistics.median(samples), fifths[0], fifths[3])
