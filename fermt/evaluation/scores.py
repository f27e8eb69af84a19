"""Scores of a tracker on a benchmark, computed from a folder of results by a protocol."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..datasets.benchmark import Benchmark, TestSequence
from .protocols import Protocol, find_protocol
from .results import Result, ResultError, read_result
from .rules import FrameKind, RefusedError

INTERVAL = (2.5, 97.5)  # percentiles
INVALID = (FrameKind.ABSENT, FrameKind.INVALID_TRUTH, FrameKind.COVERED)
# Servers that keep the ground truth of a benchmark.
SERVERS = {
    "got10k": "http://got-10k.aitestunion.com",
    "trackingnet": "https://eval.ai/web/challenges/challenge-page/1805",
}


class Score(NamedTuple):
    """A score in the unit of the protocol, with its 95 % interval over sequences, if there is one."""

    value: float  # NaN if no frame is counted
    low: float | None
    high: float | None


class Curve(NamedTuple):
    """A curve from which scores are computed."""

    thresholds: np.ndarray  # (T,)
    values: np.ndarray  # (T,) in the unit of the protocol


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """The scores of a tracker and how they were computed; `unit` corresponds to 100 %."""

    tracker: str
    benchmark: str  # its title
    protocol: str
    toolkit: str  # the toolkit whose rules the protocol has, in words
    policy: list[str]  # the rules in words
    unit: float  # 1 or 100
    digits: int  # decimals that the toolkit prints
    sequences: list[str]  # scored sequences, in the order of the benchmark
    missing: list[str]  # sequences without a result
    failed: dict[str, str]  # reason by sequence whose result or ground truth cannot be read or is refused
    repetitions: int  # largest number for a sequence
    frames: int  # counted frames of one repetition
    invalid: int  # frames of scored sequences that are not scored by their boxes
    resamples: int  # for the intervals
    scores: dict[str, Score]
    curves: dict[str, Curve]
    per_sequence: dict[str, dict[str, float]]
    attributes: dict[str, dict[str, float]]
    attribute_sequences: dict[str, int]  # number of scored sequences with an attribute
    fps: float | None  # mean of 1 / seconds over frames with positive times; None without times

    @property
    def missing_scored(self) -> bool:
        """Whether sequences without a result are scored."""
        return not set(self.missing).isdisjoint(self.sequences)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields in JSON's types; NaN and infinity become None."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Score | Curve):
        return _plain(value._asdict())
    if isinstance(value, list | np.ndarray):
        return [_plain(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def evaluate(
    results_folder: Path,
    benchmark: Benchmark,
    *,
    protocol: str = "auto",
    bootstrap: int = 1000,
    seed: int = 0,
    tracker: str | None = None,
) -> Report:
    """Scores the results in a folder, whose layout `read_result` defines.

    Sequences without a result are left out of the scores and listed in the report, unless the protocol counts them; so
    are sequences whose result or ground truth cannot be read or is refused by the protocol.

    Args:
        protocol: a name of `PROTOCOLS`, or "auto": that of the literature for this benchmark.
        bootstrap: number of resamples of the sequences for 95 % intervals; 0 for no intervals.
        seed: random seed of the resamples.
        tracker: name in the report; default: that of the folder.

    Raises:
        FileNotFoundError: no such folder, or it has no result of any sequence.
        ValueError: an unknown protocol, withheld ground truth, or no result that can be scored.
    """
    if bootstrap < 0:
        raise ValueError(f"bootstrap: expected a number of resamples, 0 or more, got {bootstrap}")
    rules = find_protocol(protocol, benchmark.name)
    folder = Path(results_folder).expanduser()
    for i in range(len(benchmark)):
        if not isinstance(first := _sequence(benchmark, i), str):
            _with_truth(benchmark, first)
            break
    results, missing, failed = _read(folder, benchmark)
    tallies = _count(rules, benchmark, results, missing, failed)
    if not tallies:
        first = next(iter(failed))
        raise ValueError(f"none of {len(failed)} results in {str(folder)!r} can be scored; {first}: {failed[first]}")
    table = _Table(rules, tallies)
    each = table.scores(np.eye(len(tallies)))
    attributes = {name: table.having(name) for name in sorted(frozenset().union(*(t.attributes for t in tallies)))}
    seconds = np.concatenate([tally.seconds for tally in tallies])
    return Report(
        tracker=tracker if tracker is not None else folder.resolve().name,
        benchmark=benchmark.title,
        protocol=rules.name,
        toolkit=rules.toolkit,
        policy=rules.policy(),
        unit=rules.unit,
        digits=rules.digits,
        sequences=[name for name in benchmark.sequence_names if name in table.rows],
        missing=missing,
        failed=failed,
        repetitions=max(tally.repetitions for tally in tallies),
        frames=sum(tally.frames for tally in tallies),
        invalid=sum(tally.invalid for tally in tallies),
        resamples=bootstrap if len(tallies) > 1 else 0,
        scores=_intervals(table, bootstrap, seed),
        curves=table.curves(),
        per_sequence={
            name: {score: float(values[table.rows[name]]) for score, values in each.items()}
            for name in benchmark.sequence_names
            if name in table.rows
        },
        attributes={
            name: {score: float(value[0]) for score, value in table.scores(mask[None]).items()}
            for name, mask in attributes.items()
        },
        attribute_sequences={name: int(mask.sum()) for name, mask in attributes.items()},
        fps=float(np.mean(1 / seconds)) if len(seconds) else None,
    )


def _sequence(benchmark: Benchmark, i: int) -> TestSequence | str:
    """Reads a sequence; returns the reason if it cannot be read."""
    try:
        return benchmark[i]
    except (OSError, ValueError) as error:
        return str(error)


def _with_truth(benchmark: Benchmark, sequence: TestSequence) -> TestSequence:
    """Returns the sequence; ValueError if its ground truth is withheld."""
    if sequence.withheld:
        server = SERVERS.get(benchmark.name, "the server of this benchmark")
        raise ValueError(
            f"{benchmark.title}: the truth of {sequence.name!r} is withheld, so its results are scored by {server} "
            "alone; `fermt pack` makes the file to send there"
        )
    return sequence


def _read(folder: Path, benchmark: Benchmark) -> tuple[dict[str, list[Result]], list[str], dict[str, str]]:
    """Reads results by sequence; also returns sequences without results, and the faults of those that are damaged."""
    results: dict[str, list[Result]] = {}
    missing: dict[str, FileNotFoundError] = {}
    failed: dict[str, str] = {}
    for name in benchmark.sequence_names:
        try:
            results[name] = read_result(folder, name, benchmark.name)
        except FileNotFoundError as error:
            missing[name] = error
        except ResultError as error:
            failed[name] = str(error)
    if not results and not failed:
        raise next(iter(missing.values()))
    return results, list(missing), failed


class _Tally(NamedTuple):
    """Counts of one sequence."""

    name: str
    attributes: frozenset[str]
    sums: dict[str, np.ndarray]  # over all repetitions
    counted: int  # frames in the denominator, over all repetitions
    repetitions: int
    frames: int  # of one repetition
    invalid: int
    seconds: np.ndarray  # (N,) positive times


def _count(
    rules: Protocol,
    benchmark: Benchmark,
    results: Mapping[str, list[Result]],
    missing: Sequence[str],
    failed: dict[str, str],
) -> list[_Tally]:
    """Counts all sequences, in the order of names for reproducible sums; adds refused ones to `failed`."""
    tallies = []
    for i, name in enumerate(benchmark.sequence_names):
        if name in failed or (name not in results and not rules.missing_is_zeros):
            continue
        read = _sequence(benchmark, i)
        if isinstance(read, str):
            failed[name] = read
            continue
        sequence = _with_truth(benchmark, read)
        runs = results.get(name, [Result(np.zeros_like(sequence.boxes), None)])
        try:
            measured = [rules.measure(sequence, run.boxes) for run in runs]
        except RefusedError as error:
            failed[name] = str(error)
            continue
        seconds = np.concatenate([np.zeros(0), *(run.seconds for run in runs if run.seconds is not None)])
        tallies.append(
            _Tally(
                name=name,
                attributes=sequence.attributes,
                sums={key: np.sum([run.sums[key] for run in measured], axis=0) for key in rules.quantities},
                counted=sum(run.frames for run in measured),
                repetitions=len(runs),
                frames=measured[0].frames,
                invalid=int(np.isin(measured[0].kinds, INVALID).sum()),
                seconds=seconds[np.isfinite(seconds) & (seconds > 0)],
            )
        )
    return sorted(tallies, key=lambda tally: tally.name)


class _Table:
    """The counts of S sequences, for scores under any weights of the sequences."""

    def __init__(self, rules: Protocol, tallies: Sequence[_Tally]) -> None:
        self.rules, self.tallies = rules, tallies
        self.rows = {tally.name: row for row, tally in enumerate(tallies)}
        self.counts = np.array([tally.counted for tally in tallies], np.float64)
        self.sums = {key: np.stack([tally.sums[key] for tally in tallies]) for key in rules.quantities}

    def having(self, attribute: str) -> np.ndarray:
        """A mask, (S,) of 0 and 1, of the sequences with an attribute."""
        return np.array([attribute in tally.attributes for tally in self.tallies], np.float64)

    def scores(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Computes each score, (B,), for weights, (B, S)."""
        points = {key: self._points(key, weights) for key in self.rules.quantities}
        return {
            name: points[key] @ reading.apply(self.rules.quantities[key].points)
            for name, (key, reading) in self.rules.scores.items()
        }

    def curves(self) -> dict[str, Curve]:
        """Computes the curves over all sequences."""
        everything = np.ones((1, len(self.tallies)))
        return {
            key: Curve(quantity.thresholds, self._points(key, everything)[0])
            for key, quantity in self.rules.quantities.items()
            if quantity.thresholds is not None
        }

    def _points(self, key: str, weights: np.ndarray) -> np.ndarray:
        """Points of a quantity, (B, T), in the unit of the protocol."""
        return self.rules.quantities[key].aggregate.apply(self.sums[key], self.counts, weights) * self.rules.unit


def _intervals(table: _Table, bootstrap: int, seed: int) -> dict[str, Score]:
    """Computes scores with percentiles over resampled sequences, which need more than one sequence."""
    count = len(table.tallies)
    values = {name: float(value[0]) for name, value in table.scores(np.ones((1, count))).items()}
    if bootstrap == 0 or count == 1:
        return {name: Score(value, None, None) for name, value in values.items()}
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=bootstrap)
    ends = {name: _ends(resampled) for name, resampled in table.scores(drawn.astype(np.float64)).items()}
    return {name: Score(value, *ends[name]) for name, value in values.items()}


def _ends(resampled: np.ndarray) -> tuple[float | None, float | None]:
    """Percentiles over resamples with a counted frame, if there are any."""
    counted = resampled[np.isfinite(resampled)]
    return tuple(np.percentile(counted, INTERVAL).tolist()) if len(counted) else (None, None)
