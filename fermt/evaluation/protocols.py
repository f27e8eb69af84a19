"""Scoring protocols as data, one for each toolkit whose numbers are published."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..datasets.benchmark import TestSequence
from . import metrics, rules
from .rules import Kind, Rule


class Measure(NamedTuple):
    """A metric of single frames, and its count over frames."""

    says: str
    values: Callable[[np.ndarray, np.ndarray], np.ndarray]  # boxes and truth (N, 4) -> (N,)
    tally: Callable[[np.ndarray, np.ndarray], np.ndarray]  # values of the scored frames, thresholds (T,) -> (T,)


class Quantity(NamedTuple):
    """A measure over many sequences, usually a curve."""

    measure: Measure
    thresholds: np.ndarray | None  # (T,); None for a single number
    aggregate: Rule
    hits: frozenset[Kind] = frozenset()  # kinds of invalid frames that count as hits at every threshold

    @property
    def points(self) -> np.ndarray:
        """The thresholds, (T,), or one 0 for a single number."""
        return np.zeros(1) if self.thresholds is None else self.thresholds


class Reading(NamedTuple):
    """A score, computed from a quantity."""

    quantity: str
    weights: Rule  # thresholds (T,) -> weights of the points (T,)


class Measured(NamedTuple):
    """Counts of one result over one sequence."""

    sums: dict[str, np.ndarray]  # (T,) float64 for each quantity: hits at each threshold
    frames: int  # in the denominator
    kinds: np.ndarray  # (N,) int of Kind


@dataclasses.dataclass(frozen=True, eq=False)
class Protocol:
    """The rules by which a toolkit scores; `on` applies its exceptions for a data set."""

    name: str
    toolkit: str
    unit: float  # the largest score, 1 or 100
    digits: int  # decimals in print
    first: Rule
    prepare: Rule
    frames: Rule
    truth: Rule
    predictions: Rule
    length: Rule
    quantities: Mapping[str, Quantity]
    scores: Mapping[str, Reading]
    filling: float = 0.0  # numbers of boxes for frames after the end of a result
    missing_is_zeros: bool = False  # whether a sequence without a result is scored as boxes of zeros
    exceptions: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)  # replaced fields by data set

    def on(self, benchmark: str) -> Protocol:
        """Returns this protocol with its exceptions for a data set."""
        return dataclasses.replace(self, **self.exceptions.get(benchmark, {}))

    def measure(self, sequence: TestSequence, boxes: np.ndarray) -> Measured:
        """Measures a result, (M, 4) boxes, for a sequence of N frames.

        Raises:
            RefusedError: the protocol does not accept these boxes or this ground truth.
        """
        truth = sequence.boxes
        self.truth.apply(truth)
        self.length.apply(len(boxes), len(truth))
        boxes = self.predictions.apply(boxes[: len(truth)].copy(), truth[: len(boxes)])
        boxes = np.vstack([boxes, np.full((len(truth) - len(boxes), 4), self.filling)])
        kinds = self.frames.apply(sequence)
        self.first.apply(boxes, truth, kinds)
        scored = kinds == Kind.SCORED
        compared = (self.prepare.apply(boxes[scored], sequence), self.prepare.apply(truth[scored], sequence))
        sums = {}
        for name, quantity in self.quantities.items():
            values = quantity.measure.values(*compared)
            hits = np.isin(kinds, [*quantity.hits]).sum()
            sums[name] = quantity.measure.tally(values, quantity.points) + float(hits)
        return Measured(sums, int((~np.isin(kinds, rules.UNCOUNTED)).sum()), kinds)

    def policy(self) -> list[str]:
        """Describes in sentences how scores are computed."""
        return [
            f"first frame: {self.first.says}",
            f"boxes: {self.prepare.says}",
            f"invalid frames: {self.frames.says}",
            *self._invalid_frames(),
            f"truth: {self.truth.says}",
            f"bad predictions: {self.predictions.says}",
            f"lengths: {self.length.says}",
            *(f"{name}: {self._read(reading)}" for name, reading in self.scores.items()),
            "repetitions: the frames of all are taken together",
            f"missing sequences: {'boxes of zeros' if self.missing_is_zeros else 'left out of every score, and named'}",
        ]

    def _invalid_frames(self) -> list[str]:
        """Describes how invalid frames count, if there can be any."""
        if not any(quantity.hits for quantity in self.quantities.values()):
            return []
        lines = []
        for kind, said in ((Kind.ABSENT, "target not visible"), (Kind.UNTRUE, "true box not valid")):
            hit = [name for name, quantity in self.quantities.items() if kind in quantity.hits]
            miss = [name for name in self.quantities if name not in hit]
            sides = [f"{word} in {' and '.join(names)}" for word, names in (("miss", miss), ("hit", hit)) if names]
            lines.append(f"{said}: {', '.join(sides)}")
        return lines

    def _read(self, reading: Reading) -> str:
        measure, thresholds, aggregate, _ = self.quantities[reading.quantity]
        if thresholds is None:
            return f"{reading.weights.says} {measure.says}; {aggregate.says}"
        curve = f"{len(thresholds)} points of {measure.says} {thresholds[0]:g} ... {thresholds[-1]:g}"
        return f"{reading.weights.says} {curve}; {aggregate.says}"


OVERLAP = Measure("overlap >", metrics.overlap, metrics.above)
OVERLAP_REACHED = Measure("overlap >=", metrics.overlap, metrics.reached)
OVERLAP_TO_ONE = Measure("overlap >", metrics.overlap_to_one, metrics.above)
OVERLAP_ITSELF = Measure("the overlap", metrics.overlap_to_one, metrics.total)
APART = Measure("pixels between centers <=", metrics.center_error, metrics.within)
APART_SCALED = Measure("true sizes between centers <=", metrics.scaled_error, metrics.within)
APART_THEN_SCALED = Measure("true sizes between centers <=", metrics.scaled_difference, metrics.within)
ANSWERED = Measure("the frames that have a box", metrics.answered, metrics.total)

MEAN = Rule("the mean of", metrics.mean)
AREA = Rule("the area, by trapezoids, below", metrics.trapezoid)
AT_HALF = Rule("the one at 0.5 of", functools.partial(metrics.at, 0.5))
AT_THREE_QUARTERS = Rule("the one at 0.75 of", functools.partial(metrics.at, 0.75))
AT_20 = Rule("the one at 20 of", functools.partial(metrics.at, 20))
AT_FIFTH = Rule("the one at 0.2 of", functools.partial(metrics.at, 0.2))

OVERLAPS, MANY_OVERLAPS = np.linspace(0, 1, 21), np.linspace(0, 1, 101)
PIXELS, FEW_PIXELS = np.arange(51.0), np.linspace(0, 50, 21)
SIZES, FEW_SIZES = np.arange(51) / 100, np.linspace(0, 0.5, 21)
UNSEEN, UNMARKED = frozenset({Kind.ABSENT, Kind.UNTRUE}), frozenset({Kind.UNTRUE})

GOT10K = Protocol(
    name="got10k",
    toolkit="the GOT-10k toolkit's experiment on GOT-10k",
    unit=1.0,
    digits=3,
    first=rules.LEFT_OUT,
    prepare=rules.CLIPPED,
    frames=rules.UNCOVERED,
    truth=rules.TRUE_NUMBERS,
    predictions=rules.FINITE,
    length=rules.AS_LONG,
    quantities={
        "overlap": Quantity(OVERLAP_ITSELF, None, rules.POOLED),
        "success": Quantity(OVERLAP_TO_ONE, MANY_OVERLAPS, rules.POOLED),
    },
    scores={
        "AO": Reading("overlap", MEAN),
        "SR0.5": Reading("success", AT_HALF),
        "SR0.75": Reading("success", AT_THREE_QUARTERS),
    },
)

_PYTRACKING = {
    "success": Quantity(OVERLAP, OVERLAPS, rules.AVERAGED),
    "precision": Quantity(APART, PIXELS, rules.AVERAGED),
    "norm_precision": Quantity(APART_SCALED, SIZES, rules.AVERAGED, UNSEEN),
}
PYTRACKING = Protocol(
    name="pytracking",
    toolkit="pytracking's analysis, as its descendants (STARK, OSTrack and after) print it",
    unit=100.0,
    digits=2,
    first=rules.REPLACED,
    prepare=rules.PLAIN,
    frames=rules.WITH_AREA,
    truth=rules.TRUE_NUMBERS,
    predictions=rules.PREVIOUS_FOR_ZERO,
    length=rules.FILLED,
    quantities=_PYTRACKING,
    scores={
        "AUC": Reading("success", MEAN),
        "OP50": Reading("success", AT_HALF),
        "OP75": Reading("success", AT_THREE_QUARTERS),
        "P": Reading("precision", AT_20),
        "Pn": Reading("norm_precision", AT_FIFTH),
    },
    exceptions={
        "lasot": {
            "length": rules.LONG_ENOUGH,
            "quantities": _PYTRACKING | {"norm_precision": Quantity(APART_SCALED, SIZES, rules.AVERAGED, UNMARKED)},
        },
        "uav123": {
            "truth": rules.ANY_TRUTH,
            "quantities": _PYTRACKING | {"precision": Quantity(APART, PIXELS, rules.AVERAGED, UNSEEN)},
        },
    },
)

LASOT_OFFICIAL = Protocol(
    name="lasot-official",
    toolkit="LaSOT's own toolkit, for MATLAB",
    unit=1.0,
    digits=3,
    first=rules.REPLACED,
    prepare=rules.PLAIN,
    frames=rules.POSITIVE,
    truth=rules.ANY_TRUTH,
    predictions=rules.PREVIOUS_FOR_BAD,
    length=rules.LONG_ENOUGH,
    quantities={
        "success": Quantity(OVERLAP, OVERLAPS, rules.AVERAGED_BUT_ZERO),
        "precision": Quantity(APART, PIXELS, rules.AVERAGED_BUT_ZERO, UNMARKED),
        "norm_precision": Quantity(APART_SCALED, SIZES, rules.AVERAGED_BUT_ZERO, UNMARKED),
    },
    scores={
        "AUC": Reading("success", MEAN),
        "P": Reading("precision", AT_20),
        "Pn": Reading("norm_precision", AT_FIFTH),
    },
)

TRACKINGNET_DEVKIT = Protocol(
    name="trackingnet-devkit",
    toolkit="TrackingNet's development kit, which its server runs",
    unit=100.0,
    digits=2,
    first=rules.REPLACED,
    prepare=rules.ROUNDED,
    frames=rules.AS_DATA,
    truth=rules.ANY_TRUTH,
    predictions=rules.ANY_BOX,
    length=rules.MISSED,
    filling=np.nan,
    missing_is_zeros=True,
    quantities={
        "success": Quantity(OVERLAP_REACHED, OVERLAPS, rules.AVERAGED),
        "precision": Quantity(APART, FEW_PIXELS, rules.AVERAGED),
        "norm_precision": Quantity(APART_THEN_SCALED, FEW_SIZES, rules.AVERAGED),
        "coverage": Quantity(ANSWERED, None, rules.POOLED),
    },
    scores={
        "AUC": Reading("success", AREA),
        "P": Reading("precision", AREA),
        "Pn": Reading("norm_precision", AREA),
        "Coverage": Reading("coverage", MEAN),
    },
)

PROTOCOLS = {row.name: row for row in (GOT10K, PYTRACKING, LASOT_OFFICIAL, TRACKINGNET_DEVKIT)}
# The protocol of the literature for each data set.
USUAL = {
    "got10k": GOT10K.name,
    "trackingnet": TRACKINGNET_DEVKIT.name,
    **dict.fromkeys(("lasot", "lasot_ext", "nfs", "uav123", "otb100"), PYTRACKING.name),
}


def protocol_for(benchmark_name: str) -> str:
    """Returns the name of the protocol of the literature for a data set, which "auto" stands for.

    Raises:
        ValueError: an unknown data set.
    """
    if benchmark_name not in USUAL:
        raise ValueError(f"expected a data set out of {', '.join(USUAL)}; got {benchmark_name!r}")
    return USUAL[benchmark_name]


def find_protocol(name: str, benchmark_name: str) -> Protocol:
    """Returns the protocol of that name, or "auto", for a data set.

    Raises:
        ValueError: an unknown protocol, or "auto" for an unknown data set.
    """
    name = protocol_for(benchmark_name) if name == "auto" else name
    if name not in PROTOCOLS:
        raise ValueError(f"expected a protocol out of auto, {', '.join(PROTOCOLS)}; got {name!r}")
    return PROTOCOLS[name].on(benchmark_name)
