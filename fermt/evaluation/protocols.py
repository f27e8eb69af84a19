"""Scoring protocols as data, one for each toolkit whose numbers are published."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..datasets.benchmark import TestSequence
from . import metrics, rules
from .rules import FrameKind, Rule


class Measure(NamedTuple):
    """A metric of single frames, and its count over frames."""

    description: str
    values: Callable[[np.ndarray, np.ndarray], np.ndarray]  # boxes and truth (N, 4) -> (N,)
    tally: Callable[[np.ndarray, np.ndarray], np.ndarray]  # values of the scored frames, thresholds (T,) -> (T,)


class Quantity(NamedTuple):
    """A measure over many sequences, usually a curve."""

    measure: Measure
    thresholds: np.ndarray | None  # (T,); None for a single number
    aggregate: Rule
    hits: frozenset[FrameKind] = frozenset()  # kinds of invalid frames that count as hits at every threshold

    @property
    def points(self) -> np.ndarray:
        """The thresholds, (T,), or one 0 for a single number."""
        return np.zeros(1) if self.thresholds is None else self.thresholds


class ScoreDefinition(NamedTuple):
    """A score, computed from a quantity."""

    quantity: str
    weights: Rule  # thresholds (T,) -> weights of the points (T,)


class SequenceCounts(NamedTuple):
    """Counts of one result over one sequence."""

    sums: dict[str, np.ndarray]  # (T,) float64 for each quantity: hits at each threshold
    frames: int  # in the denominator
    kinds: np.ndarray  # (N,) int of FrameKind


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
    scores: Mapping[str, ScoreDefinition]
    filling: float = 0.0  # x, y, w and h of the boxes for frames after the end of a result
    missing_is_zeros: bool = False  # whether a sequence without a result is scored as boxes of zeros
    exceptions: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)  # replaced fields by data set

    def on(self, benchmark: str) -> Protocol:
        """Returns this protocol with its exceptions for a data set."""
        return dataclasses.replace(self, **self.exceptions.get(benchmark, {}))

    def measure(self, sequence: TestSequence, boxes: np.ndarray) -> SequenceCounts:
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
        scored = kinds == FrameKind.SCORED
        compared = (self.prepare.apply(boxes[scored], sequence), self.prepare.apply(truth[scored], sequence))
        sums = {}
        for name, quantity in self.quantities.items():
            values = quantity.measure.values(*compared)
            hits = np.isin(kinds, [*quantity.hits]).sum()
            sums[name] = quantity.measure.tally(values, quantity.points) + float(hits)
        return SequenceCounts(sums, int((~np.isin(kinds, rules.UNCOUNTED)).sum()), kinds)

    def policy(self) -> list[str]:
        """Describes in sentences how scores are computed."""
        return [
            f"first frame: {self.first.description}",
            f"boxes: {self.prepare.description}",
            f"invalid frames: {self.frames.description}",
            *self._invalid_frames(),
            f"truth: {self.truth.description}",
            f"bad predictions: {self.predictions.description}",
            f"lengths: {self.length.description}",
            *(f"{name}: {self._describe(score)}" for name, score in self.scores.items()),
            "repetitions: the frames of all are taken together",
            f"missing sequences: {'boxes of zeros' if self.missing_is_zeros else 'left out of every score, and named'}",
        ]

    def _invalid_frames(self) -> list[str]:
        """Describes how invalid frames count, if there can be any."""
        if not any(quantity.hits for quantity in self.quantities.values()):
            return []
        lines = []
        for kind, said in ((FrameKind.ABSENT, "target not visible"), (FrameKind.INVALID_TRUTH, "true box not valid")):
            hit = [name for name, quantity in self.quantities.items() if kind in quantity.hits]
            miss = [name for name in self.quantities if name not in hit]
            sides = [f"{word} in {' and '.join(names)}" for word, names in (("miss", miss), ("hit", hit)) if names]
            lines.append(f"{said}: {', '.join(sides)}")
        return lines

    def _describe(self, score: ScoreDefinition) -> str:
        measure, thresholds, aggregate, _ = self.quantities[score.quantity]
        if thresholds is None:
            return f"{score.weights.description} {measure.description}; {aggregate.description}"
        curve = f"{len(thresholds)} points of {measure.description} {thresholds[0]:g} ... {thresholds[-1]:g}"
        return f"{score.weights.description} {curve}; {aggregate.description}"


OVERLAP = Measure("overlap >", metrics.overlap, metrics.count_above)
OVERLAP_AT_LEAST = Measure("overlap >=", metrics.overlap, metrics.count_at_least)
GOT10K_OVERLAP = Measure("overlap >", metrics.got10k_overlap, metrics.count_above)
MEAN_OVERLAP = Measure("the overlap", metrics.got10k_overlap, metrics.total)
CENTER_ERROR = Measure("pixels between centers <=", metrics.center_error, metrics.count_at_most)
NORMALIZED_ERROR = Measure("true sizes between centers <=", metrics.normalized_error, metrics.count_at_most)
NORMALIZED_DIFFERENCE = Measure("true sizes between centers <=", metrics.normalized_difference, metrics.count_at_most)
HAS_BOX = Measure("the frames that have a box", metrics.has_box, metrics.total)

MEAN = Rule("the mean of", metrics.mean)
AREA = Rule("the area, by trapezoids, below", metrics.trapezoid)
AT_HALF = Rule("the one at 0.5 of", functools.partial(metrics.point_at, 0.5))
AT_THREE_QUARTERS = Rule("the one at 0.75 of", functools.partial(metrics.point_at, 0.75))
AT_20 = Rule("the one at 20 of", functools.partial(metrics.point_at, 20))
AT_FIFTH = Rule("the one at 0.2 of", functools.partial(metrics.point_at, 0.2))

OVERLAP_THRESHOLDS, OVERLAP_THRESHOLDS_101 = np.linspace(0, 1, 21), np.linspace(0, 1, 101)
PIXEL_THRESHOLDS, PIXEL_THRESHOLDS_21 = np.arange(51.0), np.linspace(0, 50, 21)
SIZE_THRESHOLDS, SIZE_THRESHOLDS_21 = np.arange(51) / 100, np.linspace(0, 0.5, 21)
ABSENT_OR_INVALID = frozenset({FrameKind.ABSENT, FrameKind.INVALID_TRUTH})
INVALID_ALONE = frozenset({FrameKind.INVALID_TRUTH})

GOT10K = Protocol(
    name="got10k",
    toolkit="the GOT-10k toolkit's experiment on GOT-10k",
    unit=1.0,
    digits=3,
    first=rules.FIRST_LEFT_OUT,
    prepare=rules.CLIPPED,
    frames=rules.COVER_ABOVE_ZERO,
    truth=rules.TRUTH_WITHOUT_NAN,
    predictions=rules.FINITE_BOXES,
    length=rules.SAME_LENGTH,
    quantities={
        "overlap": Quantity(MEAN_OVERLAP, None, rules.POOLED),
        "success": Quantity(GOT10K_OVERLAP, OVERLAP_THRESHOLDS_101, rules.POOLED),
    },
    scores={
        "AO": ScoreDefinition("overlap", MEAN),
        "SR0.5": ScoreDefinition("success", AT_HALF),
        "SR0.75": ScoreDefinition("success", AT_THREE_QUARTERS),
    },
)

_PYTRACKING = {
    "success": Quantity(OVERLAP, OVERLAP_THRESHOLDS, rules.AVERAGED),
    "precision": Quantity(CENTER_ERROR, PIXEL_THRESHOLDS, rules.AVERAGED),
    "norm_precision": Quantity(NORMALIZED_ERROR, SIZE_THRESHOLDS, rules.AVERAGED, ABSENT_OR_INVALID),
}
PYTRACKING = Protocol(
    name="pytracking",
    toolkit="pytracking's analysis, as its descendants (STARK, OSTrack and after) print it",
    unit=100.0,
    digits=2,
    first=rules.FIRST_REPLACED,
    prepare=rules.UNCHANGED,
    frames=rules.SIZE_ABOVE_ZERO,
    truth=rules.TRUTH_WITHOUT_NAN,
    predictions=rules.PREVIOUS_FOR_ZERO,
    length=rules.FILLED_WITH_ZEROS,
    quantities=_PYTRACKING,
    scores={
        "AUC": ScoreDefinition("success", MEAN),
        "OP50": ScoreDefinition("success", AT_HALF),
        "OP75": ScoreDefinition("success", AT_THREE_QUARTERS),
        "P": ScoreDefinition("precision", AT_20),
        "Pn": ScoreDefinition("norm_precision", AT_FIFTH),
    },
    exceptions={
        "lasot": {
            "length": rules.AT_LEAST_AS_LONG,
            "quantities": _PYTRACKING
            | {"norm_precision": Quantity(NORMALIZED_ERROR, SIZE_THRESHOLDS, rules.AVERAGED, INVALID_ALONE)},
        },
        "uav123": {
            "truth": rules.ANY_TRUTH,
            "quantities": _PYTRACKING
            | {"precision": Quantity(CENTER_ERROR, PIXEL_THRESHOLDS, rules.AVERAGED, ABSENT_OR_INVALID)},
        },
    },
)

LASOT_OFFICIAL = Protocol(
    name="lasot-official",
    toolkit="LaSOT's own toolkit, for MATLAB",
    unit=1.0,
    digits=3,
    first=rules.FIRST_REPLACED,
    prepare=rules.UNCHANGED,
    frames=rules.ALL_ABOVE_ZERO,
    truth=rules.ANY_TRUTH,
    predictions=rules.PREVIOUS_FOR_BAD,
    length=rules.AT_LEAST_AS_LONG,
    quantities={
        "success": Quantity(OVERLAP, OVERLAP_THRESHOLDS, rules.AVERAGED_BUT_ZERO),
        "precision": Quantity(CENTER_ERROR, PIXEL_THRESHOLDS, rules.AVERAGED_BUT_ZERO, INVALID_ALONE),
        "norm_precision": Quantity(NORMALIZED_ERROR, SIZE_THRESHOLDS, rules.AVERAGED_BUT_ZERO, INVALID_ALONE),
    },
    scores={
        "AUC": ScoreDefinition("success", MEAN),
        "P": ScoreDefinition("precision", AT_20),
        "Pn": ScoreDefinition("norm_precision", AT_FIFTH),
    },
)

TRACKINGNET_DEVKIT = Protocol(
    name="trackingnet-devkit",
    toolkit="TrackingNet's development kit, which its server runs",
    unit=100.0,
    digits=2,
    first=rules.FIRST_REPLACED,
    prepare=rules.ROUNDED,
    frames=rules.ALL_SCORED,
    truth=rules.ANY_TRUTH,
    predictions=rules.ANY_BOX,
    length=rules.FILLED_WITH_MISSES,
    filling=np.nan,
    missing_is_zeros=True,
    quantities={
        "success": Quantity(OVERLAP_AT_LEAST, OVERLAP_THRESHOLDS, rules.AVERAGED),
        "precision": Quantity(CENTER_ERROR, PIXEL_THRESHOLDS_21, rules.AVERAGED),
        "norm_precision": Quantity(NORMALIZED_DIFFERENCE, SIZE_THRESHOLDS_21, rules.AVERAGED),
        "coverage": Quantity(HAS_BOX, None, rules.POOLED),
    },
    scores={
        "AUC": ScoreDefinition("success", AREA),
        "P": ScoreDefinition("precision", AREA),
        "Pn": ScoreDefinition("norm_precision", AREA),
        "Coverage": ScoreDefinition("coverage", MEAN),
    },
)

PROTOCOLS = {row.name: row for row in (GOT10K, PYTRACKING, LASOT_OFFICIAL, TRACKINGNET_DEVKIT)}
# The protocol of the literature for each data set.
DEFAULT_PROTOCOLS = {
    "got10k": GOT10K.name,
    "trackingnet": TRACKINGNET_DEVKIT.name,
    **dict.fromkeys(("lasot", "lasot_ext", "nfs", "uav123", "otb100"), PYTRACKING.name),
}


def find_protocol(name: str, benchmark_name: str) -> Protocol:
    """Returns the protocol of that name, or "auto", for a data set.

    Raises:
        ValueError: an unknown protocol, or "auto" for an unknown data set.
    """
    if name == "auto":
        if benchmark_name not in DEFAULT_PROTOCOLS:
            raise ValueError(f"expected a data set out of {', '.join(DEFAULT_PROTOCOLS)}; got {benchmark_name!r}")
        name = DEFAULT_PROTOCOLS[benchmark_name]
    if name not in PROTOCOLS:
        raise ValueError(f"expected a protocol out of auto, {', '.join(PROTOCOLS)}; got {name!r}")
    return PROTOCOLS[name].on(benchmark_name)
