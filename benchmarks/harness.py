"""One way of measuring: the calls interleaved in one run, so that whatever the machine does hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from .progress import Progress

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
    cases: Mapping[str, Case],
    *,
    seconds: float,
    repeats: int = 3,
    least_rounds: int = 5,
    quick: bool = False,
    name: str = "",
    progress: Progress | None = None,
) -> dict[str, Timing]:
    """Gives the cases turns, in rotating order, until about `seconds` a case have passed.

    A turn is a short pause, in which the worker threads that the last case left spinning go to sleep, one call that is
    not timed, and `repeats` that are. The order rotates, so that no case always follows the same neighbour. `progress`,
    if given, is told the medians under `name`, as one step. `quick` is for a glance: two rounds suffice, of one timed
    call each.
    """
    if quick:
        repeats, least_rounds = 1, 2
    names = list(cases)
    for each in names:
        _timed(cases[each])
    samples: dict[str, list[float]] = {each: [] for each in names}
    budget, rounds = seconds * len(names), 0
    began = time.perf_counter()
    while (spent := time.perf_counter() - began) < budget or rounds < least_rounds:
        if progress:
            progress.now(f"{name}: timed for {spent:.0f} s, {rounds} rounds")
        shift = rounds % len(names)
        rounds += 1
        for each in names[shift:] + names[:shift]:
            time.sleep(PAUSE)
            _timed(cases[each])
            samples[each] += [_timed(cases[each]) for _ in range(repeats)]
    timings = {each: _summary(values) for each, values in samples.items()}
    if progress:
        progress.step(f"{name}: {', '.join(f'{each} {t.median * 1e3:.4g} ms' for each, t in timings.items())}")
    return timings


def _timed(case: Case) -> float:
    if case.prepare:
        case.prepare()
    start = time.perf_counter()
    case.run()
    return time.perf_counter() - start


def _summary(samples: list[float]) -> Timing:
    fifths = statistics.quantiles(samples, n=5, method="inclusive")
    return Timing(statistics.median(samples), fifths[0], fifths[3])
